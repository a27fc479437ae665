"""What a stretch of speech sounded like."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from ._data import Data


class Emotion(enum.Enum):
    """An emotion as acted and labelled in the corpora that models are trained on."""

    NEUTRAL = "neutral"
    CALM = "calm"
    HAPPY = "happy"
    SAD = "sad"
    ANGRY = "angry"
    FEAR = "fear"
    DISGUST = "disgust"
    SURPRISE = "surprise"


class DimensionSource(enum.Enum):
    """How valence and arousal came about."""

    DERIVED_FROM_EMOTIONS = "derived_from_emotions"
    """A summary of the emotions' probabilities, no further evidence."""
    MODEL = "model"
    """The model puts them out itself."""


class AbstainReason(enum.Enum):
    """Why an estimate abstains."""

    TOO_LITTLE_SPEECH = "too_little_speech"
    """Less speech was heard in this utterance than the configured minimum."""
    UNSURE = "unsure"
    """No emotion reaches the configured minimum confidence."""
    NO_EVIDENCE = "no_evidence"
    """Nothing was heard that could be judged."""


@dataclass(frozen=True)
class Affect(Data):
    """The numbers of one rolling estimate or one utterance."""

    scores: Mapping[Emotion, float]
    """A calibrated probability per emotion that the model knows; they sum to 1. Empty where a model gives valence and
    arousal only."""
    top: Emotion | None
    """The most probable one; `None` where `scores` is empty."""
    confidence: float
    """How far `top` can be relied on, 0 to 1: its calibrated probability."""
    valence: float
    """Pleasantness, -1 (unpleasant) to 1 (pleasant). Weakly known from voice alone."""
    arousal: float
    """Activation, -1 to 1."""
    dimension_source: DimensionSource | None
    """How valence and arousal came about."""
    distress: float
    """0 to 1: the probability of sadness, anger and fear, and half that of disgust."""
