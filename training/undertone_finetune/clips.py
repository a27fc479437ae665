"""Manifest -> clips, their audio, who is trained on and who is held out, batches.

`manifest.csv` has a row per clip: path, clip, corpus, emotion, intensity, speaker, sex, text, fold.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from undertone_training.labels import LABELS

from .folder import BAD_USAGE, NO_INPUT, Refused
from .frontend import RATE_HZ

COLUMNS = ("path", "clip", "corpus", "emotion", "speaker", "fold")
# What libsndfile opens; anything else (spectrograms) is no audio.
AUDIO = {".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif"}
FEWEST_SPEAKERS, VALIDATION_SHARE = 4, 4
# Batches are made of clips of like length, out of so many batches at a time: little of a batch is padding, and
# length still teaches nothing.
SORTED_BATCHES = 16


@dataclass(frozen=True)
class Clip:
    path: Path
    corpus: str
    emotion: str
    speaker: str
    fold: int

    def audio(self) -> np.ndarray:
        """Its samples, mono, 16 kHz, float32."""
        try:
            samples, rate_hz = soundfile.read(self.path, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError) as error:
            raise Refused(f"{self.path}: cannot be read as audio: {error}") from error
        if rate_hz != RATE_HZ:
            raise Refused(f"{self.path}: {rate_hz} Hz; make it {RATE_HZ} Hz, for instance with `ffmpeg -ar {RATE_HZ}`")
        return samples.mean(1)


def read(corpora: Path, only: list[str] | None = None) -> tuple[list[Clip], Counter]:
    """The clips with audio, and how many without there are of each corpus. `only` names corpora."""
    manifest = corpora / "manifest.csv"
    if not manifest.is_file():
        raise Refused(
            f"{manifest} is missing; --corpora takes a folder with it, columns {', '.join(COLUMNS)}", NO_INPUT
        )
    clips, silent = [], Counter()
    with manifest.open(newline="", encoding="utf-8") as lines:
        rows = csv.DictReader(lines)
        absent = [column for column in COLUMNS if column not in (rows.fieldnames or [])]
        if absent:
            raise Refused(f"{manifest}: no column {', '.join(absent)}")
        for row in rows:
            if only and row["corpus"] not in only:
                continue
            if row["emotion"] not in LABELS:
                raise Refused(
                    f"{manifest}: clip {row['clip']}: emotion {row['emotion']!r}; known are {', '.join(LABELS)}"
                )
            path = corpora / row["path"]
            if path.suffix.lower() in AUDIO and path.is_file():
                clips.append(Clip(path, row["corpus"], row["emotion"], row["speaker"], int(row["fold"])))
            else:
                silent[row["corpus"]] += 1
    if not clips:
        raise Refused(f"{manifest}: no clip with audio" + (f" of {', '.join(only)}" if only else ""), NO_INPUT)
    return clips, silent


@dataclass
class Split:
    train: list[Clip]
    validation: list[Clip]
    test: list[Clip]


def split(clips: list[Clip], fold: int, seed: int) -> Split:
    """The fold's clips are the test. Of the other speakers one in four per corpus validates; a corpus with fewer than
    four speakers left gives none, so that it is not halved (TESS has two)."""
    test = [clip for clip in clips if clip.fold == fold]
    others = [clip for clip in clips if clip.fold != fold]
    if not others:
        raise Refused(f"--fold {fold}: nothing is left to train on", BAD_USAGE)
    rng, chosen = np.random.default_rng([seed, fold]), set()
    of_corpus = {corpus: sorted({clip.speaker for clip in others if clip.corpus == corpus}) for corpus in names(others)}
    for speakers in of_corpus.values():
        if len(speakers) >= FEWEST_SPEAKERS:
            chosen |= set(rng.choice(speakers, len(speakers) // VALIDATION_SHARE, replace=False).tolist())
    if not chosen:
        everybody = sorted({clip.speaker for clip in others})
        if len(everybody) < 2:
            raise Refused("at least two speakers outside the held-out fold are needed: one trains, one validates")
        chosen = {str(rng.choice(everybody))}
    validation = [clip for clip in others if clip.speaker in chosen]
    return Split([clip for clip in others if clip.speaker not in chosen], validation, test)


def names(clips: list[Clip]) -> list[str]:
    return sorted({clip.corpus for clip in clips})


def stacked(pieces: list[np.ndarray], longest: int) -> np.ndarray:
    """Zeros behind each piece, up to the longest one: a multiple of 320 samples, at most `longest`. More would change
    nothing but the cost, see `encoder`."""
    size = min(longest, max(-(-max(map(len, pieces)) // 320) * 320, 3200))
    windows = np.zeros((len(pieces), size), np.float32)
    for row, piece in zip(windows, pieces):
        row[: min(len(piece), size)] = piece[:size]
    return windows


def training_batches(
    clips: list[Clip], batch: int, window: int, partial: float, rng: np.random.Generator
) -> Iterator[tuple[list[Clip], np.ndarray]]:
    """One epoch: every clip once, a random stretch of at most a window of each, at a random level.

    A share `partial` is cut to its first part, a second or more: the service asks while a person is still speaking.
    """
    order = rng.permutation(len(clips))
    for start in range(0, len(order), batch * SORTED_BATCHES):
        part = [clips[index] for index in order[start : start + batch * SORTED_BATCHES]]
        pieces = [varied(clip.audio(), window, partial, rng) for clip in part]
        by_length = np.argsort([len(piece) for piece in pieces], kind="stable")
        groups = [by_length[at : at + batch] for at in range(0, len(by_length), batch)]
        for group in rng.permutation(len(groups)):
            rows = groups[group]
            yield [part[row] for row in rows], stacked([pieces[row] for row in rows], window)


def varied(samples: np.ndarray, window: int, partial: float, rng: np.random.Generator) -> np.ndarray:
    if len(samples) > window:
        start = int(rng.integers(len(samples) - window + 1))
        samples = samples[start : start + window]
    if len(samples) > RATE_HZ and rng.random() < partial:
        samples = samples[: int(rng.integers(RATE_HZ, len(samples) + 1))]
    level_db = rng.uniform(-12.0, 6.0)
    return np.clip(samples * 10 ** (level_db / 20), -1.0, 1.0).astype(np.float32)


def last_window(clip: Clip, window: int) -> np.ndarray:
    """What the service's window holds when the clip has ended."""
    return clip.audio()[-window:]
