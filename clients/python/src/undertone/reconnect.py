"""How a stream or a watch that broke off is gone on with."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Reconnect:
    """How often, and for how long, another connection is tried for.

    The n-th wait is drawn between 0 and `first_wait * 2**n`, at most `longest_wait` (full jitter): those whom one
    server sent away do not come back together. A time that the server asks for is waited on top of that.
    """

    patience: float = 60.0
    """Seconds without a server after which it is given up. What the server keeps of a session ends with its
    `resume_window`, 2 minutes by default: more patience is in vain."""
    first_wait: float = 0.2
    """Seconds."""
    longest_wait: float = 5.0
    """Seconds."""
    kept_bytes: int = 40 << 20
    """What was sent and no checkpoint covers is kept up to so much; 20 minutes of 16 kHz mono. Beyond that the stream
    cannot be gone on with until the next checkpoint."""


# A connection that went well for so long ends the trouble before it.
_STEADY_S = 2.0


class Retries:
    """The waits of one trouble after another."""

    def __init__(self, reconnect: Reconnect) -> None:
        self._reconnect = reconnect
        self._broken_since: float | None = None
        self._attempts = 0

    def ended(self, begun: float | None) -> None:
        """A connection ended that had been good since `begun` (the loop's time), if it ever was."""
        now = asyncio.get_running_loop().time()
        if begun is not None and now - begun > _STEADY_S:
            self._broken_since, self._attempts = None, 0
        if self._broken_since is None:
            self._broken_since = now

    def pause(self, asked: float | None) -> float | None:
        """Seconds to wait before another attempt, `asked` at least; `None` if that would be beyond all patience."""
        now = asyncio.get_running_loop().time()
        since = now if self._broken_since is None else self._broken_since
        most = min(self._reconnect.longest_wait, self._reconnect.first_wait * 2.0 ** min(self._attempts, 30))
        pause = (asked or 0.0) + random.uniform(0.0, most)  # noqa: S311 (no secret)
        self._attempts += 1
        return pause if now - since + pause <= self._reconnect.patience else None
