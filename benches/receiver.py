"""Receives webhooks and measures from the decision (`data.at`) to their arrival, both on this machine's clock.

    receiver.py REPORT PORT_FILE

Writes its port at the start and its report on SIGTERM. Standard library only.
"""

import asyncio
import datetime
import json
import pathlib
import signal
import sys
import time

report, port_file = map(pathlib.Path, sys.argv[1:])
lags: list[float] = []
kinds: dict[str, int] = {}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            arrived = time.time()
            length = int(head.split("content-length:")[1].split("\r\n")[0])
            occurrence = json.loads(await reader.readexactly(length))["data"]
            decided = datetime.datetime.fromisoformat(occurrence["at"].replace("Z", "+00:00"))
            lags.append(1000 * (arrived - decided.timestamp()))
            kinds[occurrence["kind"]] = kinds.get(occurrence["kind"], 0) + 1
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
        writer.close()


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port_file.write_text(str(server.sockets[0].getsockname()[1]))
    await stop.wait()
    lags.sort()
    if not lags:
        report.write_text("no webhook arrived\n")
        return
    at = lambda share: lags[min(len(lags) - 1, int(share * len(lags)))]
    report.write_text(
        f"webhooks {len(lags)} ({', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))}); decision to "
        f"arrival: p50 {at(0.5):.1f} ms, p90 {at(0.9):.1f}, p99 {at(0.99):.1f}, max {lags[-1]:.1f}\n"
    )


asyncio.run(main())
