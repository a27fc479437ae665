"""Sessions: whom the server listens to now, and has listened to lately."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ._data import Data
from .events import Estimate, Utterance


class Ingress(enum.Enum):
    """The way a session's audio comes in."""

    GRPC = "grpc"
    WEBSOCKET = "websocket"
    TWILIO = "twilio"
    AUDIOHOOK = "audiohook"


@dataclass(frozen=True)
class Session(Data):
    """A session as it stands, or as it stood when it ended."""

    id: str
    tenant: str
    identity: str
    """The identity that opened it."""
    labels: Mapping[str, str]
    """On whose behalf it listens."""
    model: str
    policy: str
    """Empty if it has none."""
    ingress: Ingress | None
    opened_at: datetime | None
    audio: float
    """Seconds received."""
    estimates: int
    """Estimates sent."""
    latest: tuple[Estimate, ...]
    """The last estimate of each analysed channel that has one."""
    ended_at: datetime | None = None
    """None while it is live."""


@dataclass(frozen=True)
class SessionDetail(Data):
    """One session, and what was heard in its last minutes."""

    session: Session
    estimates: tuple[Estimate, ...]
    """In order of their end; at most one a second and channel is kept, and the newest of each channel."""
    utterances: tuple[Utterance, ...]
    """In order of their end."""
