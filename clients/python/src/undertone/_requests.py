"""What a stream says: requests that wait to be sent, and those that may have to be sent again.

One row of requests, oldest first. Those before `_sent` were sent on this connection and are kept until a checkpoint
covers them; those behind it wait. Both parts are bounded by their bytes: who wants to say more waits, and what was kept
for too long is given up, which leaves a gap until the next checkpoint.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from .errors import StreamClosed

# A small request counts as so much: the objects around it take more memory than its bytes.
_LEAST_BYTES = 128


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    data: bytes
    """As it goes over the wire."""
    audio_bytes: int = 0
    is_mark: bool = False

    @property
    def size(self) -> int:
        """What it counts, in bytes."""
        return max(len(self.data), _LEAST_BYTES)


class Requests:
    """The row of a stream's requests; numbered from 0, the configuration not counted."""

    def __init__(self, room: int, kept: int) -> None:
        self._room = room
        self._most_kept = kept
        self._row: deque[Request] = deque()
        self._sent = 0
        self._waiting_bytes = 0
        self._kept_bytes = 0
        self._ended = False
        self._failure: Exception | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self.first = 0
        """The number of the first one in the row."""
        self.marks_before = 0
        """Marks before that one."""
        self.has_gap = False
        """Some before it had to be given up that no checkpoint covers."""

    @property
    def bytes_held(self) -> int:
        """What all of them count."""
        return self._waiting_bytes + self._kept_bytes

    def has_room(self, size: int) -> bool:
        """Whether so many bytes may be added now. What is larger than all the room may be when nothing else waits.

        Raises:
            Exception: Nothing more can be said, for this reason.
        """
        if self._failure is not None:
            raise self._failure
        if self._ended:
            raise StreamClosed("the stream has ended", remedy="open another one")
        return not self._waiting_bytes or self._waiting_bytes + size <= self._room

    def push(self, request: Request) -> None:
        """Adds one, whether there is room or not."""
        self._row.append(request)
        self._waiting_bytes += request.size
        self._readable.set()

    async def put(self, request: Request) -> None:
        """Adds one as soon as there is room."""
        while not self.has_room(request.size):
            self._writable.clear()
            await self._writable.wait()
        self.push(request)

    def end(self) -> None:
        """Nothing more will be said."""
        self._ended = True
        self._readable.set()
        self._writable.set()

    def fail(self, failure: Exception) -> None:
        """Nothing more can be said, for this reason."""
        self._failure = failure
        self._writable.set()

    async def take(self, *, keep: bool) -> Request | None:
        """The next one to send; `None` when all has been said. It counts as sent, and is kept if it may come again."""
        while self._sent == len(self._row):
            if self._ended:
                return None
            self._readable.clear()
            await self._readable.wait()
        # Rows are short behind what is kept, and a deque finds its ends fast; after a break, its middle too.
        request = self._row[self._sent]
        self._sent += 1
        self._waiting_bytes -= request.size
        self._kept_bytes += request.size
        if not keep:
            self._forget_first()
        while self._kept_bytes > self._most_kept and self._sent:
            self._forget_first()
            self.has_gap = True
        self._writable.set()
        return request

    def cover(self, requests: int) -> None:
        """The first `requests` of the stream need not be sent again."""
        while self.first < requests and self._row:
            self._forget_first()
        self.has_gap &= self.first > requests
        self._writable.set()

    def rewind(self) -> None:
        """All that is kept waits again: there is another connection."""
        self._waiting_bytes, self._kept_bytes, self._sent = self.bytes_held, 0, 0
        self._readable.set()

    def _forget_first(self) -> None:
        request = self._row.popleft()
        self.first += 1
        self.marks_before += request.is_mark
        if self._sent:
            self._sent -= 1
            self._kept_bytes -= request.size
        else:
            self._waiting_bytes -= request.size
