"""A stream that outlives its connections: what breaks off goes on from the last checkpoint.

In: requests. Out: events, as of one stream. Requests are kept until a checkpoint covers them. When the server drains,
or the connection breaks, another one is opened with the checkpoint's token, and the requests behind it are sent again;
what is told a second time is left out. Where there is no checkpoint yet, all is sent again under the name that the
server gave the session, so that it knows what it has raised before.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from grpc import aio

from ._calls import ENDED, send
from ._channels import BROKEN, Channels
from ._events import Events
from ._generated.undertone.v1 import emotion_service_pb2 as pb
from ._requests import Requests
from ._told import Told
from ._wire import event, seconds
from .errors import ConnectionFailed, Overloaded, ServerError, StreamClosed, Unavailable, UndertoneError, from_rpc
from .events import Reconnected, Started
from .reconnect import Reconnect, Retries

_METHOD = "/undertone.v1.EmotionService/StreamEmotion"


@dataclass
class Break:
    """A time without a server."""

    reason: str
    since: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    attempts: int = 0


class Carrier:
    """One stream over as many connections as it takes. `run` once."""

    def __init__(
        self,
        channels: Channels,
        config: pb.StreamConfig,
        bytes_per_second: int,
        reconnect: Reconnect | None,
        timeout: float,
        requests: Requests,
        events: Events,
    ) -> None:
        self._channels = channels
        self._config = config
        self._bytes_per_second = bytes_per_second
        self._reconnect = reconnect
        self._timeout = timeout
        self._retries = Retries(reconnect or Reconnect())
        self._requests = requests
        self._events = events
        self._told = Told()
        self._token = b""
        self._break: Break | None = None
        self._begun_at: float | None = None
        self.connected = False
        """Whether the server takes the stream now."""
        self.started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()

    @property
    def _goes_on(self) -> bool:
        """Whether a break can be mended."""
        return self._reconnect is not None and self._config.HasField("checkpoint_interval")

    async def run(self) -> None:
        """Runs to the end of the stream, or of all patience. Never raises: `events` and `started` tell."""
        try:
            await self._run()
        except Exception as failure:  # Also what a function that gives tokens raises.
            self._requests.fail(failure)
            self._events.end(failure)
            if not self.started.done():
                self.started.set_exception(failure)
        finally:
            self._requests.end()
            self._events.end()
            if not self.started.done():
                self.started.set_exception(StreamClosed("the client was closed while the stream was being opened"))

    async def _run(self) -> None:
        while True:
            self._begun_at = None
            try:
                await self._converse()
                return
            except UndertoneError as error:
                failure = error
            self._retries.ended(self._begun_at)
            if failure.reason == "NO_CHECKPOINTS" and not self.started.done():
                # A server that gives none is streamed to without.
                self._config.ClearField("checkpoint_interval")
                continue
            pause = self._retries.pause(failure.retry_after) if self._may_pass(failure) else None
            if pause is None:
                raise failure
            if self.started.done():
                self._break = self._break or Break(failure.reason or failure.message)
                self._break.attempts += 1
            self._told.broke_off()
            await asyncio.sleep(pause)

    def _may_pass(self, failure: UndertoneError) -> bool:
        """Whether another connection may go better."""
        if not self._goes_on or self._requests.has_gap:
            return False
        if not self.started.done():
            # A balancer may have better ones.
            return failure.reason == "DRAINING"
        return (
            isinstance(failure, Unavailable)
            or failure.code in BROKEN
            or (isinstance(failure, Overloaded) and failure.retry_after is not None)
            # The server has not noticed yet that the stream before is gone.
            or failure.reason == "SESSION_ID_TAKEN"
            or (failure.reason == "TOKEN_EXPIRED" and self._channels.credentials.renews)
        )

    async def _converse(self) -> None:
        """One connection, from its opening to the stream's end.

        Raises:
            UndertoneError: It ended before that.
        """
        async with self._channels.lease() as lease:
            open_call: aio.StreamStreamMultiCallable[bytes, pb.StreamEmotionResponse] = lease.channel.stream_stream(
                _METHOD, response_deserializer=pb.StreamEmotionResponse.FromString
            )
            call = open_call(metadata=self._channels.credentials.metadata())
            writer: asyncio.Task[None] | None = None
            try:
                config = pb.StreamConfig(resume_token=self._token)
                config.MergeFrom(self._config)
                await call.wait_for_connection()
                with suppress(*ENDED):
                    await send(call, pb.StreamEmotionRequest(config=config).SerializeToString())
                response = await self._first(call)
                if isinstance(response, pb.StreamEmotionResponse):
                    await self._begin(response.started)
                    writer = asyncio.create_task(self._write(call, response.started.limits))
                while isinstance(response := await call.read(), pb.StreamEmotionResponse):
                    kind = response.WhichOneof("message")
                    if kind is not None and await self._hear(kind, response):
                        return
                raise ConnectionFailed("the stream ended without a summary", code="UNAVAILABLE")
            except aio.AioRpcError as error:
                failure = from_rpc(error, str(self._channels.target))
                lease.failed(failure)
                raise failure from None
            except Unavailable as failure:
                lease.failed(failure)
                raise
            finally:
                self.connected = False
                call.cancel()
                if writer is not None:
                    writer.cancel()
                    await asyncio.wait([writer])

    async def _first(self, call: Any) -> object:
        """What the server says first, which is `started`; or the end."""
        try:
            response = await asyncio.wait_for(call.read(), self._timeout)
        except asyncio.TimeoutError:
            raise ConnectionFailed(
                f"{self._channels.target} did not take the stream within {self._timeout:g} s", code="UNAVAILABLE"
            ) from None
        if isinstance(response, pb.StreamEmotionResponse) and not response.HasField("started"):
            raise ServerError(f"the server began with {response.WhichOneof('message')}, not with started")
        return response

    async def _begin(self, started: pb.Started) -> None:
        """The server takes the stream, or goes on with it."""
        self._begun_at = asyncio.get_running_loop().time()
        self.connected = True
        point = started.resumed_from
        self._requests.cover(point.requests)
        self._requests.rewind()
        self._told.resumed(self._requests.marks_before)
        # If it breaks off before the first checkpoint, it is told again under its name.
        self._config.session_id = started.session_id
        if not started.config.HasField("checkpoint_interval"):
            self._config.ClearField("checkpoint_interval")
        if not self.started.done():
            opened = event("started", pb.StreamEmotionResponse(started=started))
            assert isinstance(opened, Started)
            self.started.set_result(opened)
            await self._events.put(opened)
        elif self._break is not None:
            over, self._break = self._break, None
            downtime = self._begun_at - over.since
            await self._events.put(Reconnected(seconds(point.position), over.reason, over.attempts, downtime))

    async def _hear(self, kind: str, response: pb.StreamEmotionResponse) -> bool:
        """Takes what the server says; true at the end of the stream.

        Raises:
            Unavailable: The server drains, and the stream goes on elsewhere.
        """
        if kind == "checkpoint":
            self._cover(response.checkpoint)
            return False
        if kind == "draining" and self._goes_on:
            if response.draining.HasField("checkpoint"):
                self._cover(response.draining.checkpoint)
            return False
        if kind == "finished" and self._goes_on and response.finished.reason == pb.FINISH_REASON_DRAINING:
            raise Unavailable("the server is about to end", code="UNAVAILABLE", reason="DRAINING")
        if self._told.is_news(kind, response):
            await self._events.put(event(kind, response))
        return kind == "finished"

    def _cover(self, checkpoint: pb.Checkpoint) -> None:
        self._token = checkpoint.resume_token
        self._requests.cover(checkpoint.point.requests)

    async def _write(self, call: Any, limits: pb.StreamLimits) -> None:
        """Sends requests, no faster than the server takes audio. What breaks is told by the answers."""
        loop = asyncio.get_running_loop()
        began, audio_bytes = loop.time(), 0
        per_second = self._bytes_per_second * limits.max_realtime_factor
        free = seconds(limits.burst) * self._bytes_per_second
        with suppress(*ENDED):
            while (request := await self._requests.take(keep=self._goes_on)) is not None:
                audio_bytes += request.audio_bytes
                if per_second and audio_bytes > free:
                    await asyncio.sleep(began + (audio_bytes - free) / per_second - loop.time())
                await send(call, request.data)
            await call.done_writing()
