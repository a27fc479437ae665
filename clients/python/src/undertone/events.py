"""What a live stream says. Times are seconds from the stream's first sample."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ._data import Data
from .affect import AbstainReason, Affect
from .escalations import EscalationEvent, Severity
from .models import Model, Policy


class WarningReason(enum.Enum):
    """What a warning is about."""

    SEQUENCE_GAP = "sequence_gap"
    """Chunks were lost, or came twice."""
    CLIPPING = "clipping"
    """Samples stand at full scale for several in a row: the input is overdriven."""
    NO_SPEECH = "no_speech"
    """No voice for long."""
    TRAILING_BYTES = "trailing_bytes"
    """The stream ended inside a sample; the odd bytes were dropped."""
    ESCALATIONS_NOT_DURABLE = "escalations_not_durable"
    """The server's store is down: escalations come, but are not delivered until it is back."""
    ESCALATIONS_DURABLE = "escalations_durable"
    """The store is back, and what it had not taken is recorded now."""
    ESCALATION_LOST = "escalation_lost"
    """An escalation could be neither recorded nor kept for later. Act on it yourself."""
    BUDGET_SPENT = "budget_spent"
    """The policy's budget for this session is used up: nothing more is raised."""
    NOT_ACKNOWLEDGED = "not_acknowledged"
    """An acknowledgement could not be done: there is no such escalation here, or the store is down."""


class FinishReason(enum.Enum):
    """Why a stream finished."""

    CLIENT = "client"
    """Its client ended it."""
    DRAINING = "draining"
    """The server is ending."""


@dataclass(frozen=True)
class Limits(Data):
    """What the server allows this stream."""

    max_chunk_bytes: int
    """Largest chunk. `Stream.send` cuts what is longer."""
    max_audio: float | None
    """Longest stream, in seconds of its audio."""
    idle_timeout: float | None
    """Longest time without a word from the client, in seconds."""
    max_realtime_factor: float
    """How many times faster than real time audio may come after the first `burst`; 0: no limit. The client keeps to
    it by itself."""
    burst: float
    """Seconds of audio that may come at any speed."""
    resume_window: float | None
    """How long after a checkpoint a stream can be gone on with; `None` in a server that gives no checkpoints."""


@dataclass(frozen=True)
class Started(Data):
    """The server has taken the stream. Always first."""

    session_id: str
    """The session's name."""
    model: Model
    """The model in use."""
    policy: Policy | None
    """The policy in force, if there is one."""
    limits: Limits
    estimate_interval: float
    """Seconds between two estimates of a channel."""
    checkpoint_interval: float | None
    """Seconds of audio between two checkpoints; `None`: the stream does not survive its connection."""
    min_speech: float
    """Seconds of speech before an estimate stops abstaining."""
    min_confidence: float
    """Confidence under which an estimate abstains."""
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Estimate(Data):
    """What the person sounds like now."""

    channel: int
    """The first of the input channels that are analysed together, 0-based."""
    start: float
    """Where the evidence begins."""
    end: float
    """All audio before this moment has been analysed."""
    evidence_end: float
    """The last moment that the emotion rests on."""
    affect: Affect | None
    """The numbers, also when it abstains, if there are any."""
    abstains: bool
    """True if it should not be acted on."""
    abstain_reason: AbstainReason | None
    speech_ratio: float
    """Share of voice since the last estimate of this channel, 0 to 1."""
    level_dbfs: float
    """Mean level since then, relative to a full-scale square wave; -100 at least."""
    speech: float
    """Seconds of speech in the current utterance up to `end`."""
    utterance: int
    """0-based number of the utterance that it rests on, per channel."""
    escalation_severity: Severity | None
    """The highest severity of the escalations in force on this channel; `None` if there are none."""
    escalation_ids: tuple[str, ...]
    """The escalations in force on this channel, in the order in which they were raised."""


@dataclass(frozen=True)
class Utterance(Data):
    """An utterance ended."""

    channel: int
    index: int
    """0-based number of the utterance in this channel."""
    start: float
    """Where voice begins."""
    end: float
    """Where voice ends."""
    speech: float
    """Seconds of voice within it."""
    affect: Affect | None
    """The final estimate over the whole utterance."""
    abstains: bool
    """True if it should not be acted on."""
    abstain_reason: AbstainReason | None


@dataclass(frozen=True)
class MarkReached(Data):
    """A mark came back: all audio before it has been processed."""

    name: str
    position: float
    """The audio received before it."""


@dataclass(frozen=True)
class StreamWarning(Data):
    """Something to know; the stream goes on."""

    reason: WarningReason | None
    message: str
    """In words, with the numbers."""
    position: float
    channel: int | None
    """Where it is about one."""


@dataclass(frozen=True)
class Draining(Data):
    """The server is about to end, and this stream cannot be gone on with: end it, and open another one.

    A stream that can be gone on with tells `Reconnected` instead.
    """

    deadline: float
    """Seconds until the server closes the stream."""


@dataclass(frozen=True)
class Reconnected(Data):
    """The stream had broken off and goes on. Nothing is missed, and nothing is told twice."""

    position: float
    """Up to where the server had the audio safe; what came behind it was sent again."""
    reason: str
    """Why it had broken off."""
    attempts: int
    """Connections that were tried."""
    downtime: float
    """Seconds without a server."""


@dataclass(frozen=True)
class ChannelSummary(Data):
    """One channel's summary."""

    channel: int
    speech: float
    """Seconds of voice."""
    utterances: int
    affect: Affect | None
    """Mean over the utterances, weighted by their speech; `None` if nothing was judged."""
    clipped_samples: int
    """Samples in runs at full scale."""


@dataclass(frozen=True)
class Finished(Data):
    """The summary of a stream that ended well. Always last."""

    reason: FinishReason | None
    audio: float
    """Seconds received."""
    chunks: int
    """Chunks received."""
    estimates: int
    """Estimates sent."""
    channels: tuple[ChannelSummary, ...]
    """One per analysed channel."""


@dataclass(frozen=True)
class Analysis(Data):
    """What a whole clip sounds like."""

    audio: float
    """Its length in seconds."""
    channels: tuple[ChannelSummary, ...]
    utterances: tuple[Utterance, ...]
    """In order of their end."""
    estimates: tuple[Estimate, ...]
    """The time line, if one was asked for."""
    model: str
    undecodable_packets: int
    """Packets of the file that could not be decoded and were passed over."""


Event: TypeAlias = (
    Started | Estimate | Utterance | EscalationEvent | MarkReached | StreamWarning | Draining | Reconnected | Finished
)
"""Whatever a live stream says."""
