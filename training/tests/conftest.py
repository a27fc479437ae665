"""Makes the package importable from any working directory, and invents corpora: no recording is needed here."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pytest
import torch

from undertone_training import data
from undertone_training.labels import ABSENT, CORPORA, LABELS

SPEAKERS = {"crema-d": 20, "ravdess": 15, "savee": 3, "tess": 2}


def invent(folder: Path, takes: int, seed: int = 0) -> Path:
    """Features of speakers whose every emotion is a direction in cepstral space plus noise: easy to learn."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((len(LABELS), data.COEFFICIENTS)) * 15.0
    directions[:, 20:] = 0.0
    rows, pieces, segments = [], [], []
    for corpus in CORPORA:
        for number in range(SPEAKERS[corpus]):
            voice = rng.standard_normal(data.COEFFICIENTS) * 2.0
            for emotion, label in enumerate(LABELS):
                if label in ABSENT[corpus]:
                    continue
                for take in range(takes):
                    hops = int(rng.integers(20, 120))
                    noise = rng.standard_normal((hops, data.COEFFICIENTS)) * 10.0
                    pieces.append((directions[emotion] + voice + noise).astype(np.float32))
                    clip = f"{corpus}-{number}-{label}-{take}"
                    rows.append(
                        {
                            "path": f"{clip}.flac",
                            "clip": clip,
                            "corpus": corpus,
                            "emotion": label,
                            "intensity": "normal",
                            "speaker": f"{corpus}-{number}",
                            "sex": "FM"[number % 2],
                            "text": "invented",
                            "fold": 3 + number if corpus == "tess" else number % 5,
                        }
                    )
                    segments.append((len(rows) - 1, 2, hops))
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
    mfcc = np.concatenate(pieces)
    path = folder / "features.npz"
    np.savez(path, mfcc=mfcc, offsets=offsets, segments=np.array(segments))
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="session")
def features(tmp_path_factory) -> Path:
    return invent(tmp_path_factory.mktemp("features"), takes=2)


@pytest.fixture(scope="session")
def corpora(features) -> data.Corpora:
    return data.load(features)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
