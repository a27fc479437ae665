"""Connections to one target, shared by calls and replaced when they break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpc import aio

from ._target import Credentials, Target
from .errors import ConnectionFailed, UndertoneError

# A server of Undertone takes 256 calls on one connection by default, and lets further ones wait.
_CALLS_PER_CHANNEL = 100

# A machine that dies says nothing, and TCP notices after a quarter of an hour: a ping asks after 5 s of silence, and
# waits 5 s for the answer.
_KEEP_ALIVE_MS = 5_000
_CONNECT_MS = 5_000
# A clip's time line and a resume token fit.
_RECEIVE_BYTES = 64 << 20


# Codes that the server itself does not give for what is asked.
BROKEN = ("UNKNOWN", "CANCELLED", "INTERNAL")


class Lease:
    """The right to make one call on a channel."""

    def __init__(self, channel: aio.Channel) -> None:
        self.channel = channel
        self.calls = 0
        self.retired = False

    def failed(self, failure: UndertoneError) -> None:
        """A call on it failed. If that may be the connection's fault, nobody else gets it."""
        if isinstance(failure, ConnectionFailed) or failure.reason == "DRAINING" or failure.code in BROKEN:
            self.retired = True


class Channels:
    """Opens channels as they are needed; all of one event loop."""

    def __init__(self, target: Target, credentials: Credentials) -> None:
        self.target = target
        self.credentials = credentials
        self._open: list[Lease] = []
        self._closed = False

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Lease]:
        """A channel for one call. Tell it if the call failed."""
        if self._closed:
            raise RuntimeError("the client is closed")
        lease = next((one for one in self._open if not one.retired and one.calls < _CALLS_PER_CHANNEL), None)
        if lease is None:
            lease = Lease(self._new())
            self._open.append(lease)
        lease.calls += 1
        try:
            yield lease
        finally:
            lease.calls -= 1
            if lease.retired and not lease.calls and lease in self._open:
                self._open.remove(lease)
                await asyncio.shield(lease.channel.close())

    async def close(self) -> None:
        """Closes all; calls under way are cancelled."""
        self._closed = True
        leases, self._open = self._open, []
        for lease in leases:
            await lease.channel.close()

    def _new(self) -> aio.Channel:
        options: list[tuple[str, int | str]] = [
            ("grpc.keepalive_time_ms", _KEEP_ALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEP_ALIVE_MS),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.min_reconnect_backoff_ms", _CONNECT_MS),
            ("grpc.max_receive_message_length", _RECEIVE_BYTES),
            # A channel of its own is a connection of its own.
            ("grpc.use_local_subchannel_pool", 1),
            # What is repeated is decided here.
            ("grpc.enable_retries", 0),
        ]
        if self.target.is_local:
            # A proxy would read what is for this machine only.
            options.append(("grpc.enable_http_proxy", 0))
        if self.credentials.server_name:
            options.append(("grpc.ssl_target_name_override", self.credentials.server_name))
        if self.credentials.channel is None:
            return aio.insecure_channel(self.target.address, options)
        return aio.secure_channel(self.target.address, self.credentials.channel, options)
