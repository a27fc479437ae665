"""Features as `undertone features` writes them, and batches made of them.

In: `features.npz` (`mfcc` float32 [hops, 64], dB-domain cepstra relative to the causal running maximum; `offsets`
int64 [clips + 1]; `segments` int64 [m, 3]: clip, first hop, end hop, hops counted from the clip's start) and
`features.csv` beside it, one row per clip in the same order; `votes.csv` too, if it is there: how many listeners took
a clip for each emotion.
Out: padded batches float32 [batch, hops, 64] whose hop count is a multiple of 16, one step of the model.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .cepstra import MEL_BANDS
from .labels import CORPORA, LABELS

COEFFICIENTS = 64
STEP_HOPS = 16
HOP_SECONDS = 256 / 16000
STEP_SECONDS = STEP_HOPS * HOP_SECONDS

# All bands at the front end's floor, 80 dB below the reference: what digital silence after speech looks like.
# An orthonormal DCT-II of a constant has only coefficient 0, which is the constant times the root of the bands.
FLOOR = np.zeros(COEFFICIENTS, np.float32)
FLOOR[0] = -80.0 * np.sqrt(MEL_BANDS)


@dataclass(frozen=True)
class Item:
    """One stretch of a clip: what the model hears as one utterance."""

    clip: int
    start: int
    end: int


@dataclass
class Corpora:
    """All clips: features, labels, and who speaks."""

    mfcc: np.ndarray  # [hops, 64]
    offsets: np.ndarray  # [clips + 1]
    segments: np.ndarray  # [m, 3]
    clip_names: np.ndarray  # [clips], str
    emotion: np.ndarray  # [clips], index into LABELS
    corpus: np.ndarray  # [clips], index into CORPORA
    speaker: np.ndarray  # [clips], str
    sex: np.ndarray  # [clips], str
    fold: np.ndarray  # [clips]
    votes: np.ndarray | None = None  # [clips, 8], rows sum to 1, or to 0 where nobody was asked; see `votes`

    def __len__(self) -> int:
        return len(self.emotion)

    def clip(self, index: int) -> np.ndarray:
        return self.mfcc[self.offsets[index] : self.offsets[index + 1]]

    def piece(self, item: Item) -> np.ndarray:
        return self.clip(item.clip)[item.start : item.end]

    def restricted_to(self, corpora: Sequence[str]) -> Corpora:
        """The clips of `corpora` alone, numbered anew."""
        chosen = np.flatnonzero(np.isin(self.corpus, [CORPORA.index(corpus) for corpus in corpora]))
        if len(chosen) == len(self):
            return self
        number = np.full(len(self), -1)
        number[chosen] = np.arange(len(chosen))
        segments = self.segments[number[self.segments[:, 0]] >= 0].copy()
        segments[:, 0] = number[segments[:, 0]]
        lengths = np.diff(self.offsets)[chosen]
        return Corpora(
            mfcc=np.concatenate([self.clip(clip) for clip in chosen]),
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            segments=segments,
            **{name: getattr(self, name)[chosen] for name in ("clip_names", "emotion", "corpus", "speaker", "sex", "fold")},
        )


def load(features: Path, corpora: Sequence[str] = CORPORA) -> Corpora:
    """Reads the clips of `corpora` from `features` (.npz) and the .csv beside it.

    Raises ValueError where the two do not belong together, with what differs.
    """
    with np.load(features) as archive:
        mfcc, offsets = archive["mfcc"], archive["offsets"].astype(np.int64)
        segments = archive["segments"].astype(np.int64)
    with features.with_suffix(".csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    if len(rows) != len(offsets) - 1:
        raise ValueError(f"{features}: {len(offsets) - 1} clips, but {len(rows)} rows in the CSV beside it")
    if mfcc.ndim != 2 or mfcc.shape[1] != COEFFICIENTS or offsets[-1] != len(mfcc):
        raise ValueError(f"{features}: mfcc {mfcc.shape}, but {offsets[-1]} hops of {COEFFICIENTS} were expected")
    if not np.isfinite(mfcc).all():
        raise ValueError(f"{features}: not all features are finite")
    lengths = np.diff(offsets)
    if len(segments) and not (
        (segments[:, 1] >= 0).all()
        and (segments[:, 1] < segments[:, 2]).all()
        and (segments[:, 2] <= lengths[segments[:, 0]]).all()
    ):
        raise ValueError(f"{features}: a segment lies outside its clip")
    column = lambda name: np.array([row[name] for row in rows])
    everything = Corpora(
        mfcc=mfcc,
        offsets=offsets,
        segments=segments,
        clip_names=column("clip"),
        emotion=np.array([LABELS.index(row["emotion"]) for row in rows]),
        corpus=np.array([CORPORA.index(row["corpus"]) for row in rows]),
        speaker=column("speaker"),
        sex=column("sex"),
        fold=column("fold").astype(int),
    )
    chosen = everything.restricted_to(corpora)
    beside = votes_of(features)
    if beside.exists():
        chosen.votes = votes(chosen, beside)
    return chosen


def votes_of(features: Path) -> Path:
    """Where the raters' votes are, if there are any: beside the features."""
    return features.with_name("votes.csv")


def votes(corpora: Corpora, file: Path) -> np.ndarray:
    """Shares of the raters' voice-only votes, [clips, 8], from a CSV with the columns `clip` and one per emotion."""
    with file.open(newline="", encoding="utf-8") as lines:
        of_clip = {row.pop("clip"): row for row in csv.DictReader(lines)}
    shares = np.zeros((len(corpora), len(LABELS)), np.float32)
    for row, clip in zip(shares, corpora.clip_names):
        for label, count in of_clip.get(clip, {}).items():
            row[LABELS.index(label)] = float(count)
    return shares / np.maximum(shares.sum(1, keepdims=True), 1.0)


def utterances(corpora: Corpora, clips: np.ndarray) -> list[list[Item]]:
    """For each of `clips`, its utterances as the service cuts them.

    A clip in which the service found no speech, or less than one step of it, counts as one utterance from end to
    end: it was labelled by people who heard it, so it must not vanish from the figures.
    """
    of_clip: dict[int, list[Item]] = {int(clip): [] for clip in clips}
    for clip, start, end in corpora.segments.tolist():
        if clip in of_clip and end - start >= STEP_HOPS:
            of_clip[clip].append(Item(clip, start, end))
    lengths = np.diff(corpora.offsets)
    return [of_clip[int(clip)] or [Item(int(clip), 0, int(lengths[clip]))] for clip in clips]


def training_items(corpora: Corpora, clips: np.ndarray) -> list[Item]:
    """Every utterance of `clips`, and every clip from end to end where that is something else.

    Both are heard in service: utterances cut by voice activity, and streams whose caller marks the turns.
    """
    lengths = np.diff(corpora.offsets)
    items = {item for found in utterances(corpora, clips) for item in found}
    items |= {Item(int(clip), 0, int(lengths[clip])) for clip in clips}
    return sorted(items, key=lambda item: (item.clip, item.start, item.end))


def hops_of(corpora: Corpora, clips: np.ndarray) -> np.ndarray:
    """All hops of `clips`, [hops, 64]."""
    return np.concatenate([corpora.clip(clip) for clip in clips])


def steps_in(hops: int) -> int:
    """Steps that an utterance of `hops` gives: whole ones, but at least one, filled up with the floor."""
    return max(1, hops // STEP_HOPS)


def pad(pieces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Stacks pieces [hops, 64] into [batch, hops, 64], and the steps of each.

    What is left over of a last step is cut off, as in service, where the model is asked once per full step.
    """
    steps = np.array([steps_in(len(piece)) for piece in pieces])
    batch = np.empty((len(pieces), int(steps.max()) * STEP_HOPS, COEFFICIENTS), np.float32)
    batch[:] = FLOOR
    for row, (piece, count) in enumerate(zip(pieces, steps)):
        kept = piece[: count * STEP_HOPS]
        batch[row, : len(kept)] = kept
    return batch, steps
