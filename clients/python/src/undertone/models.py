"""What a server has loaded: models and policies."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from ._data import Data
from .affect import Emotion


class ModelKind(enum.Enum):
    """How a model takes its input."""

    STREAMING_MFCC = "streaming_mfcc"
    """MFCC steps and a carried state."""
    WINDOW_MFCC = "window_mfcc"
    """A window of MFCCs."""
    WINDOW_WAVEFORM = "window_waveform"
    """A window of 16 kHz samples."""


@dataclass(frozen=True)
class TrainingData(Data):
    """A corpus that a model was trained on."""

    corpus: str
    licence: str
    commercial_use: bool
    """False if the licence excludes commercial use."""


@dataclass(frozen=True)
class Model(Data):
    """A loaded model."""

    name: str
    version: str
    kind: ModelKind | None
    description: str
    labels: tuple[Emotion, ...]
    """The emotions that it tells apart. Empty for a model of valence and arousal."""
    training_data: tuple[TrainingData, ...]
    figures: Mapping[str, float]
    """Measured figures as its manifest gives them, such as `ua_crema_d`."""
    protocol: str
    """How they were measured."""
    sha256: str
    """Of the ONNX file, lower-case hex."""
    is_default: bool
    """True for the model that a stream gets if it names none."""


@dataclass(frozen=True)
class Policy(Data):
    """What can raise escalations."""

    name: str
    version: str
    """Its own version and the beginning of the hash of its text."""
    description: str
    rules: tuple[str, ...]
    """Each rule in words."""
    budget: int
    """Escalations of one session at most."""
    is_default: bool
    """True for the policy of streams that name none."""
