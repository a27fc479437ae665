"""What a stream costs the server by the way its audio comes in: gRPC, WebSocket with binary frames, and with audio in JSON as
telephone systems send it. Each way in turn, on one server that this starts, with the same audio at the pace of its sound.

    cargo build --release
    python benches/websocket.py [--streams 200] [--seconds 20] [--chunk-ms 100] [--rounds 2]

Needs the Python client (clients/python) and `websockets`. The server's CPU time is its process's own, as it says on /metrics.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import pathlib
import re
import signal
import subprocess
import urllib.request

from undertone import AudioFormat, Encoding, Undertone
from websockets.asyncio.client import connect

ROOT = pathlib.Path(__file__).resolve().parents[1]
VOICE = (ROOT / "tests/data/hello.wav").read_bytes()[44:]
RATE_HZ = 16_000


def said(metrics: str, name: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", metrics, re.M))


def counters(http: str) -> tuple[float, float]:
    """The server's CPU seconds, and the seconds of audio that it has analysed."""
    page = urllib.request.urlopen(f"http://{http}/metrics", timeout=10).read().decode()
    return said(page, "process_cpu_time_seconds_total"), said(page, "undertone_audio_seconds_total")


async def paced(args: argparse.Namespace, phase: float, send) -> None:
    """Chunks at the pace of their sound; every stream has a phase of its own."""
    loop = asyncio.get_running_loop()
    period = args.chunk_ms / 1000
    size = round(RATE_HZ * period) * 2
    began = loop.time() + phase * period
    for number in range(round(args.seconds / period)):
        await asyncio.sleep(max(0.0, began + number * period - loop.time()))
        first = number * size % (len(VOICE) - size)
        await send(VOICE[first : first + size])


async def over_grpc(args: argparse.Namespace, phase: float, undertone: Undertone) -> None:
    async with undertone.open(AudioFormat(Encoding.LINEAR16, RATE_HZ), checkpoint_interval=None) as stream:
        listening = asyncio.create_task(drain(stream))
        await paced(args, phase, stream.send)
        await stream.end()
        await listening


async def drain(stream) -> None:
    async for _ in stream:
        pass


async def over_websocket(args: argparse.Namespace, phase: float, in_json: bool) -> None:
    async with connect(f"ws://{args.http}/v1/stream", subprotocols=["undertone.v1"], max_size=None) as socket:
        audio = {"encoding": "AUDIO_ENCODING_LINEAR16", "sampleRateHz": RATE_HZ}
        await socket.send(json.dumps({"config": {"audio": audio}}))
        listening = asyncio.create_task(drain(socket))

        async def send(chunk: bytes) -> None:
            if in_json:
                await socket.send(json.dumps({"audio": {"data": base64.b64encode(chunk).decode()}}))
            else:
                await socket.send(chunk)

        await paced(args, phase, send)
        await socket.send('{"end": {}}')
        await listening


async def measure(args: argparse.Namespace, way: str) -> None:
    async with Undertone(args.grpc) as undertone:
        streams = []
        for number in range(args.streams):
            phase = number / args.streams
            streams.append(
                over_grpc(args, phase, undertone) if way == "gRPC" else over_websocket(args, phase, way == "JSON")
            )
        cpu, audio = await asyncio.to_thread(counters, args.http)
        await asyncio.gather(*streams)
        now_cpu, now_audio = await asyncio.to_thread(counters, args.http)
    print(f"{way:10} {(now_cpu - cpu) / (now_audio - audio) * 1000:6.2f} ms CPU per second of audio", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--chunk-ms", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--undertone", default=str(ROOT / "target/release/undertone"))
    args = parser.parse_args()
    flags = ["--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0", "--escalation-store", "", "--max-load", "0"]
    server = subprocess.Popen(
        [args.undertone, "serve", "--log-format", "json", *flags], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        for line in server.stderr:
            fields = json.loads(line)["fields"]
            if fields.get("message") == "serving":
                break
        else:
            raise SystemExit("the server does not serve")
        args.grpc, args.http = fields["grpc"], fields["http"]
        # Whatever else it has to say must not fill the pipe.
        asyncio.run(rounds(args, server))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


async def rounds(args: argparse.Namespace, server: subprocess.Popen) -> None:
    reading = asyncio.create_task(asyncio.to_thread(server.stderr.read))
    for _ in range(args.rounds):
        for way in ("gRPC", "WebSocket", "JSON"):
            await measure(args, way)
    server.send_signal(signal.SIGTERM)
    await reading


if __name__ == "__main__":
    main()
