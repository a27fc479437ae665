"""Events on their way to whoever listens: a bounded queue that has an end."""

from __future__ import annotations

import asyncio
from collections import deque

from .events import Event

# Two minutes of one channel at the usual interval. Who lets more come together waits for nothing: the server is not
# read from any further then.
EVENTS = 256


class Events:
    """One side puts, the other one takes."""

    def __init__(self) -> None:
        self._queue: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = False
        self._failure: Exception | None = None

    async def put(self, event: Event) -> None:
        """Adds one as soon as there is room."""
        while len(self._queue) >= EVENTS:
            self._room.clear()
            await self._room.wait()
        self._queue.append(event)
        self._changed.set()

    def end(self, failure: Exception | None = None) -> None:
        """Nothing comes after those that wait; then the failure is raised, if there is one."""
        if not self._ended:
            self._ended, self._failure = True, failure
            self._changed.set()

    async def take(self) -> Event:
        """The next one.

        Raises:
            StopAsyncIteration: There will be none.
            Exception: The failure that ended it.
        """
        while not self._queue:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        event = self._queue.popleft()
        self._room.set()
        if self._queue or self._ended:
            # Others may wait too.
            self._changed.set()
        return event
