"""Escalations: what a policy raised, how it stands, and what happened to it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ._data import Data


class Severity(enum.Enum):
    """How much an escalation asks of those who get it. Members compare: `severity >= Severity.MEDIUM`."""

    ADVISORY = "advisory"
    """Worth knowing; nobody needs to act."""
    LOW = "low"
    """Somebody should look when they next can."""
    MEDIUM = "medium"
    """Somebody should look soon."""
    HIGH = "high"
    """Somebody must look now."""

    def _rank(self) -> int:
        return list(Severity).index(self)

    def __lt__(self, other: Severity) -> bool:
        return self._rank() < other._rank()

    def __le__(self, other: Severity) -> bool:
        return self._rank() <= other._rank()

    def __gt__(self, other: Severity) -> bool:
        return self._rank() > other._rank()

    def __ge__(self, other: Severity) -> bool:
        return self._rank() >= other._rank()


class EscalationState(enum.Enum):
    """Where an escalation stands."""

    RAISED = "raised"
    """In force, and nobody has taken it on."""
    ACKNOWLEDGED = "acknowledged"
    """In force, and somebody has taken it on."""
    CLEARED = "cleared"
    """Its condition holds no more."""


class EscalationKind(enum.Enum):
    """What happened to an escalation."""

    RAISED = "raised"
    """It began."""
    UPDATED = "updated"
    """It is still in force: new values, or the end of its session."""
    ACKNOWLEDGED = "acknowledged"
    """Somebody took it on."""
    CLEARED = "cleared"
    """Its condition holds no more."""


@dataclass(frozen=True)
class ConditionValue(Data):
    """One condition of the rule when the policy decided."""

    what: str
    """What was measured, in words, such as "mean of distress over 10s"."""
    value: float | None
    """Its value; `None` as long as too little speech was heard."""
    on: float
    """Where the condition turns on."""
    off: float
    """Where it turns off."""
    holds: bool
    """Whether it held."""


@dataclass(frozen=True)
class Evidence(Data):
    """What a decision rests on. No audio."""

    start: float
    """Start of the longest window looked at, in seconds from the stream's first sample."""
    end: float
    """Its end: all audio before it has been analysed."""
    speech: float
    """Seconds of speech that counted within it."""
    emotions: Mapping[str, float]
    """Mean probability of each emotion over that speech, by its name."""
    distress: float | None
    """Mean distress, 0 to 1; `None` without speech, as are the next two."""
    valence: float | None
    """Mean valence, -1 to 1."""
    arousal: float | None
    """Mean arousal, -1 to 1."""
    conditions: tuple[ConditionValue, ...]
    """Every condition of the rule."""


@dataclass(frozen=True)
class Escalation(Data):
    """An escalation as it stands."""

    id: str
    """Its name, a UUID that follows from session, policy, rule, channel and onset."""
    session_id: str
    """The session that it is about."""
    channel: int
    """The first of the input channels that are analysed together, 0-based."""
    labels: Mapping[str, str]
    """The session's labels: on whose behalf it listens."""
    policy: str
    policy_version: str
    rule: str
    title: str
    """The rule's title, for people."""
    severity: Severity | None
    """`None` for one that only a newer version of this package knows, as everywhere."""
    state: EscalationState | None
    reason: str
    """Why, in words with the values in them, as of the last decision."""
    model: str
    model_version: str
    onset: float
    """Where its condition began to hold, in seconds from the stream's first sample."""
    evidence: Evidence | None
    """What the last decision rests on."""
    raised_at: datetime | None
    updated_at: datetime | None
    acknowledged_at: datetime | None
    """`None` if nobody has taken it on."""
    acknowledged_by: str
    cleared_at: datetime | None
    """`None` if it was not."""
    session_ended_at: datetime | None
    """When the stream ended, if that was while it was in force."""
    tenant: str


@dataclass(frozen=True)
class EscalationEvent(Data):
    """One thing that happened to an escalation, and how it stood after it."""

    id: str
    """Its name, a UUID: the same over retries and restarts. Empty while the event is not durable."""
    kind: EscalationKind | None
    at: datetime | None
    actor: str
    """Who did it, for an acknowledgement: what they call themselves."""
    note: str
    """What they said, or why it was updated or cleared."""
    escalation: Escalation
    """The escalation after it."""
    durable: bool
    """Whether it is in the server's store. If not, the event comes again, durable, when the store is back."""
    identity: str
    """The identity that they had to the server, for an acknowledgement."""


@dataclass(frozen=True)
class EscalationDetail(Data):
    """One escalation and everything that happened to it."""

    escalation: Escalation
    history: tuple[EscalationEvent, ...]
    """In order."""


@dataclass(frozen=True)
class Acknowledgement(Data):
    """The answer to an acknowledgement."""

    escalation: Escalation
    """After it."""
    already: bool
    """Somebody had taken it on before; that stands."""
