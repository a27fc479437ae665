"""A crowd of clients, most of which misbehave: each place is taken by one after the other.

    crowd.py CONFIG.json

In: where the server is, how many places, for how long, where to write what was done. A line of standard input, or
its end, ends it early. Out: a JSON with how often each of the ways to behave was gone through, and what went wrong
that should not have: a client that behaves must be served, one that does not must be refused.
"""

import asyncio
import collections
import contextlib
import json
import pathlib
import random
import signal
import ssl
import sys
import wave

import grpc
import grpc.aio
from wire import Wire

RATE_HZ = 16_000
CHUNK_S = 0.2
# Longest time for what a server does at once.
SOON_S = 30
# A stalled client is ended by a time-out of the server's; the longest is reckoned twice.
STALL_S = 40


def load_audio(root: pathlib.Path) -> bytes:
    """A sentence and a pause of two seconds, 16-bit mono at 16 kHz: in the pause the policy raises, in the next
    sentence it clears."""
    with wave.open(str(root / "tests/data/hello.wav")) as sentence:
        frames = sentence.readframes(sentence.getnframes())
    return frames + bytes(2 * 2 * RATE_HZ)


class Crowd:
    def __init__(self, config: dict) -> None:
        self.config = config
        root = pathlib.Path(config["root"])
        sys.path.insert(0, config["generated"])
        from undertone.v1 import emotion_service_pb2, emotion_service_pb2_grpc

        self.messages, self.stubs = emotion_service_pb2, emotion_service_pb2_grpc
        # Read once: a checkout may go while this runs.
        self.file = (root / "tests/data/hello.wav").read_bytes()
        self.audio = load_audio(root)
        self.certificate = pathlib.Path(config["certificate"]).read_bytes()
        self.quiet = pathlib.Path(config["quiet"]).read_text()
        self.noise = random.Random(config["seed"])
        self.done: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.resumed = 0
        self.stop = asyncio.Event()
        self.ways = [
            (self.well, 6), (self.leave, 4), (self.reset, 3), (self.unread, 2), (self.silent, 2), (self.hang, 2),
            (self.resume, 3), (self.rubbish_bytes, 2), (self.rubbish_messages, 3), (self.stranger, 1),
            (self.clip, 1), (self.killed, 1), (self.frozen, 1),
        ]  # fmt: skip

    # --- what clients are made of --------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def channel(self, port: int | None = None, token: str | None = None):
        credentials = grpc.composite_channel_credentials(
            grpc.ssl_channel_credentials(self.certificate),
            grpc.access_token_call_credentials(token or self.config["token"]),
        )
        # Each its own connection: gRPC would share one between channels that look alike.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        address = f"localhost:{port or self.config['port']}"
        channel = grpc.aio.secure_channel(address, credentials, options)
        try:
            yield channel
        finally:
            await channel.close()

    def config_message(self, **fields: object):
        audio = self.messages.AudioFormat(
            encoding=self.messages.AUDIO_ENCODING_LINEAR16, sample_rate_hz=RATE_HZ
        )
        if self.noise.random() < 0.5:
            fields.setdefault("policy_yaml", self.quiet)
        return self.messages.StreamEmotionRequest(config=self.messages.StreamConfig(audio=audio, **fields))

    def chunk(self, number: int):
        size = int(CHUNK_S * RATE_HZ) * 2
        first = number * size % (len(self.audio) - size)
        return self.messages.StreamEmotionRequest(
            audio=self.messages.AudioChunk(data=self.audio[first : first + size])
        )

    async def talk(self, call, seconds: float, first: int = 0) -> int:
        """Says so much in real time; the number of the next chunk."""
        chunks = max(1, int(seconds / CHUNK_S))
        for number in range(first, first + chunks):
            await call.write(self.chunk(number))
            await asyncio.sleep(CHUNK_S)
        return first + chunks

    def some(self, least: float, most: float) -> float:
        return self.noise.uniform(least, most) * self.config["haste"]

    async def open(self, channel, **fields: object):
        call = self.stubs.EmotionServiceStub(channel).StreamEmotion()
        await call.write(self.config_message(**fields))
        started = await call.read()
        if started is grpc.aio.EOF or not started.HasField("started"):
            raise AssertionError(f"a stream began with {started}")
        return call

    async def hear(self, call):
        """What comes, until the stream ends."""
        while (response := await call.read()) is not grpc.aio.EOF:
            yield response

    async def finished(self, call) -> bool:
        """Whether the last that comes is a summary."""
        last = None
        async for last in self.hear(call):
            pass
        return last is not None and last.HasField("finished")

    async def must_end(self, call, what: str, *codes: grpc.StatusCode) -> None:
        """It is ended by the server, with one of these codes."""
        async with asyncio.timeout(STALL_S):
            # The code comes behind all that is unread.
            with contextlib.suppress(grpc.aio.AioRpcError):
                async for _ in self.hear(call):
                    pass
            code = await call.code()
        # grpc's own word for a write that came when the stream had ended; the server's is lost then.
        if code not in codes and await call.details() != "Internal error from Core":
            self.wrong.append(f"{what}: ended with {code}, not one of {[c.name for c in codes]}")

    # --- ways to behave ------------------------------------------------------------------------------

    async def well(self) -> None:
        async with self.channel() as channel:
            call = await self.open(channel)
            listening = asyncio.create_task(self.finished(call))
            await self.talk(call, self.some(3, 20))
            await call.done_writing()
            if not await asyncio.wait_for(listening, SOON_S):
                self.wrong.append("well: a stream ended without a summary")

    async def leave(self) -> None:
        async with self.channel() as channel:
            call = await self.open(channel)
            await self.talk(call, self.some(0.5, 8))
            call.cancel()

    async def reset(self) -> None:
        async with Wire(self.config["port"]) as wire, self.channel(wire.port) as channel:
            call = await self.open(channel)
            await self.talk(call, self.some(0.5, 8))
            wire.reset()
            await asyncio.wait_for(call.code(), SOON_S)

    async def unread(self) -> None:
        async with Wire(self.config["port"]) as wire, self.channel(wire.port) as channel:
            call = await self.open(channel)
            await self.talk(call, self.some(0.5, 3))
            wire.stop_reading()
            talking = asyncio.create_task(self.talk(call, STALL_S))
            try:
                await self.gone(wire)
            finally:
                talking.cancel()
                await asyncio.gather(talking, return_exceptions=True)

    async def silent(self) -> None:
        async with self.channel() as channel:
            call = await self.open(channel)
            await self.talk(call, self.some(0.5, 3))
            await self.must_end(call, "silent", grpc.StatusCode.DEADLINE_EXCEEDED)

    async def hang(self) -> None:
        async with Wire(self.config["port"]) as wire, self.channel(wire.port) as channel:
            call = await self.open(channel)
            await self.talk(call, self.some(0.5, 3))
            wire.hang()
            # Bytes of the server are not seen any more, nor is its going: its sessions tell.
            await asyncio.sleep(self.config["hang_s"])
            call.cancel()

    async def gone(self, wire: Wire) -> None:
        """The server ends what does not read; the wire does not read either, so that only time tells."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wire.closed_by_server.wait(), self.config["hang_s"])

    async def resume(self) -> None:
        session = f"resumed-{self.noise.randrange(1 << 48):x}"
        fields = {"session_id": session, "policy_yaml": self.quiet, "checkpoint_interval": {"seconds": 1}}
        token = None
        async with Wire(self.config["port"]) as wire, self.channel(wire.port) as channel:
            call = await self.open(channel, **fields)
            talking = asyncio.create_task(self.talk(call, 60))
            try:
                async with asyncio.timeout(SOON_S):
                    async for response in self.hear(call):
                        if response.HasField("checkpoint"):
                            token, point = response.checkpoint.resume_token, response.checkpoint.point
                            if point.audio_bytes > 3 * 2 * RATE_HZ:
                                break
            finally:
                talking.cancel()
                await asyncio.gather(talking, return_exceptions=True)
            wire.reset()
        if self.noise.random() < 0.3:
            # Nobody comes back: the server has to notice by itself.
            return
        async with self.channel() as channel:
            call = await self.open(channel, **fields, resume_token=token)
            await self.talk(call, self.some(1, 4), first=point.requests - 1)
            await call.done_writing()
            if not await asyncio.wait_for(self.finished(call), SOON_S):
                self.wrong.append("resume: a stream that went on ended without a summary")
            self.resumed += 1

    async def rubbish_bytes(self) -> None:
        """Bytes that are no TLS, no HTTP/2, a preface and then rubbish, a beginning and then nothing."""
        kind = self.noise.randrange(4)
        tls = None
        if kind:
            tls = ssl.create_default_context(cadata=self.certificate.decode())
            tls.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection(
            "localhost", self.config["port"], ssl=tls, server_hostname="localhost" if tls else None
        )
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        rubbish = self.noise.randbytes(self.noise.randrange(1, 4096))
        writer.write({0: rubbish, 1: rubbish, 2: preface + rubbish, 3: preface[:10]}[kind])
        with contextlib.suppress(ConnectionError, OSError, ssl.SSLError):
            async with asyncio.timeout(STALL_S):
                await reader.read()
        writer.transport.abort()

    async def rubbish_messages(self) -> None:
        stub_path = "/undertone.v1.EmotionService/StreamEmotion"
        audio = self.chunk(0).SerializeToString()
        config = self.config_message().SerializeToString()
        bad_rate = self.config_message()
        bad_rate.config.audio.sample_rate_hz = 7
        first = [
            [b"\xff" * 40],
            [audio],
            [config, config],
            [bad_rate.SerializeToString()],
            [config, self.messages.StreamEmotionRequest(audio={"data": bytes(1 << 21)}).SerializeToString()],
            [self.messages.StreamEmotionRequest().SerializeToString()],
            [self.config_message(resume_token=self.noise.randbytes(300)).SerializeToString()],
            [self.config_message(policy_yaml="rules: [").SerializeToString()],
        ][self.noise.randrange(8)]
        async with self.channel() as channel:
            call = channel.stream_stream(stub_path)()
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                for message in first:
                    await call.write(message)
            await self.must_end(
                call, "rubbish", grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.StatusCode.INTERNAL, grpc.StatusCode.FAILED_PRECONDITION,
            )  # fmt: skip

    async def stranger(self) -> None:
        async with self.channel(token="a-token-of-nobody") as channel:
            call = self.stubs.EmotionServiceStub(channel).StreamEmotion()
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(self.config_message())
            await self.must_end(call, "stranger", grpc.StatusCode.UNAUTHENTICATED)

    async def clip(self) -> None:
        async with self.channel() as channel:
            stub = self.stubs.EmotionServiceStub(channel)
            content = self.file if self.noise.random() < 0.5 else self.noise.randbytes(20_000)
            try:
                await stub.AnalyzeAudio(self.messages.AnalyzeAudioRequest(content=content), timeout=SOON_S)
            except grpc.aio.AioRpcError as error:
                expected = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
                if error.code() not in expected:
                    self.wrong.append(f"clip: {error.code()} {error.details()}")

    @contextlib.asynccontextmanager
    async def process(self, what: str):
        """A process with eight streams over one connection, which is killed in the end. It must not end before."""
        config = self.config
        process = await asyncio.create_subprocess_exec(
            config["binary"], "bench", "--target", config["target"], "--ca", config["certificate"],
            "--token-file", config["token_file"], "--metrics", "none", "--streams", "8", "--seconds", "600",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield process
        finally:
            ended_before = process.returncode is not None
            if not ended_before:
                process.kill()
            said, _ = await process.communicate()
            if ended_before:
                self.wrong.append(f"{what}: its process ended by itself: {said.decode(errors='replace')[-400:]}")

    async def killed(self) -> None:
        async with self.process("killed"):
            await asyncio.sleep(self.some(1, 10))

    async def frozen(self) -> None:
        async with self.process("frozen") as process:
            await asyncio.sleep(self.some(1, 5))
            if process.returncode is None:
                process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(self.config["hang_s"])

    # --- all of them ---------------------------------------------------------------------------------

    async def place(self, number: int) -> None:
        """One after the other, until it is over."""
        ways, weights = zip(*self.ways, strict=True)
        await asyncio.sleep(self.some(0, 3))
        # Each way is gone through early by somebody, then as it comes.
        way = ways[number % len(ways)]
        while not self.stop.is_set():
            try:
                await way()
            except Exception as error:  # whatever it is, it is no reason to leave the place empty
                if not self.stop.is_set():
                    self.wrong.append(f"{way.__name__}: {type(error).__name__}: {error}"[:300])
            self.done[way.__name__] += 1
            way = self.noise.choices(ways, weights)[0]

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        # Whoever started it says so, or is gone.
        loop.add_reader(sys.stdin, self.stop.set)
        # Ctrl-C is the business of whoever started it.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        places = [asyncio.create_task(self.place(number)) for number in range(self.config["places"])]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), self.config["seconds"])
        self.stop.set()
        loop.remove_reader(sys.stdin)
        # Those who behave come to their end, the others are cut off.
        await asyncio.wait(places, timeout=5)
        for place in places:
            place.cancel()
        await asyncio.gather(*places, return_exceptions=True)
        result = {"done": dict(self.done), "resumed": self.resumed, "wrong": self.wrong}
        pathlib.Path(self.config["result"]).write_text(json.dumps(result))


if __name__ == "__main__":
    crowd = Crowd(json.loads(pathlib.Path(sys.argv[1]).read_text()))
    asyncio.run(crowd.run())
