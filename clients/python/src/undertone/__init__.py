"""Live emotion from speech: the client of the Undertone service.

`Undertone` is the client, for asyncio; `SyncUndertone` is the same for plain threads. Audio comes from `sources`, or is
pushed into a `Stream`. What comes back are frozen dataclasses; errors are `UndertoneError`.
"""

from . import sources
from ._config import StreamOptions, VoiceActivity
from ._filter import EscalationFilter
from .affect import AbstainReason, Affect, DimensionSource, Emotion
from .audio import AudioFormat, ChannelMode, ChannelRole, Encoding
from .client import Undertone
from .errors import (
    AlreadyExists,
    AudioDropped,
    ConnectionFailed,
    DataLoss,
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    ResumeRefused,
    ServerError,
    StreamClosed,
    TakenOver,
    TimedOut,
    Unauthenticated,
    Unavailable,
    UndertoneError,
)
from .escalations import (
    Acknowledgement,
    ConditionValue,
    Escalation,
    EscalationDetail,
    EscalationEvent,
    EscalationKind,
    EscalationState,
    Evidence,
    Severity,
)
from .events import (
    Analysis,
    ChannelSummary,
    Draining,
    Estimate,
    Event,
    Finished,
    FinishReason,
    Limits,
    MarkReached,
    Reconnected,
    Started,
    StreamWarning,
    Utterance,
    WarningReason,
)
from .feed import Feed, FeedCounts
from .models import Model, ModelKind, Policy, TrainingData
from .reconnect import Reconnect
from .sessions import Ingress, Session, SessionDetail
from .stream import Stream
from .sync import SyncEscalationWatch, SyncStream, SyncUndertone
from .watch import EscalationWatch

__version__ = "0.1.0"

__all__ = [
    "AbstainReason",
    "Acknowledgement",
    "Affect",
    "AlreadyExists",
    "Analysis",
    "AudioDropped",
    "AudioFormat",
    "ChannelMode",
    "ChannelRole",
    "ChannelSummary",
    "ConditionValue",
    "ConnectionFailed",
    "DataLoss",
    "DimensionSource",
    "Draining",
    "Emotion",
    "Encoding",
    "Escalation",
    "EscalationDetail",
    "EscalationEvent",
    "EscalationFilter",
    "EscalationKind",
    "EscalationState",
    "EscalationWatch",
    "Estimate",
    "Event",
    "Evidence",
    "Feed",
    "FeedCounts",
    "FinishReason",
    "Finished",
    "Ingress",
    "InvalidRequest",
    "Limits",
    "MarkReached",
    "Model",
    "ModelKind",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "Policy",
    "Reconnect",
    "Reconnected",
    "ResumeRefused",
    "ServerError",
    "Session",
    "SessionDetail",
    "Severity",
    "Started",
    "Stream",
    "StreamClosed",
    "StreamOptions",
    "StreamWarning",
    "SyncEscalationWatch",
    "SyncStream",
    "SyncUndertone",
    "TakenOver",
    "TimedOut",
    "TrainingData",
    "Unauthenticated",
    "Unavailable",
    "Undertone",
    "UndertoneError",
    "Utterance",
    "VoiceActivity",
    "WarningReason",
    "sources",
]
