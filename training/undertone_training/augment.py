"""Variations of a clip that leave its emotion alone, made on its cepstra.

What differs between people and rooms is mostly linear there: a microphone or room adds a constant vector, a vocal
tract of another length warps the frequency axis, which is a 40 x 40 matrix on cepstra, and another pace resamples
the hops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .data import COEFFICIENTS, MEL_BANDS, STEP_HOPS

DB = np.float32(np.sqrt(MEL_BANDS))  # what one dB in all bands adds to coefficient 0


@dataclass(frozen=True)
class Strength:
    """How much of each; zero switches one off."""

    crop: float = 0.1  # up to this share of a clip is cut off, split over start and end
    pace: float = 0.1  # resampling of the time axis, +- this share
    warp: float = 0.06  # of the frequency axis, +- this share
    level_db: float = 2.0  # standard deviation of a constant level against the reference
    onset_db: float = 8.0  # at most: level below the reference at the start, rising to none (see `hot_start`)
    channel: float = 0.1  # constant offset per coefficient, in its standard deviations
    mask_hops: int = 8  # longest time mask; two of them


def dct() -> np.ndarray:
    """The orthonormal DCT-II of the front end, its first 40 rows, [40, 128]."""
    band = (np.arange(MEL_BANDS) + 0.5) * np.pi / MEL_BANDS
    matrix = np.cos(np.arange(COEFFICIENTS)[:, None] * band) * np.sqrt(2.0 / MEL_BANDS)
    matrix[0] /= np.sqrt(2.0)
    return matrix


def slaney_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp((mel - 15.0) * np.log(6.4) / 27.0))


def slaney_mel(hz: np.ndarray) -> np.ndarray:
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, 15.0 + np.log(np.maximum(hz, 1.0) / 1000.0) * 27.0 / np.log(6.4))


def warp_matrix(factor: float) -> np.ndarray:
    """The 40 x 40 matrix that moves what is at f Hz to `factor` * f Hz, for row vectors of cepstra."""
    edges = np.linspace(0.0, slaney_mel(np.array(8000.0)), MEL_BANDS + 2)
    centres = edges[1:-1]
    source = np.interp(slaney_mel(slaney_hz(centres) / factor), centres, np.arange(MEL_BANDS))
    low = np.clip(source.astype(int), 0, MEL_BANDS - 2)
    share = source - low
    bands = np.zeros((MEL_BANDS, MEL_BANDS))
    rows = np.arange(MEL_BANDS)
    bands[rows, low] = 1.0 - share
    bands[rows, low + 1] += share
    transform = dct()
    return (transform @ bands @ transform.T).T.astype(np.float32)


class Augmenter:
    """Draws variations of clips. `mean` and `deviation` are the training clips' per coefficient."""

    def __init__(self, strength: Strength, mean: np.ndarray, deviation: np.ndarray):
        self.strength, self.mean, self.deviation = strength, mean, deviation
        factors = 1.0 + strength.warp * np.linspace(-1.0, 1.0, 17)
        self.warps = [warp_matrix(factor) for factor in factors]

    def __call__(self, clip: np.ndarray, rng: np.random.Generator, longest: int) -> np.ndarray:
        """One variation of `clip` [hops, 40], at most `longest` hops of it."""
        by = self.strength
        hops = self.resample(self.crop(clip, rng, longest), rng)[:longest]
        if by.warp:
            hops = hops @ self.warps[rng.integers(len(self.warps))]
        offset = rng.standard_normal(COEFFICIENTS).astype(np.float32) * by.channel * self.deviation
        offset[0] = rng.normal(0.0, by.level_db) * DB
        hops = hops + offset.astype(np.float32)
        self.hot_start(hops, rng)
        for _ in range(2 if by.mask_hops else 0):
            width = int(rng.integers(0, by.mask_hops + 1))
            start = int(rng.integers(0, max(1, len(hops) - width)))
            hops[start : start + width] = self.mean
        return hops

    def crop(self, clip: np.ndarray, rng: np.random.Generator, longest: int) -> np.ndarray:
        lost = int(len(clip) * rng.uniform(0.0, self.strength.crop))
        keep = min(max(len(clip) - lost, STEP_HOPS), longest, len(clip))
        start = int(rng.integers(0, len(clip) - keep + 1))
        return clip[start : start + keep]

    def resample(self, clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        pace = 1.0 + self.strength.pace * rng.uniform(-1.0, 1.0)
        count = max(int(len(clip) / pace), 1)
        at = np.minimum(np.arange(count) * pace, len(clip) - 1).astype(np.float32)
        low = np.minimum(at.astype(int), max(len(clip) - 2, 0))
        share = (at - low.astype(np.float32))[:, None]
        return clip[low] * (1.0 - share) + clip[np.minimum(low + 1, len(clip) - 1)] * share

    def hot_start(self, hops: np.ndarray, rng: np.random.Generator) -> None:
        """In a recording the reference climbs with the first loud sounds; in a stream it already stands where
        earlier speech put it. A level that rises to its place over the first half second or so imitates that."""
        if self.strength.onset_db and rng.random() < 0.3:
            reach = min(int(rng.integers(15, 60)), len(hops))
            below = rng.uniform(0.0, self.strength.onset_db) * DB
            hops[:reach, 0] -= below * np.linspace(1.0, 0.0, reach, dtype=np.float32)
