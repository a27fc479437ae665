"""Variations of a clip that leave its emotion alone, made on its cepstra.

What differs between people and rooms is mostly linear there: a microphone or room adds a constant vector, a vocal
tract of another length warps the frequency axis, which is a matrix on cepstra, and another pace resamples the hops.
What is not linear (noise, reverberation, a telephone line, another reference level) is done on the 128 bands that the
cepstra stand for, in power.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import cepstra
from .data import COEFFICIENTS, HOP_SECONDS, STEP_HOPS

DB = np.float32(np.sqrt(cepstra.MEL_BANDS))  # what one dB in all bands adds to coefficient 0
NEPERS_PER_DB = np.float32(np.log(10.0) / 10.0)  # of power
FLOOR_DB = np.float32(-80.0)
DECAY_DB_PER_HOP = np.float32(1.0 * HOP_SECONDS)  # of the front end's reference
OCTAVES_FROM_500_HZ = np.log2(np.maximum(cepstra.BAND_CENTRES_HZ, 60.0) / 500.0)
# Below these powers there is nothing: the front end's own floor.
LEAST_POWER = np.float32(1e-10)
# Speech is what lies within so many dB of a clip's loudest hop; levels of noise are relative to its mean power.
ACTIVE_RANGE_DB = 20.0
TELEPHONE_TOP_HZ = 4000.0


@dataclass(frozen=True)
class Strength:
    """How much of each; zero switches one off."""

    crop: float = 0.12  # up to this share of a clip is cut off, split over start and end
    pace: float = 0.12  # resampling of the time axis, +- this share
    warp: float = 0.12  # of the frequency axis, +- this share
    level_db: float = 2.0  # standard deviation of a constant level against the reference
    channel_db: float = 1.5  # standard deviation of each of eight smooth ripples over the bands
    mask_hops: int = 8  # longest time mask; two of them
    hot_start: float = 0.1  # probability that the reference already stands where louder speech put it
    noise: float = 0.3  # probability of added noise
    snr_db: tuple[float, float] = (5.0, 35.0)  # signal-to-noise ratio of it, evenly drawn
    reverberation: float = 0.1  # probability of a room of 0.2 to 0.8 s
    telephone: float = 0.18  # probability of a telephone line


class Augmenter:
    """Draws variations of clips. `mean` is the training clips' per coefficient: what a mask shows."""

    RIPPLES = 8

    def __init__(self, strength: Strength, mean: np.ndarray):
        self.strength, self.mean = strength, mean
        self.hardness = 1.0  # scales the probabilities of what `roughen` does
        factors = 1.0 + strength.warp * np.linspace(-1.0, 1.0, 21)
        self.warps = [cepstra.warp(factor, COEFFICIENTS) for factor in factors] if strength.warp else []
        self.to_cepstra = cepstra.dct(COEFFICIENTS).T.astype(np.float32)
        self.to_bands = np.ascontiguousarray(self.to_cepstra.T)
        order = np.arange(1, self.RIPPLES + 1)[:, None]
        band = (np.arange(cepstra.MEL_BANDS) + 0.5) / cepstra.MEL_BANDS
        self.ripples = np.cos(np.pi * order * band) / np.sqrt(order)

    def __call__(self, clip: np.ndarray, rng: np.random.Generator, longest: int) -> np.ndarray:
        """One variation of `clip` [hops, 64], at most `longest` hops of it."""
        by = self.strength
        hops = self.resample(self.crop(clip, rng, longest), rng)[:longest]
        if self.warps:
            hops = hops @ self.warps[rng.integers(len(self.warps))]
        chosen = rng.random(4) < self.hardness * np.array([by.noise, by.reverberation, by.telephone, by.hot_start])
        if chosen.any():
            hops = self.roughen(hops, rng, *chosen)
        offset = (rng.normal(0.0, by.channel_db, self.RIPPLES) @ self.ripples).astype(np.float32) @ self.to_cepstra
        offset[0] += rng.normal(0.0, by.level_db) * DB
        hops = hops + offset
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

    @staticmethod
    def ring(power: np.ndarray, keep: np.float32) -> np.ndarray:
        """What is left after each hop of all the hops before it, `keep` of it from hop to hop."""
        left = np.zeros_like(power)
        for hop in range(1, len(power)):
            left[hop] = keep * left[hop - 1] + power[hop - 1]
        return left

    def roughen(
        self, hops: np.ndarray, rng: np.random.Generator, noise: bool, room: bool, telephone: bool, hot: bool
    ) -> np.ndarray:
        """Noise, a room, a telephone, and what the causal reference makes of the outcome."""
        power = np.exp(hops @ self.to_bands * NEPERS_PER_DB)
        if room:
            power = self.in_room(power, rng.uniform(0.2, 0.8), rng.uniform(-2.0, 7.0))
        if noise:
            tilt = -rng.uniform(-0.5, 4.5) * OCTAVES_FROM_500_HZ + rng.normal(0.0, 1.5, self.RIPPLES) @ self.ripples
            # Power of a band of noise is distributed exponentially; a band's filter averages some of that out.
            flutter = 0.4 + 0.6 * rng.standard_exponential(power.shape, dtype=np.float32)
            power = with_noise(power, tilt, rng.uniform(*self.strength.snr_db), flutter)
        if telephone:
            power = on_the_telephone(power, rng.uniform(200.0, 350.0), rng.uniform(3300.0, 3800.0), rng.uniform(30.0, 42.0))
        bands = np.log(power + LEAST_POWER) / NEPERS_PER_DB
        return relative(bands, rng.uniform(-3.0, 8.0) if hot else None) @ self.to_cepstra

    def in_room(self, power: np.ndarray, rt60_s: float, direct_to_reverberant_db: float) -> np.ndarray:
        keep = np.float32(10.0 ** (-6.0 * HOP_SECONDS / rt60_s))
        share = np.float32((1.0 - keep) * 10.0 ** (-direct_to_reverberant_db / 10.0))
        return power + share * self.ring(power, keep)


def with_noise(power: np.ndarray, tilt_db: np.ndarray, snr_db: float, flutter: np.ndarray) -> np.ndarray:
    """Noise of the spectrum `tilt_db` [128] added to `power` [hops, 128], `snr_db` below the speech in it."""
    widths = cepstra.BAND_WIDTHS_HZ.astype(np.float32)
    spectrum = np.exp(tilt_db * NEPERS_PER_DB).astype(np.float32)
    total = power @ widths
    speech = total[total >= total.max() * np.float32(10.0 ** (-ACTIVE_RANGE_DB / 10.0))].mean()
    level = speech * np.float32(10.0 ** (-snr_db / 10.0)) / (spectrum @ widths)
    return power + level * spectrum * flutter


def on_the_telephone(power: np.ndarray, low_hz: float, high_hz: float, quantisation_db: float) -> np.ndarray:
    """`power` [hops, 128] through a fourth-order high-pass, a steep low-pass and mu-law at 8 kHz.

    A resampled 8 kHz line has nothing at all above 4 kHz; mu-law's noise follows the level of the speech.
    """
    hz, widths = cepstra.BAND_CENTRES_HZ, cepstra.BAND_WIDTHS_HZ
    gain = 1.0 / (1.0 + (low_hz / np.maximum(hz, 1.0)) ** 8) / (1.0 + (hz / (high_hz + 100.0)) ** 60)
    passed = power * gain.astype(np.float32)
    noise = passed @ widths.astype(np.float32) * np.float32(10.0 ** (-quantisation_db / 10.0) / TELEPHONE_TOP_HZ)
    return (passed + noise[:, None]) * (hz < TELEPHONE_TOP_HZ).astype(np.float32)


def relative(bands: np.ndarray, hot_db: float | None = None) -> np.ndarray:
    """`bands` in dB [hops, 128] against the front end's causal reference, down to its floor.

    `hot_db`: the reference starts where speech so many dB louder than the loudest here left it.
    """
    ramp = DECAY_DB_PER_HOP * np.arange(len(bands), dtype=np.float32)
    loudest = bands.max(1)
    reference = np.maximum.accumulate(loudest + ramp) - ramp
    if hot_db is not None:
        reference = np.maximum(reference, loudest.max() + np.float32(hot_db) - ramp)
    return np.maximum(bands - reference[:, None], FLOOR_DB)
