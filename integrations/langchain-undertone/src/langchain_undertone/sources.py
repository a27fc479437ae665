"""Where readings come from: any live session by its name, or a stream that this process holds itself."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import AsyncIterable, Callable, Mapping
from typing import Any, Final, Protocol

import undertone
from langchain_core.runnables import RunnableConfig

from langchain_undertone import reading
from langchain_undertone.reading import EmotionReading

#: The key of `config["configurable"]` that names the session, where the source does not.
SESSION_KEY: Final = "undertone_session_id"

# As much as the server keeps of a session by default, at one estimate a second.
_KEPT: Final = 300

SessionId = str | Callable[[RunnableConfig], str]


class EmotionSource(Protocol):
    """What tools, nodes and middleware read from. Neither method raises for a server that is away: the reading says why
    nothing is known."""

    def read(self, config: RunnableConfig, *, history: float = 0.0) -> EmotionReading:
        """How the person sounds now, with so many seconds of the past."""
        ...

    async def aread(self, config: RunnableConfig, *, history: float = 0.0) -> EmotionReading:
        """The same, awaited."""
        ...


class SessionEmotions:
    """Reads live sessions by their names from the server (`SessionService`): those that a telephone gateway, a voice
    agent or another process has opened.

    A session lives in one replica of the server; of one that has ended nothing is read. Each read opens a connection
    and closes it: nothing here has an end that somebody would have to call, and any thread and event loop may read.

    Args:
        target: The server, `HOST:PORT`, or `https://HOST:PORT`.
        session_id: The session, or a function from the run's config to it; None: the run says so in
            `config["configurable"]["undertone_session_id"]`. The model never chooses.
        client: Arguments of `undertone.Undertone` besides the target: `token`, `ca`, ...
        channel: Which channel, where several are analysed; None: the one heard last.
        timeout: How long an answer may take, in s; an agent waits no longer than that.
    """

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        session_id: SessionId | None = None,
        client: Mapping[str, Any] | None = None,
        channel: int | None = None,
        timeout: float = 3.0,
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout: {timeout} s; more than 0 is wanted")
        self.target = target
        self.client: dict[str, Any] = {"timeout": timeout, **(client or {})}
        self._session_id = session_id
        self._channel = channel

    def session_id(self, config: RunnableConfig) -> str:
        """The session of a run.

        Raises:
            ValueError: Nothing names it.
        """
        if callable(self._session_id):
            return self._session_id(config)
        named = self._session_id or config.get("configurable", {}).get(SESSION_KEY)
        if not named:
            raise ValueError(
                "session_id: nothing names the session; give session_id=, or run with "
                f'config={{"configurable": {{"{SESSION_KEY}": ...}}}}'
            )
        return str(named)

    def read(self, config: RunnableConfig, *, history: float = 0.0) -> EmotionReading:
        """See `EmotionSource`."""
        session_id = self.session_id(config)
        try:
            with undertone.SyncUndertone(self.target, **self.client) as client:
                return self._reading(client.session(session_id, history=history or None))
        except undertone.UndertoneError as error:
            return reading.unknown(session_id, _why(error))

    async def aread(self, config: RunnableConfig, *, history: float = 0.0) -> EmotionReading:
        """See `EmotionSource`."""
        session_id = self.session_id(config)
        try:
            async with undertone.Undertone(self.target, **self.client) as client:
                return self._reading(await client.session(session_id, history=history or None))
        except undertone.UndertoneError as error:
            return reading.unknown(session_id, _why(error))

    def _reading(self, detail: undertone.SessionDetail) -> EmotionReading:
        session = detail.session
        if session.ended_at is not None:
            # How somebody sounded who has hung up says nothing about now.
            return reading.unknown(session.id, "the session has ended")
        latest = [e for e in session.latest if self._channel is None or e.channel == self._channel]
        if not latest:
            return reading.unknown(session.id, "nothing was heard yet")
        newest = max(latest, key=lambda estimate: estimate.evidence_end)
        history = [estimate for estimate in detail.estimates if estimate.channel == newest.channel]
        return reading.of(newest, session.id, session.audio - newest.evidence_end, history)


class LiveEmotions:
    """Holds what one stream of this process says: give it the stream's events, read it from anywhere.

    It has no task and no connection of its own, and may be read from another thread than that of the stream.

    Args:
        channel: Which channel, where several are analysed; None: whichever was heard last.
    """

    def __init__(self, *, channel: int | None = None) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._session_id = ""
        self._latest: undertone.Estimate | None = None
        self._arrived_at = 0.0
        self._past: collections.deque[undertone.Estimate] = collections.deque(maxlen=_KEPT)

    def hear(self, event: undertone.Event) -> None:
        """Takes an event of the stream. A new session begins anew."""
        with self._lock:
            if isinstance(event, undertone.Started):
                self._session_id, self._latest = event.session_id, None
                self._past.clear()
            elif isinstance(event, undertone.Estimate) and self._channel in (None, event.channel):
                self._latest, self._arrived_at = event, time.monotonic()
                if not self._past or event.end - self._past[-1].end >= 1.0:
                    self._past.append(event)

    async def follow(self, stream: AsyncIterable[undertone.Event]) -> None:
        """Hears a stream to its end, such as `client.stream(source)` or what `client.open(...)` gives."""
        async for event in stream:
            self.hear(event)

    def read(self, config: RunnableConfig | None = None, *, history: float = 0.0) -> EmotionReading:
        """See `EmotionSource`; the config says nothing here."""
        with self._lock:
            latest = self._latest
            if latest is None:
                return reading.unknown(self._session_id, "nothing was heard yet")
            past = [e for e in self._past if history and e.end >= latest.end - history]
            heard_ago = latest.end - latest.evidence_end + time.monotonic() - self._arrived_at
            return reading.of(latest, self._session_id, heard_ago, past)

    async def aread(self, config: RunnableConfig | None = None, *, history: float = 0.0) -> EmotionReading:
        """See `EmotionSource`."""
        return self.read(config, history=history)


def _why(error: undertone.UndertoneError) -> str:
    if isinstance(error, undertone.NotFound):
        return "there is no such live session: it has not begun, has ended, or lives in another replica"
    return f"the server does not answer: {error.message}"
