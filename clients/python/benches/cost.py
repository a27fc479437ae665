"""What the client itself takes: CPU and memory of one process with many live streams.

    undertone serve --max-realtime-factor 0 &
    python benches/cost.py
    python benches/cost.py --chunk 0.02
    python benches/cost.py --flat-out

Audio goes out at the pace of its sound. The CPU is this process's own, user and system, from when all streams are
open until the last is about to end; the server's is not in it. `--flat-out` sends as fast as the server takes it, which
shows how many events a second of the client's CPU is good for.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time
from pathlib import Path

from undertone import Stream, SyncUndertone, Undertone
from undertone.sources import from_file

HELLO = Path(__file__).resolve().parents[3] / "tests" / "data" / "hello.wav"


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident_kib() -> int:
    """Memory that is in use now, in KiB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise SystemExit("no /proc/self/status: this measures on Linux")


async def speak(stream: Stream, voice: bytes, args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    size = stream.format.size(args.chunk)
    began = loop.time()
    for number in range(round(args.seconds / args.chunk)):
        first = number * size % (len(voice) - size)
        if not args.flat_out:
            await asyncio.sleep(began + (number + 1) * args.chunk - loop.time())
        await stream.send(voice[first : first + size])


async def listen(stream: Stream) -> int:
    return len([None async for _ in stream])


async def measure(args: argparse.Namespace) -> None:
    voice = HELLO.read_bytes()[44:]
    audio = from_file(HELLO).format
    async with Undertone(args.target) as u:
        async with u.open(audio) as first:
            await first.end()
            await listen(first)
        before_kib = resident_kib()
        streams = [u.open(audio) for _ in range(args.streams)]
        for stream in streams:
            await stream.__aenter__()
        listening = [asyncio.create_task(listen(stream)) for stream in streams]
        began, before = time.monotonic(), cpu()
        await asyncio.gather(*(speak(stream, voice, args) for stream in streams))
        memory_kib = resident_kib() - before_kib
        if args.flat_out:
            # All that was said is to be heard.
            for stream in streams:
                await stream.end()
            events = sum(await asyncio.gather(*listening))
        spent, took = cpu() - before, time.monotonic() - began
        if not args.flat_out:
            for stream in streams:
                await stream.end()
            events = sum(await asyncio.gather(*listening))
    heard = args.streams * args.seconds
    print(f"{args.streams} streams, chunks of {args.chunk * 1000:.0f} ms, {heard:.0f} s of audio in {took:.1f} s")
    print(f"CPU      {spent * 1000 / heard:.3f} ms per second of audio; {spent / took * 100:.1f} % of a core")
    print(f"events   {events / took:.0f} per second; {events / spent:.0f} per second of CPU")
    print(f"memory   {memory_kib / args.streams:.0f} KiB per stream")


def plain(args: argparse.Namespace) -> None:
    """One stream of the client for plain threads, flat out."""
    with SyncUndertone(args.target) as u:
        before, count = cpu(), 0
        for _ in u.stream(from_file(HELLO, chunk=args.chunk)):
            count += 1
        print(f"one plain stream: {(cpu() - before) * 1000 / 7.3:.3f} ms per second of audio, {count} events")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="localhost:50051")
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0, help="audio of each stream")
    parser.add_argument("--chunk", type=float, default=0.1, help="seconds in one chunk")
    parser.add_argument("--flat-out", action="store_true", help="as fast as the server takes it")
    parser.add_argument("--plain", action="store_true", help="the client for plain threads instead")
    args = parser.parse_args()
    print(f"Python {sys.version.split()[0]}")
    if args.plain:
        plain(args)
    else:
        asyncio.run(measure(args))


if __name__ == "__main__":
    main()
