"""Audio in without ever waiting, events by callback: one stream after another, opened again when it is lost.

A `Stream` goes on by its checkpoints when it breaks off. This is about what is left to a real-time framework: a server
that is slow, or away for longer than that. Audio then waits in a queue that has a bound, the oldest goes first, and
whoever listens is told once per outage.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice
from types import TracebackType
from typing import Final, Literal

from typing_extensions import Self, Unpack

from ._config import StreamOptions
from .audio import AudioFormat
from .client import Undertone
from .errors import (
    AudioDropped,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    UndertoneError,
)
from .events import Estimate, Event
from .reconnect import Reconnect, Retries
from .stream import Buffer, Stream

# How many sent chunks are remembered until an estimate covers them: at 10 ms a chunk more than the 10 s that are the
# longest time between two estimates.
_REMEMBERED_CHUNKS: Final = 4096
# Seconds that may wait in the stream. The rest waits here, where the oldest can be dropped.
_STREAM_BUFFER: Final = 1.0
# Boundaries of turns in a row that say something: the end of one, and the start of the next.
_BOUNDARIES: Final = 2
# How a lost stream is followed by another one: for ever.
_AGAIN: Final = Reconnect(patience=math.inf, first_wait=0.5, longest_wait=15.0)
# A stream that is refused so at its beginning will be refused again.
_FINAL: Final = (InvalidRequest, Unauthenticated, PermissionDenied, NotFound)


@dataclasses.dataclass(slots=True)
class FeedCounts:
    """What went through a feed since its beginning."""

    audio: float = 0.0
    """Seconds of audio handed to streams."""
    dropped: float = 0.0
    """Seconds of audio dropped."""
    estimates: int = 0
    """Estimates that came."""
    abstained: int = 0
    """How many of them abstain."""
    delays: int = 0
    """Estimates of which it is known how long they took: from the push of the last chunk that one covers until it
    came."""
    delay_sum: float = 0.0
    """The seconds that they took, added up."""
    delay_max: float = 0.0
    """The most that one took."""

    def since(self, before: FeedCounts) -> FeedCounts:
        """The difference to earlier ones; `delay_max` stays that of the whole time."""
        ours, theirs = dataclasses.astuple(self), dataclasses.astuple(before)
        difference = FeedCounts(*(a - b for a, b in zip(ours, theirs, strict=True)))
        difference.delay_max = self.delay_max
        return difference


@dataclasses.dataclass(frozen=True, slots=True)
class _Chunk:
    data: bytes
    pushed_at: float


_Item = _Chunk | Literal["turn_start", "turn_end", "end"]


class _CallbackFailed(Exception):
    """Keeps what a callback raised from being taken for a failure of the stream."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Feed:
    """Feeds audio to the server and calls back with what comes: for frameworks whose audio must not wait.

    `push`, `turn_start` and `turn_end` neither wait nor raise for a server that is slow or away. No more than `buffer`
    seconds of audio wait; beyond that the oldest is dropped. A stream that is lost for good is followed by another one,
    with a new session whose times begin at 0. All belongs to one event loop, the client's.

    >>> import asyncio
    >>> from undertone import Feed, Undertone
    >>> async def heard(event):
    ...     print(type(event).__name__)
    >>> async def trouble(error, final):
    ...     print(error)
    >>> async def main():
    ...     async with Undertone() as u, Feed(u, on_event=heard, on_trouble=trouble) as feed:
    ...         feed.push(bytes(32_000))
    ...         await feed.finish(patience=5.0)
    >>> asyncio.run(main())
    Started
    Finished
    """

    def __init__(
        self,
        client: Undertone,
        *,
        on_event: Callable[[Event], Awaitable[None]],
        on_trouble: Callable[[Exception, bool], Awaitable[None]],
        on_recovered: Callable[[], Awaitable[None]] | None = None,
        buffer: float = 5.0,
        reconnect: Reconnect | None = Reconnect(),  # noqa: B008 (frozen)
        **options: Unpack[StreamOptions],
    ) -> None:
        """Connects to nothing yet: the first audio says its format.

        Args:
            client: Whose server it is. The feed does not close it.
            on_event: Called with each event, in order. What it raises ends the feed.
            on_trouble: Called once from the first sign of an outage until the server has answered again, with the
                error, and whether it is final: then nothing is sent any more. `AudioDropped` says that the server is
                there and slow, or that audio does not fit; what is no `UndertoneError` is a defect, such as of
                `on_event`.
            on_recovered: Called when the server has answered after trouble.
            buffer: Seconds of audio that may wait for the server.
            reconnect: How one stream goes on when it breaks off; `None`: another one follows.
            options: Of each stream, see `StreamOptions`.

        Raises:
            InvalidRequest: `buffer` has room for nothing, or two options exclude each other.
        """
        if not buffer > 0:
            raise InvalidRequest(
                "a feed needs room for some audio", fields=(("buffer", "must be above 0, such as 5.0"),)
            )
        # What cannot be used is refused here rather than with the first audio.
        client.open(reconnect=reconnect, **options)
        self._client = client
        self._on_event = on_event
        self._on_trouble = on_trouble
        self._on_recovered = on_recovered
        self._buffer = buffer
        self._reconnect = reconnect
        self._options = options

        self._format: AudioFormat | None = None
        self._queue: deque[_Item] = deque()
        self._queued_bytes = 0
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tellers: list[asyncio.Task[None]] = []
        self._stream: Stream | None = None
        # Of this stream: seconds up to the end of each chunk, and when that was pushed.
        self._sent: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED_CHUNKS)
        self._sent_seconds = 0.0
        self._counts = FeedCounts()

        self._in_trouble = False
        self._overflowed = False
        self._misfit = False
        # Between two streams.
        self._lost = False
        # Nothing more is taken: what is there is said to its end, or nothing is.
        self._ending = False
        self._closed = False

        self.session_id = ""
        """The newest session; empty before the server has begun one."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether a server listens now; see `Stream.connected`."""
        return self._stream is not None and self._stream.connected

    @property
    def counts(self) -> FeedCounts:
        """What went through, as it stands now."""
        return dataclasses.replace(self._counts)

    def push(self, data: Buffer, audio: AudioFormat = AudioFormat()) -> None:  # noqa: B008 (frozen)
        """Takes a chunk of raw audio. What is of another format than the first chunk is dropped."""
        taken = bytes(memoryview(data))
        if not taken:
            return
        if self._ending:
            self._counts.dropped += audio.seconds(len(taken))
            return
        if self._format is None:
            self._format = audio
            self._task = asyncio.get_running_loop().create_task(self._run(audio), name="undertone-feed")
        if audio != self._format:
            self._counts.dropped += audio.seconds(len(taken))
            if not self._misfit:
                self._misfit = True
                self._tell_soon(AudioDropped(f"it began with {_said(self._format)}, {_said(audio)} is dropped"))
            return
        self._queue.append(_Chunk(taken, time.monotonic()))
        self._queued_bytes += len(taken)
        while audio.seconds(self._queued_bytes) > self._buffer:
            # Boundaries of turns whose audio goes say nothing any more.
            oldest = self._queue.popleft()
            if isinstance(oldest, _Chunk):
                self._queued_bytes -= len(oldest.data)
                self._counts.dropped += audio.seconds(len(oldest.data))
                self._overflowed = True
        if self._overflowed and not self._in_trouble:
            self._in_trouble = True
            slow = "the server takes audio more slowly than it comes"
            self._tell_soon(AudioDropped(f"{slow}: what does not fit into {self._buffer:g} s is dropped, oldest first"))
        self._arrived.set()

    def turn_start(self) -> None:
        """The subject's turn starts behind the audio pushed so far; see `Stream.turn_start`."""
        self._turn("turn_start")

    def turn_end(self) -> None:
        """The subject's turn ends behind the audio pushed so far; see `Stream.turn_end`."""
        self._turn("turn_end")

    def _turn(self, boundary: Literal["turn_start", "turn_end"]) -> None:
        if self._format is None or self._ending:
            return
        # More of them without audio between would say nothing, and have no bound.
        last = list(islice(reversed(self._queue), _BOUNDARIES))
        if len(last) == _BOUNDARIES and not any(isinstance(item, _Chunk) for item in last):
            return
        self._queue.append(boundary)
        self._arrived.set()

    @property
    def _waits(self) -> float:
        """Seconds of audio in the queue."""
        return self._format.seconds(self._queued_bytes) if self._format else 0.0

    async def finish(self, patience: float = 2.0) -> None:
        """Takes no more and hears out what was said, for `patience` seconds at most; not at all between two streams.

        When it returns, all is closed. `connected` is false then, and nothing is called back any more.
        """
        if self._task is not None and not self._lost and not self._ending:
            self._ending = True
            self._queue.append("end")
            self._arrived.set()
        if self._task is not None and not self._lost:
            await asyncio.wait([self._task], timeout=patience)
        await self.close()

    async def close(self) -> None:
        """Ends at once. The end of `async with` does it. Callbacks may do it too."""
        self._ending = self._closed = True
        tasks = [task for task in (self._task, *self._tellers) if task not in (None, asyncio.current_task())]
        self._task, self._tellers = None, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, audio: AudioFormat) -> None:
        retries = Retries(_AGAIN)
        while True:
            begun_at: float | None = None
            try:
                stream = self._client.open(audio, reconnect=self._reconnect, buffer=_STREAM_BUFFER, **self._options)
                async with stream:
                    begun_at = asyncio.get_running_loop().time()
                    await self._converse(stream)
                if self._ending:
                    return
                raise Unavailable("the server ended the stream")
            except (UndertoneError, OSError) as error:
                failure: Exception = error
                final = begun_at is None and isinstance(error, _FINAL)
            except _CallbackFailed as error:
                failure, final = error.error, True
            except Exception as error:
                failure, final = error, True
            if final:
                self._give_up()
                await self._tell(failure, final=True)
                return
            self._lost = True
            retries.ended(begun_at)
            if not self._in_trouble:
                self._in_trouble = True
                await self._tell(failure, final=False)
            if self._ending:
                return
            await asyncio.sleep(retries.pause(getattr(failure, "retry_after", None)) or 0.0)

    async def _converse(self, stream: Stream) -> None:
        """One stream to its end.

        Raises:
            UndertoneError: It was lost.
            Exception: Of the sender, or `_CallbackFailed`.
        """
        self._stream, self._lost, self.session_id = stream, False, stream.session_id
        self._sent.clear()
        self._sent_seconds = 0.0
        sender = asyncio.get_running_loop().create_task(self._send(stream), name="undertone-feed-sender")
        try:
            async for event in stream:
                if isinstance(event, Estimate):
                    self._count(event)
                try:
                    await self._answered()
                    await self._on_event(event)
                except Exception as error:
                    raise _CallbackFailed(error) from error
                if self._closed:
                    return
        finally:
            self._stream = None
            sender.cancel()
            await asyncio.wait([sender])

    async def _send(self, stream: Stream) -> None:
        try:
            while True:
                while not self._queue:
                    self._arrived.clear()
                    await self._arrived.wait()
                item = self._queue.popleft()
                if isinstance(item, _Chunk):
                    self._queued_bytes -= len(item.data)
                    await stream.send(item.data)
                    seconds = stream.format.seconds(len(item.data))
                    self._sent_seconds += seconds
                    self._counts.audio += seconds
                    self._sent.append((self._sent_seconds, item.pushed_at))
                elif item == "turn_start":
                    await stream.turn_start()
                elif item == "turn_end":
                    await stream.turn_end()
                else:
                    await stream.end()
                    return
        except UndertoneError:
            # Whoever reads the stream gets the reason.
            pass
        except Exception as error:
            # Nobody else would hear of it before the stream ends.
            stream.abort(error)

    async def _answered(self) -> None:
        """Any event says that the server is there; that the queue has emptied, that it keeps up."""
        if self._in_trouble and (not self._overflowed or self._waits < self._buffer / 2):
            self._in_trouble = self._overflowed = False
            if self._on_recovered is not None:
                await self._on_recovered()

    def _count(self, estimate: Estimate) -> None:
        counts = self._counts
        counts.estimates += 1
        counts.abstained += estimate.abstains
        covering = None
        # Half a millisecond: times come rounded.
        while self._sent and self._sent[0][0] <= estimate.end + 0.0005:
            covering = self._sent.popleft()
        if covering is not None:
            delay = time.monotonic() - covering[1]
            counts.delays += 1
            counts.delay_sum += delay
            counts.delay_max = max(counts.delay_max, delay)

    def _give_up(self) -> None:
        self._ending = True
        self._queue.clear()
        self._queued_bytes = 0

    def _tell_soon(self, error: Exception) -> None:
        """Tells of trouble from where nothing may wait."""
        loop = asyncio.get_running_loop()
        self._tellers = [task for task in self._tellers if not task.done()]
        self._tellers.append(loop.create_task(self._tell(error, final=False), name="undertone-feed-teller"))

    async def _tell(self, error: Exception, *, final: bool) -> None:
        try:
            await self._on_trouble(error, final)
        except Exception as failure:
            # There is nobody left to tell.
            said = {"message": "on_trouble of an undertone.Feed failed", "exception": failure}
            asyncio.get_running_loop().call_exception_handler(said)


def _said(audio: AudioFormat) -> str:
    return f"{audio.encoding.value} of {audio.sample_rate} Hz, {audio.channels} channel(s)"
