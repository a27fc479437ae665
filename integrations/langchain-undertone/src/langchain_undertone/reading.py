"""What is known of how a person sounds, as plain data: for a graph's state, a tool's result, a prompt."""

from __future__ import annotations

import time
from typing import Final

from typing_extensions import TypedDict
from undertone import Estimate

#: Moments of the past in one reading at most; of longer histories every n-th is taken.
MAX_HISTORY: Final = 30


class Moment(TypedDict):
    """One moment of the past."""

    position: float
    """In s from the start of the session's audio."""
    emotion: str | None
    confidence: float
    distress: float


class EmotionReading(TypedDict):
    """How a person sounds now. All of it is JSON; nothing in it is audio."""

    session_id: str
    """The Undertone session."""
    known: bool
    """Whether it can be acted on: an estimate is there and does not abstain."""
    why_unknown: str | None
    """Why not, in words; None if it is known."""
    emotion: str | None
    """The most probable one, such as "angry"."""
    confidence: float
    """Its calibrated probability, 0 to 1."""
    scores: dict[str, float]
    """A probability per emotion; they sum to 1. Empty if nothing was heard."""
    valence: float
    """Pleasantness, -1 to 1. Weakly known from voice alone."""
    arousal: float
    """Activation, -1 to 1."""
    distress: float
    """0 to 1."""
    position: float
    """Audio analysed, in s from the start of the session."""
    heard_ago: float
    """How long before `read_at` that was heard which the emotion rests on, in s."""
    read_at: float
    """When it was read, in s since the epoch: a state that was kept may be old."""
    severity: str | None
    """The highest severity of the escalations in force; None if there are none."""
    escalation_ids: list[str]
    """The escalations in force."""
    history: list[Moment]
    """Oldest first, `MAX_HISTORY` at most; empty unless it was asked for."""


def unknown(session_id: str, why: str) -> EmotionReading:
    """The reading of somebody of whom nothing is known."""
    return EmotionReading(
        session_id=session_id,
        known=False,
        why_unknown=why,
        emotion=None,
        confidence=0.0,
        scores={},
        valence=0.0,
        arousal=0.0,
        distress=0.0,
        position=0.0,
        heard_ago=0.0,
        read_at=time.time(),
        severity=None,
        escalation_ids=[],
        history=[],
    )


def of(estimate: Estimate, session_id: str, heard_ago: float, history: list[Estimate]) -> EmotionReading:
    """The reading of an estimate."""
    reading = unknown(session_id, "nothing was heard yet that could be judged")
    reading["position"] = round(estimate.end, 3)
    reading["heard_ago"] = round(max(0.0, heard_ago), 3)
    reading["severity"] = estimate.escalation_severity.value if estimate.escalation_severity else None
    reading["escalation_ids"] = list(estimate.escalation_ids)
    reading["history"] = _moments(history)
    affect = estimate.affect
    if affect is None:
        return reading
    reading["emotion"] = affect.top.value if affect.top else None
    reading["confidence"] = round(affect.confidence, 4)
    reading["scores"] = {emotion.value: round(probability, 4) for emotion, probability in affect.scores.items()}
    reading["valence"], reading["arousal"] = round(affect.valence, 3), round(affect.arousal, 3)
    reading["distress"] = round(affect.distress, 3)
    reading["known"] = not estimate.abstains
    reading["why_unknown"] = None
    if estimate.abstains:
        reason = estimate.abstain_reason.value.replace("_", " ") if estimate.abstain_reason else "it abstains"
        reading["why_unknown"] = f"the estimate should not be acted on: {reason}"
    return reading


def _moments(history: list[Estimate]) -> list[Moment]:
    said = [estimate for estimate in history if estimate.affect is not None and not estimate.abstains]
    every = -(-len(said) // MAX_HISTORY) if said else 1
    # Counted from the end, so that the newest is in it.
    return [
        Moment(
            position=round(estimate.end, 3),
            emotion=estimate.affect.top.value if estimate.affect.top else None,
            confidence=round(estimate.affect.confidence, 4),
            distress=round(estimate.affect.distress, 3),
        )
        for estimate in said[::-1][::every][::-1]
        if estimate.affect is not None
    ]


def newest(old: EmotionReading | None, new: EmotionReading | None) -> EmotionReading | None:
    """The reducer of a graph's state: of two readings the one that was read later, in whatever order branches end."""
    if old is None or new is None:
        return new or old
    return old if new["read_at"] < old["read_at"] else new


def describe(reading: EmotionReading | None, *, min_confidence: float = 0.5, max_age: float = 30.0) -> str | None:
    """What an LLM is told; None if nothing is known, sure and fresh enough to be told.

    Args:
        reading: The reading.
        min_confidence: Confidence under which nothing is told, 0 to 1.
        max_age: How long ago the evidence may have been heard, in s.
    """
    if reading is None or not reading["known"] or reading["emotion"] is None:
        return None
    age = reading["heard_ago"] + time.time() - reading["read_at"]
    if reading["confidence"] < min_confidence or age > max_age:
        return None
    return (
        f"The user's voice now sounds {reading['emotion']} (confidence {reading['confidence']:.0%}). "
        "This is estimated from sound alone and can be wrong. Let it guide your tone; do not state it as a fact."
    )
