"""The protocol's messages as plain Python values."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ._generated.undertone.v1 import emotion_pb2, emotion_service_pb2, escalation_pb2, session_service_pb2
from .affect import AbstainReason, Affect, DimensionSource, Emotion
from .errors import InvalidRequest
from .escalations import (
    ConditionValue,
    Escalation,
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
    Started,
    StreamWarning,
    Utterance,
    WarningReason,
)
from .models import Model, ModelKind, Policy, TrainingData
from .sessions import Ingress, Session

_E = TypeVar("_E", bound=enum.Enum)


def _members(ours: type[_E], theirs: Any, prefix: str) -> dict[int, _E]:
    """Our members by their numbers. A number that is not in it is not set, or of a newer server: both are `None`."""
    names = {member.value: member for member in ours}
    numbers = {number: names.get(name.removeprefix(prefix).lower()) for name, number in theirs.items()}
    return {number: member for number, member in numbers.items() if member is not None}


_EMOTIONS = _members(Emotion, emotion_pb2.Emotion, "EMOTION_")
_SOURCES = _members(DimensionSource, emotion_pb2.DimensionSource, "DIMENSION_SOURCE_")
_ABSTAINS = _members(AbstainReason, emotion_pb2.AbstainReason, "ABSTAIN_REASON_")
_SEVERITIES = _members(Severity, escalation_pb2.Severity, "SEVERITY_")
_STATES = _members(EscalationState, escalation_pb2.EscalationState, "ESCALATION_STATE_")
_KINDS = _members(EscalationKind, escalation_pb2.EscalationEventKind, "ESCALATION_EVENT_KIND_")
_WARNINGS = _members(WarningReason, emotion_service_pb2.Warning.Reason, "REASON_")
_FINISHES = _members(FinishReason, emotion_service_pb2.FinishReason, "FINISH_REASON_")
_MODEL_KINDS = _members(ModelKind, emotion_service_pb2.ModelKind, "MODEL_KIND_")
_INGRESSES = _members(Ingress, session_service_pb2.Ingress, "INGRESS_")


def seconds(time: Duration) -> float:
    """A time of the protocol; what is not set is 0."""
    return (time.seconds * 1_000_000_000 + time.nanos) / 1e9


def set_seconds(time: Duration, value: float, field: str) -> None:
    """Sets a time of the protocol, which `field` asks for.

    Raises:
        InvalidRequest: It is no time.
    """
    try:
        time.FromNanoseconds(round(value * 1e9))
    except (TypeError, ValueError, OverflowError):
        problem = f"must be a time in seconds, not {value!r}"
        raise InvalidRequest(f"{field} {problem}", fields=((field, problem),)) from None


def set_moment(time: Timestamp, value: datetime) -> None:
    """Sets a moment of the protocol. One without a time zone is local time, as in Python."""
    time.FromDatetime(value.astimezone(timezone.utc))


def _optional_seconds(message: Message, field: str) -> float | None:
    return seconds(getattr(message, field)) if message.HasField(field) else None


def _moment(message: Message, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    time: Timestamp = getattr(message, field)
    return time.ToDatetime(tzinfo=timezone.utc)


def _optional(message: Message, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def _affect(message: Any) -> Affect | None:
    if not message.HasField("affect"):
        return None
    affect: emotion_pb2.Affect = message.affect
    scores = {_EMOTIONS[score.emotion]: score.probability for score in affect.scores if score.emotion in _EMOTIONS}
    return Affect(
        scores=scores,
        top=_EMOTIONS.get(affect.top),
        confidence=affect.confidence,
        valence=affect.valence,
        arousal=affect.arousal,
        dimension_source=_SOURCES.get(affect.dimension_source),
        distress=affect.distress,
    )


def estimate(message: emotion_pb2.Estimate) -> Estimate:
    """An estimate."""
    return Estimate(
        channel=message.channel,
        start=seconds(message.start),
        end=seconds(message.end),
        evidence_end=seconds(message.evidence_end),
        affect=_affect(message),
        abstains=message.abstains,
        abstain_reason=_ABSTAINS.get(message.abstain_reason),
        speech_ratio=message.speech_ratio,
        level_dbfs=message.level_dbfs,
        speech=seconds(message.speech),
        utterance=message.utterance,
        escalation_severity=_SEVERITIES.get(message.escalation_severity),
        escalation_ids=tuple(message.escalation_ids),
    )


def utterance(message: emotion_service_pb2.Utterance) -> Utterance:
    """An utterance."""
    return Utterance(
        channel=message.channel,
        index=message.index,
        start=seconds(message.start),
        end=seconds(message.end),
        speech=seconds(message.speech),
        affect=_affect(message),
        abstains=message.abstains,
        abstain_reason=_ABSTAINS.get(message.abstain_reason),
    )


def _evidence(message: escalation_pb2.Evidence) -> Evidence:
    return Evidence(
        start=seconds(message.start),
        end=seconds(message.end),
        speech=seconds(message.speech),
        emotions=dict(message.emotions),
        distress=_optional(message, "distress"),
        valence=_optional(message, "valence"),
        arousal=_optional(message, "arousal"),
        conditions=tuple(
            ConditionValue(what=c.what, value=_optional(c, "value"), on=c.on, off=c.off, holds=c.holds)
            for c in message.conditions
        ),
    )


def escalation(message: escalation_pb2.Escalation) -> Escalation:
    """An escalation."""
    return Escalation(
        id=message.id,
        session_id=message.session_id,
        channel=message.channel,
        labels=dict(message.labels),
        policy=message.policy,
        policy_version=message.policy_version,
        rule=message.rule,
        title=message.title,
        severity=_SEVERITIES.get(message.severity),
        state=_STATES.get(message.state),
        reason=message.reason,
        model=message.model,
        model_version=message.model_version,
        onset=seconds(message.onset),
        evidence=_evidence(message.evidence) if message.HasField("evidence") else None,
        raised_at=_moment(message, "raised_at"),
        updated_at=_moment(message, "updated_at"),
        acknowledged_at=_moment(message, "acknowledged_at"),
        acknowledged_by=message.acknowledged_by,
        cleared_at=_moment(message, "cleared_at"),
        session_ended_at=_moment(message, "session_ended_at"),
        tenant=message.tenant,
    )


def escalation_event(message: escalation_pb2.EscalationEvent) -> EscalationEvent:
    """Something that happened to an escalation."""
    return EscalationEvent(
        id=message.id,
        kind=_KINDS.get(message.kind),
        at=_moment(message, "at"),
        actor=message.actor,
        note=message.note,
        escalation=escalation(message.escalation),
        durable=message.durable,
        identity=message.identity,
    )


def model(message: emotion_service_pb2.Model) -> Model:
    """A model."""
    return Model(
        name=message.name,
        version=message.version,
        kind=_MODEL_KINDS.get(message.kind),
        description=message.description,
        labels=tuple(_EMOTIONS[label] for label in message.labels if label in _EMOTIONS),
        training_data=tuple(TrainingData(d.corpus, d.licence, d.commercial_use) for d in message.training_data),
        figures=dict(message.figures),
        protocol=message.protocol,
        sha256=message.sha256,
        is_default=message.is_default,
    )


def policy(message: emotion_service_pb2.Policy) -> Policy:
    """A policy."""
    return Policy(
        name=message.name,
        version=message.version,
        description=message.description,
        rules=tuple(message.rules),
        budget=message.budget,
        is_default=message.is_default,
    )


def _started(message: emotion_service_pb2.Started) -> Started:
    config, limits = message.config, message.limits
    return Started(
        session_id=message.session_id,
        model=model(message.model),
        policy=policy(message.policy) if message.HasField("policy") else None,
        limits=Limits(
            max_chunk_bytes=limits.max_chunk_bytes,
            max_audio=_optional_seconds(limits, "max_audio"),
            idle_timeout=_optional_seconds(limits, "idle_timeout"),
            max_realtime_factor=limits.max_realtime_factor,
            burst=seconds(limits.burst),
            resume_window=_optional_seconds(limits, "resume_window"),
        ),
        estimate_interval=seconds(config.estimate_interval),
        checkpoint_interval=_optional_seconds(config, "checkpoint_interval"),
        min_speech=seconds(config.min_speech),
        min_confidence=config.min_confidence,
        labels=dict(config.labels),
    )


def _mark(message: emotion_service_pb2.MarkReached) -> MarkReached:
    return MarkReached(message.name, seconds(message.position))


def _warning(message: emotion_service_pb2.Warning) -> StreamWarning:
    return StreamWarning(
        reason=_WARNINGS.get(message.reason),
        message=message.message,
        position=seconds(message.position),
        channel=_optional(message, "channel"),
    )


def _draining(message: emotion_service_pb2.Draining) -> Draining:
    return Draining(seconds(message.deadline))


def _summary(message: emotion_service_pb2.ChannelSummary) -> ChannelSummary:
    return ChannelSummary(
        channel=message.channel,
        speech=seconds(message.speech),
        utterances=message.utterances,
        affect=_affect(message),
        clipped_samples=message.clipped_samples,
    )


def _finished(message: emotion_service_pb2.Finished) -> Finished:
    return Finished(
        reason=_FINISHES.get(message.reason),
        audio=seconds(message.audio),
        chunks=message.chunks,
        estimates=message.estimates,
        channels=tuple(map(_summary, message.channels)),
    )


_EVENTS: Mapping[str, Callable[[Any], Event]] = {
    "started": _started,
    "estimate": estimate,
    "utterance": utterance,
    "mark": _mark,
    "warning": _warning,
    "draining": _draining,
    "finished": _finished,
    "escalation": escalation_event,
}


def event(kind: str, response: emotion_service_pb2.StreamEmotionResponse) -> Event:
    """A stream's response of that kind."""
    return _EVENTS[kind](getattr(response, kind))


def analysis(message: emotion_service_pb2.AnalyzeAudioResponse) -> Analysis:
    """A clip's analysis."""
    return Analysis(
        audio=seconds(message.audio),
        channels=tuple(map(_summary, message.channels)),
        utterances=tuple(map(utterance, message.utterances)),
        estimates=tuple(map(estimate, message.estimates)),
        model=message.model,
        undecodable_packets=message.undecodable_packets,
    )


def session(message: session_service_pb2.Session) -> Session:
    """A session."""
    return Session(
        id=message.id,
        tenant=message.tenant,
        identity=message.identity,
        labels=dict(message.labels),
        model=message.model,
        policy=message.policy,
        ingress=_INGRESSES.get(message.ingress),
        opened_at=_moment(message, "opened_at"),
        audio=seconds(message.audio),
        estimates=message.estimates,
        latest=tuple(map(estimate, message.latest)),
        ended_at=_moment(message, "ended_at"),
    )
