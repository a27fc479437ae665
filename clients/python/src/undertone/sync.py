"""The client for plain threads: the same calls as `Undertone`'s, without `async` and `await`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from types import TracebackType
from typing import TypeVar

from typing_extensions import Self, Unpack

from ._config import StreamOptions, VoiceActivity
from ._filter import EscalationFilter
from ._loop import Loop, shared
from ._target import Pem, Token
from .audio import AudioFormat, ChannelMode
from .client import Undertone
from .escalations import Acknowledgement, Escalation, EscalationDetail, EscalationEvent
from .events import Analysis, Estimate, Event, Started, Utterance
from .models import Model, Policy
from .reconnect import Reconnect
from .sessions import Session, SessionDetail
from .sources import Source
from .stream import Buffer, Stream
from .watch import EscalationWatch

T = TypeVar("T")


async def _next(iterator: AsyncIterator[T]) -> T:
    return await anext(iterator)


async def _close(iterator: AsyncIterator[object]) -> None:
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()


def _iterate(loop: Loop, iterator: AsyncIterator[T]) -> Iterator[T]:
    """What an async iterator yields, from another thread."""
    try:
        while True:
            try:
                item = loop.run(_next, iterator)
            except StopAsyncIteration:
                return
            yield item
    finally:
        if not loop.is_closed:
            loop.run(_close, iterator)


class SyncStream:
    """A live stream, made by `SyncUndertone.open` and opened by `with`. Any thread may call its methods.

    >>> from undertone import SyncUndertone
    >>> with SyncUndertone() as u, u.open() as stream:
    ...     stream.send(bytes(32_000))
    ...     stream.end()
    ...     [type(event).__name__ for event in stream]
    ['Started', 'Finished']
    """

    def __init__(self, loop: Loop, stream: Stream) -> None:
        self._loop = loop
        self._stream = stream

    def __enter__(self) -> Self:
        """Opens it and waits until the server has taken it."""
        self._loop.run(self._stream.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def format(self) -> AudioFormat:
        """What is sent."""
        return self._stream.format

    @property
    def started(self) -> Started:
        """What the server said when it took the stream."""
        return self._stream.started

    @property
    def session_id(self) -> str:
        """The session's name."""
        return self._stream.session_id

    @property
    def connected(self) -> bool:
        """See `Stream.connected`."""
        return self._stream.connected

    def send(self, audio: Buffer) -> None:
        """See `Stream.send`."""
        self._loop.run(self._stream.send, audio)

    def send_nowait(self, audio: Buffer) -> bool:
        """See `Stream.send_nowait`. Asks another thread, which takes a fraction of a millisecond."""

        async def send() -> bool:
            return self._stream.send_nowait(audio)

        return self._loop.run(send)

    def mark(self, name: str) -> None:
        """See `Stream.mark`."""
        self._loop.run(self._stream.mark, name)

    def turn_start(self) -> None:
        """See `Stream.turn_start`."""
        self._loop.run(self._stream.turn_start)

    def turn_end(self) -> None:
        """See `Stream.turn_end`."""
        self._loop.run(self._stream.turn_end)

    def acknowledge(self, escalation_id: str, actor: str, note: str = "") -> None:
        """See `Stream.acknowledge`."""
        self._loop.run(self._stream.acknowledge, escalation_id, actor, note)

    def end(self) -> None:
        """See `Stream.end`."""
        self._loop.run(self._stream.end)

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        try:
            return self._loop.run(_next, self._stream)
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """Breaks the stream off, if it has not ended. The end of `with` does it."""
        if not self._loop.is_closed:
            self._loop.run(self._stream.close)


class SyncEscalationWatch:
    """Events in order, without end; made by `SyncUndertone.watch_escalations`. See `EscalationWatch`."""

    def __init__(self, loop: Loop, watch: EscalationWatch) -> None:
        self._loop = loop
        self._watch = watch

    @property
    def cursor(self) -> str:
        """Behind the last event that was yielded, or a later one."""
        return self._watch.cursor

    def __iter__(self) -> Iterator[EscalationEvent]:
        return _iterate(self._loop, aiter(self._watch))


class SyncUndertone:
    """A client for plain threads; any of them may call it. Use it with `with`.

    The calls run in an event loop in a thread of the package's own, which all such clients of a process share.

    >>> from undertone import SyncUndertone
    >>> with SyncUndertone("localhost:50051") as u:
    ...     [policy.name for policy in u.policies()]
    ['care-call', 'classroom-tutor', 'contact-centre']
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        token: Token | None = None,
        ca: Pem | None = None,
        client_certificate: Pem | None = None,
        client_key: Pem | None = None,
        server_name: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Connects to nothing yet. The arguments are those of `Undertone`."""
        self._client = Undertone(
            target,
            token=token,
            ca=ca,
            client_certificate=client_certificate,
            client_key=client_key,
            server_name=server_name,
            timeout=timeout,
        )
        self._loop = shared()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Breaks off what is under way and closes the connections."""
        if not self._loop.is_closed:
            self._loop.run(self._client.close)

    def open(
        self,
        audio: AudioFormat | None = None,
        *,
        reconnect: Reconnect | None = Reconnect(),  # noqa: B008 (frozen)
        buffer: float = 30.0,
        **options: Unpack[StreamOptions],
    ) -> SyncStream:
        """See `Undertone.open`."""
        stream = self._client.open(audio, reconnect=reconnect, buffer=buffer, **options)
        return SyncStream(self._loop, stream)

    def stream(
        self,
        source: Source,
        *,
        reconnect: Reconnect | None = Reconnect(),  # noqa: B008 (frozen)
        buffer: float = 30.0,
        **options: Unpack[StreamOptions],
    ) -> Iterator[Event]:
        """See `Undertone.stream`. The source is read in another thread."""
        return _iterate(self._loop, self._client.stream(source, reconnect=reconnect, buffer=buffer, **options))

    def analyze(
        self,
        clip: str | os.PathLike[str] | bytes,
        *,
        model: str | None = None,
        estimate_interval: float | None = None,
        channel_mode: ChannelMode = ChannelMode.MIX,
        voice_activity: VoiceActivity | None = None,
        timeout: float = 300.0,
    ) -> Analysis:
        """See `Undertone.analyze`."""
        return self._loop.run(
            self._client.analyze,
            clip,
            model=model,
            estimate_interval=estimate_interval,
            channel_mode=channel_mode,
            voice_activity=voice_activity,
            timeout=timeout,
        )

    def models(self) -> list[Model]:
        """See `Undertone.models`."""
        return self._loop.run(self._client.models)

    def model(self, name: str | None = None) -> Model:
        """See `Undertone.model`."""
        return self._loop.run(self._client.model, name)

    def policies(self) -> list[Policy]:
        """See `Undertone.policies`."""
        return self._loop.run(self._client.policies)

    def escalations(self, **wanted: Unpack[EscalationFilter]) -> Iterator[Escalation]:
        """See `Undertone.escalations`."""
        return _iterate(self._loop, self._client.escalations(**wanted))

    def escalation(self, escalation_id: str) -> EscalationDetail:
        """See `Undertone.escalation`."""
        return self._loop.run(self._client.escalation, escalation_id)

    def acknowledge(self, escalation_id: str, actor: str, note: str = "") -> Acknowledgement:
        """See `Undertone.acknowledge`."""
        return self._loop.run(self._client.acknowledge, escalation_id, actor, note)

    def watch_escalations(
        self,
        *,
        cursor: str | None = None,
        from_start: bool = False,
        reconnect: Reconnect | None = Reconnect(),  # noqa: B008 (frozen)
        **wanted: Unpack[EscalationFilter],
    ) -> SyncEscalationWatch:
        """See `Undertone.watch_escalations`."""
        watch = self._client.watch_escalations(cursor=cursor, from_start=from_start, reconnect=reconnect, **wanted)
        return SyncEscalationWatch(self._loop, watch)

    def sessions(
        self, *, tenant: str | None = None, labels: Mapping[str, str] | None = None, ended: bool = False
    ) -> Iterator[Session]:
        """See `Undertone.sessions`."""
        return _iterate(self._loop, self._client.sessions(tenant=tenant, labels=labels, ended=ended))

    def session(self, session_id: str, *, history: float | None = None, tenant: str | None = None) -> SessionDetail:
        """See `Undertone.session`."""
        return self._loop.run(self._client.session, session_id, history=history, tenant=tenant)

    def watch_session(
        self, session_id: str, *, history: float | None = None, tenant: str | None = None
    ) -> Iterator[Session | Estimate | Utterance]:
        """See `Undertone.watch_session`."""
        return _iterate(self._loop, self._client.watch_session(session_id, history=history, tenant=tenant))
