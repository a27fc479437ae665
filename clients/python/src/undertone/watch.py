"""Everything that happens to escalations, across reconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from . import _wire
from ._calls import follow
from ._channels import Channels
from ._generated.undertone.v1 import escalation_service_pb2 as pb
from .errors import Overloaded, Unavailable, UndertoneError
from .escalations import EscalationEvent
from .reconnect import Reconnect, Retries


class EscalationWatch:
    """Events in order, without end; made by `Undertone.watch_escalations`. Iterate once.

    A connection that breaks is replaced, and the watch goes on behind the last cursor: nothing is missed and nothing
    comes twice.
    """

    def __init__(self, channels: Channels, request: pb.WatchEscalationsRequest, reconnect: Reconnect | None) -> None:
        self._channels = channels
        self._request = request
        self._reconnect = reconnect

    @property
    def cursor(self) -> str:
        """Behind the last event that was yielded, or later. Another watch that is given it goes on there."""
        return self._request.cursor

    async def __aiter__(self) -> AsyncIterator[EscalationEvent]:
        retries = Retries(self._reconnect or Reconnect())
        has_begun = False
        while True:
            begun_at: float | None = None
            try:
                answers = follow(
                    self._channels, "EscalationService/WatchEscalations", self._request, pb.WatchEscalationsResponse
                )
                async with aclosing(answers):
                    async for answer in answers:
                        has_begun = True
                        begun_at = begun_at or asyncio.get_running_loop().time()
                        self._request.cursor = answer.cursor
                        self._request.from_start = False
                        if answer.HasField("event"):
                            yield _wire.escalation_event(answer.event)
                failure: UndertoneError = Unavailable("the server ended the watch", code="UNAVAILABLE")
            except UndertoneError as error:
                failure = error
            retries.ended(begun_at)
            pause = retries.pause(failure.retry_after) if has_begun and self._may_pass(failure) else None
            if pause is None:
                raise failure
            await asyncio.sleep(pause)

    def _may_pass(self, failure: UndertoneError) -> bool:
        if self._reconnect is None:
            return False
        if failure.reason == "TOKEN_EXPIRED":
            return self._channels.credentials.renews
        return isinstance(failure, Unavailable | Overloaded) or failure.code in ("UNKNOWN", "INTERNAL")
