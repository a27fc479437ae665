"""A wire between one client and the server, with which anything can be done: cut, stopped, left hanging.

The client connects to `port`; its bytes go on as they come. TLS passes through it unseen.
"""

import asyncio
import contextlib
import socket
import struct


class Wire:
    def __init__(self, target: int) -> None:
        self.target, self.port = target, 0
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task] = []
        self._writers: list[asyncio.StreamWriter] = []
        # Whether bytes of the server are passed on, and those of the client.
        self._down, self._up = asyncio.Event(), asyncio.Event()
        self._down.set()
        self._up.set()
        self.closed_by_server = asyncio.Event()

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A small buffer, so that a server that is not read from notices.
        onward, back = await asyncio.open_connection("127.0.0.1", self.target, limit=16_384)
        self._writers += [writer, back]
        self._tasks += [
            asyncio.create_task(self._pass(reader, back, self._up, None)),
            asyncio.create_task(self._pass(onward, writer, self._down, self.closed_by_server)),
        ]

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        open_: asyncio.Event,
        ended: asyncio.Event | None,
    ) -> None:
        with contextlib.suppress(ConnectionError, OSError):
            while True:
                await open_.wait()
                data = await reader.read(16_384)
                if not data:
                    break
                await open_.wait()
                writer.write(data)
                await writer.drain()
        if ended:
            ended.set()
        with contextlib.suppress(ConnectionError, OSError, RuntimeError):
            writer.close()

    def stop_reading(self) -> None:
        """Nothing more is read from the server; what the client sends still goes on."""
        self._down.clear()

    def hang(self) -> None:
        """Nothing passes any more and nobody closes: the other end of a network that is gone."""
        self._down.clear()
        self._up.clear()

    def reset(self) -> None:
        """Ends it as a process does that is killed with bytes unread: RST, not FIN."""
        for writer in self._writers:
            with contextlib.suppress(OSError, AttributeError):
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
