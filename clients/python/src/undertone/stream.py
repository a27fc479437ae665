"""A live stream: audio in, events out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import TracebackType

from typing_extensions import Self

from ._carrier import Carrier
from ._channels import Channels
from ._events import Events
from ._generated.undertone.v1 import emotion_service_pb2 as pb
from ._requests import Request, Requests
from .audio import AudioFormat
from .events import Event, Started
from .reconnect import Reconnect

Buffer = bytes | bytearray | memoryview

# Longer audio is cut: a second of 16 kHz, far below what any server takes at once.
CHUNK_BYTES = 32_000


class Stream:
    """A live stream, made by `Undertone.open` and opened by `async with`.

    Send audio as it comes and read the events all the while: a server whose answers nobody reads stops listening, and
    ends the stream after 30 s. All methods belong to the event loop that the stream was opened in.

    >>> import asyncio
    >>> from undertone import AudioFormat, Finished, Undertone
    >>> async def main():
    ...     async with Undertone() as u, u.open(AudioFormat(sample_rate=8000)) as stream:
    ...         await stream.send(bytes(16_000))  # a second; before anybody speaks, nothing is estimated
    ...         await stream.mark("hello")
    ...         await stream.end()
    ...         async for event in stream:
    ...             print(type(event).__name__)
    >>> asyncio.run(main())
    Started
    MarkReached
    Finished
    """

    def __init__(
        self,
        channels: Channels,
        config: pb.StreamConfig,
        audio: AudioFormat,
        reconnect: Reconnect | None,
        buffer: float,
        timeout: float,
        live: set[Stream],
    ) -> None:
        self._channels = channels
        self._config = config
        self._reconnect = reconnect
        self._timeout = timeout
        self._requests = Requests(audio.size(buffer), reconnect.kept_bytes if reconnect else 0)
        self._events = Events()
        self._carrier: Carrier | None = None
        self._task: asyncio.Task[None] | None = None
        self._started: Started | None = None
        self._live = live
        self._sequence = 0
        # Chunks of one `send` stay together.
        self._sending = asyncio.Lock()
        self.format = audio
        """What is sent."""

    async def __aenter__(self) -> Self:
        """Opens it and waits until the server has taken it.

        Raises:
            UndertoneError: It did not.
        """
        if self._task is not None:
            raise RuntimeError("a stream is opened once")
        self._carrier = Carrier(
            self._channels,
            self._config,
            self.format.bytes_per_second,
            self._reconnect,
            self._timeout,
            self._requests,
            self._events,
        )
        self._task = asyncio.create_task(self._carrier.run())
        self._live.add(self)
        try:
            self._started = await self._carrier.started
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def started(self) -> Started:
        """What the server said when it took the stream."""
        if self._started is None:
            raise RuntimeError("the stream is not open: async with u.open(...) as stream")
        return self._started

    @property
    def session_id(self) -> str:
        """The session's name."""
        return self.started.session_id

    @property
    def connected(self) -> bool:
        """Whether a server takes the stream now: false while a connection that broke is mended, and behind the end.

        A server that is gone without a word is noticed after 10 s.
        """
        return self._carrier is not None and self._carrier.connected

    async def send(self, audio: Buffer) -> None:
        """Sends raw audio of any length; it may end inside a sample, the rest comes with the next one.

        Waits while `buffer` seconds of audio are there that the server has not taken. Cancelled, it leaves what was
        taken so far on its way.

        Raises:
            StreamClosed: The stream has ended.
            UndertoneError: The stream failed, for this reason.
        """
        async with self._sending:
            for chunk in self._cut(audio):
                await self._requests.put(chunk)

    def send_nowait(self, audio: Buffer) -> bool:
        """Sends raw audio if there is room for it now; else gives false and has sent nothing.

        Raises:
            StreamClosed: The stream has ended.
            UndertoneError: The stream failed, for this reason.
        """
        if self._sending.locked() or not self._requests.has_room(memoryview(audio).nbytes):
            return False
        for chunk in self._cut(audio):
            self._requests.push(chunk)
        return True

    async def mark(self, name: str) -> None:
        """Names this moment, at most 255 bytes. `MarkReached` comes when all audio before it has been processed."""
        await self._say(pb.StreamEmotionRequest(mark=pb.Mark(name=name)), is_mark=True)

    async def turn_start(self) -> None:
        """The subject's turn starts here: an utterance that is still open ends."""
        await self._say(pb.StreamEmotionRequest(turn=pb.Turn(boundary=pb.Turn.BOUNDARY_START)))

    async def turn_end(self) -> None:
        """The subject's turn ends here: the open utterance ends now, without waiting for silence."""
        await self._say(pb.StreamEmotionRequest(turn=pb.Turn(boundary=pb.Turn.BOUNDARY_END)))

    async def acknowledge(self, escalation_id: str, actor: str, note: str = "") -> None:
        """Takes on an escalation of this stream.

        Args:
            escalation_id: Which one.
            actor: Who, for the audit trail, 1 to 255 bytes.
            note: What they say, at most 1,000 bytes.
        """
        acknowledge = pb.Acknowledge(escalation_id=escalation_id, actor=actor, note=note)
        await self._say(pb.StreamEmotionRequest(acknowledge=acknowledge))

    async def end(self) -> None:
        """No more audio comes. Events go on until `Finished`. To say it again changes nothing."""
        async with self._sending:
            self._requests.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self._events.take()

    def _cut(self, audio: Buffer) -> Iterator[Request]:
        size = min(CHUNK_BYTES, self.started.limits.max_chunk_bytes or CHUNK_BYTES)
        view = memoryview(audio).cast("B")
        for first in range(0, len(view), size):
            data = bytes(view[first : first + size])
            chunk = pb.AudioChunk(data=data, sequence=self._sequence)
            self._sequence += 1
            yield Request(pb.StreamEmotionRequest(audio=chunk).SerializeToString(), audio_bytes=len(data))

    async def _say(self, request: pb.StreamEmotionRequest, *, is_mark: bool = False) -> None:
        async with self._sending:
            await self._requests.put(Request(request.SerializeToString(), is_mark=is_mark))

    def abort(self, error: Exception) -> None:
        """Breaks it off. Its reader gets what has come so far, then `error`."""
        self._events.end(error)
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Breaks the stream off, if it has not ended. The end of `async with` does it."""
        self._live.discard(self)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
