"""Audio in without ever waiting, events out: one Undertone stream at a time, opened again when it is lost.

The client (`undertone.Stream`) goes on with a stream that breaks off, by its checkpoints. This module is about what is
left to a real-time framework: the server that is slow or away longer than that. Audio then waits in a queue that has a
bound, the oldest goes first, and whoever listens is told once per outage.

What always holds:

1. `push` and `turn` are synchronous: they neither wait nor fail.
2. The queue never holds more than `buffer` seconds of audio.
3. `trouble` is called once from the first sign of an outage until the server has answered again, and once
   for audio that does not fit.
4. When `close` or `finish` has returned, no task of this module is left.

pipecat-undertone and livekit-plugins-undertone have the same copy of this file; a test compares them.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal

import undertone

# One 16-bit sample.
_SAMPLE_BYTES: Final = 2
# How many sent chunks are remembered until an estimate covers them: at 10 ms a chunk more than the 10 s that are the
# longest time between two estimates.
_REMEMBERED_CHUNKS: Final = 4096
# What may wait in the client besides, in s.
_CLIENT_BUFFER: Final = 1.0
# Opening a stream again, in s: full jitter below a bound that doubles from the first to the second.
_RETRY_FIRST: Final = 0.5
_RETRY_MOST: Final = 15.0
# A stream that went well for so long ends the trouble before it, in s.
_STEADY: Final = 10.0

#: A stream that is refused so at its beginning will be refused again.
PERMANENT: Final = (undertone.InvalidRequest, undertone.Unauthenticated, undertone.PermissionDenied, undertone.NotFound)


class AudioDroppedError(Exception):
    """Audio was dropped, since the server takes it more slowly than it comes."""


@dataclasses.dataclass(slots=True)
class Counts:
    """What went through, since the beginning."""

    #: Audio handed to the stream, in s.
    audio: float = 0.0
    #: Audio dropped, in s.
    dropped: float = 0.0
    #: Estimates that came.
    estimates: int = 0
    #: How many of them abstain.
    abstained: int = 0
    #: From pushing the last chunk that an estimate covers to that estimate, in s: their sum.
    delay_sum: float = 0.0
    #: The longest.
    delay_max: float = 0.0
    #: How many estimates `delay_sum` is over.
    delays: int = 0

    def copy(self) -> Counts:
        """As it stands now."""
        return dataclasses.replace(self)

    def since(self, before: Counts) -> Counts:
        """The difference; `delay_max` stays that of the whole time."""
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(before)
        difference = Counts(*(a - b for a, b in zip(mine, theirs, strict=True)))
        difference.delay_max = self.delay_max
        return difference


@dataclasses.dataclass(frozen=True, slots=True)
class _Audio:
    data: bytes
    seconds: float
    pushed_at: float


_Item = _Audio | Literal["turn_start", "turn_end", "end"]


class Feed:
    """Feeds 16-bit PCM to Undertone and calls back with what comes.

    Args:
        connect: Makes the client; called in the event loop, as a context manager.
        stream: Keyword arguments of `Undertone.open`.
        buffer: Audio that may wait for the server, in s.
        event: Called with each event, in order.
        trouble: Called once per outage with the error, and whether it is final.
        recovered: Called when the server has answered after trouble.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], undertone.Undertone],
        stream: Mapping[str, Any],
        buffer: float,
        event: Callable[[undertone.Event], Awaitable[None]],
        trouble: Callable[[Exception, bool], Awaitable[None]],
        recovered: Callable[[], Awaitable[None]],
    ) -> None:
        if not buffer > 0:
            raise ValueError(f"buffer: {buffer} s; at least some audio must fit, such as 5.0")
        self._connect = connect
        # Audio waits here, where the oldest can be dropped, rather than in the client.
        self._options = {"buffer": _CLIENT_BUFFER, **stream}
        self._buffer = buffer
        self._event = event
        self._trouble = trouble
        self._recovered = recovered

        self._queue: collections.deque[_Item] = collections.deque()
        self._queued = 0.0
        self._arrived = asyncio.Event()
        self._format: tuple[int, int] | None = None
        self._formatted = asyncio.Event()
        self._sent: collections.deque[tuple[float, float]] = collections.deque(maxlen=_REMEMBERED_CHUNKS)
        self._sent_seconds = 0.0
        self._task: asyncio.Task[None] | None = None
        self._tellers: list[asyncio.Task[None]] = []
        self._in_trouble = False
        self._overflowed = False
        self._misfit = False
        self._lost = False
        self._began_at = 0.0
        self._ending = False
        self._dead = False

        #: What went through.
        self.counts = Counts()
        #: The Undertone session, once the server has begun it; empty before.
        self.session_id = ""
        #: True from the server's first answer to the loss of the stream.
        self.connected = False

    def start(self) -> None:
        """Begins in a task of its own. The connection is made when the first audio has come, which says its format."""
        if self._task is None and not self._ending:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="undertone-feed")

    def push(self, data: bytes, rate_hz: int, channels: int) -> None:
        """Takes a chunk of interleaved 16-bit PCM. Audio of another format than the first chunk's is dropped."""
        if not data:
            return
        seconds = len(data) / (_SAMPLE_BYTES * channels * rate_hz)
        if self._format is None:
            self._format = (rate_hz, channels)
            self._formatted.set()
        if self._ending or self._dead:
            self.counts.dropped += seconds
            return
        if (rate_hz, channels) != self._format:
            self.counts.dropped += seconds
            if not self._misfit:
                self._misfit = True
                begun = "{} Hz, {} channel(s)".format(*self._format)
                self._say(
                    AudioDroppedError(f"audio of {rate_hz} Hz, {channels} channel(s) is dropped: it began with {begun}")
                )
            return
        self._queue.append(_Audio(data, seconds, time.monotonic()))
        self._queued += seconds
        while self._queued > self._buffer and self._queue:
            # Boundaries of turns whose audio goes say nothing any more.
            oldest = self._queue.popleft()
            if isinstance(oldest, _Audio):
                self._queued -= oldest.seconds
                self.counts.dropped += oldest.seconds
                self._overflowed = True
        if self._overflowed and not self._in_trouble:
            self._in_trouble = True
            self._say(
                AudioDroppedError(
                    f"the server takes audio more slowly than it comes; what does not fit into {self._buffer:g} s "
                    "is dropped, the oldest first"
                )
            )
        self._arrived.set()

    def turn(self, boundary: Literal["turn_start", "turn_end"]) -> None:
        """Marks a boundary of the user's turn behind the audio pushed so far."""
        if self._format is None or self._ending or self._dead:
            return
        # Two boundaries without audio between them say nothing more, and would have no bound.
        if len(self._queue) >= 2 and not any(isinstance(item, _Audio) for item in (self._queue[-1], self._queue[-2])):
            return
        self._queue.append(boundary)
        self._arrived.set()

    async def finish(self, patience: float) -> None:
        """Ends the stream as its speaker has: what was said is heard out, for `patience` s at most."""
        if self._task is not None and self._format is not None and not self._lost:
            self._ending = True
            self._queue.append("end")
            self._arrived.set()
            await asyncio.wait([self._task], timeout=patience)
        await self.close()

    async def close(self) -> None:
        """Ends at once. May be called again."""
        self._ending = True
        tasks = [task for task in (self._task, *self._tellers) if task not in (None, asyncio.current_task())]
        self._task, self._tellers = None, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.connected = False

    async def _run(self) -> None:
        attempt = 0
        await self._formatted.wait()
        while not self._ending:
            try:
                async with self._connect() as client:
                    await self._stream(client)
                if self._ending:
                    return
                raise undertone.Unavailable("the server ended the stream")
            except (undertone.UndertoneError, OSError) as error:
                began, self.connected, self._lost = self.connected, False, True
                if isinstance(error, PERMANENT) and not began:
                    self._give_up()
                    await self._trouble(error, True)
                    return
                attempt = 0 if began and time.monotonic() - self._began_at > _STEADY else attempt + 1
                if not self._in_trouble:
                    self._in_trouble = True
                    await self._trouble(error, False)
                if self._ending:
                    return
                wait = random.uniform(0, min(_RETRY_MOST, _RETRY_FIRST * 2**attempt))
                await asyncio.sleep(max(wait, getattr(error, "retry_after", None) or 0.0))
            except Exception as error:
                # A defect, of this module or of what it calls back: nobody else would hear of it.
                self._give_up()
                await self._trouble(error, True)
                return

    def _give_up(self) -> None:
        self._dead = self._in_trouble = True
        self._queue.clear()
        self._queued = 0.0

    async def _stream(self, client: undertone.Undertone) -> None:
        assert self._format is not None
        rate_hz, channels = self._format
        audio = undertone.AudioFormat(undertone.Encoding.LINEAR16, rate_hz, channels)
        self._sent.clear()
        self._sent_seconds = 0.0
        async with client.open(audio, **self._options) as stream:
            sender = asyncio.get_running_loop().create_task(self._send(stream), name="undertone-feed-sender")
            try:
                async for event in stream:
                    if isinstance(event, undertone.Started):
                        self.session_id = event.session_id
                    await self._answered()
                    if isinstance(event, undertone.Estimate):
                        self._count(event)
                    await self._event(event)
            finally:
                sender.cancel()
                with contextlib.suppress(asyncio.CancelledError, undertone.UndertoneError):
                    await sender

    async def _send(self, stream: undertone.Stream) -> None:
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            item = self._queue.popleft()
            if isinstance(item, _Audio):
                self._queued -= item.seconds
                await stream.send(item.data)
                self._sent_seconds += item.seconds
                self.counts.audio += item.seconds
                self._sent.append((self._sent_seconds, item.pushed_at))
            elif item == "turn_start":
                await stream.turn_start()
            elif item == "turn_end":
                await stream.turn_end()
            else:
                await stream.end()
                return

    async def _answered(self) -> None:
        """Any event says that the server is there; that the queue has emptied, that it keeps up."""
        if not self.connected:
            self.connected, self._lost, self._began_at = True, False, time.monotonic()
        if self._in_trouble and (not self._overflowed or self._queued < self._buffer / 2):
            self._in_trouble = self._overflowed = False
            await self._recovered()

    def _count(self, estimate: undertone.Estimate) -> None:
        counts = self.counts
        counts.estimates += 1
        counts.abstained += estimate.abstains
        covering = None
        # Half a millisecond: times come rounded.
        while self._sent and self._sent[0][0] <= estimate.end + 0.0005:
            covering = self._sent.popleft()
        if covering is not None:
            delay = time.monotonic() - covering[1]
            counts.delay_sum += delay
            counts.delays += 1
            counts.delay_max = max(counts.delay_max, delay)

    def _say(self, error: Exception) -> None:
        """Tells of trouble from where nothing may wait."""
        self._tellers = [task for task in self._tellers if not task.done()]
        self._tellers.append(asyncio.get_running_loop().create_task(self._tell(error), name="undertone-feed-teller"))

    async def _tell(self, error: Exception) -> None:
        await self._trouble(error, False)
