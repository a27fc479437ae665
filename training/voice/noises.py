"""Synthetic sounds that are not speech, for training. Nothing here comes from a recording."""

import numpy as np
from scipy.signal import lfilter, sosfilt, butter

from frontend import RATE_HZ


def coloured(rng, n):
    """Gaussian noise with a random slope and a random smooth spectrum."""
    frequencies = np.fft.rfftfreq(n, 1 / RATE_HZ)
    slope = rng.uniform(-9, 3) if rng.random() < 0.8 else 0.0
    octaves = np.log2(np.maximum(frequencies, 40) / 1000)
    gain_db = slope * octaves
    knots = np.sort(rng.uniform(-4.5, 3, 6))
    gain_db = gain_db + np.interp(octaves, knots, rng.normal(0, rng.choice([0, 4, 10]), 6))
    spectrum = np.fft.rfft(rng.standard_normal(n)) * 10 ** (gain_db / 20)
    return np.fft.irfft(spectrum, n)


def envelope(rng, n, rate_hz, depth_db):
    """A slowly wandering gain."""
    knots = max(2, int(n / RATE_HZ * rate_hz) + 2)
    return 10 ** (np.interp(np.linspace(0, knots - 1, n), np.arange(knots), rng.normal(0, depth_db, knots)) / 20)


def modulated(rng, n):
    """Noise whose level wanders at up to syllable rate."""
    return coloured(rng, n) * envelope(rng, n, rng.choice([0.3, 1, 3, 8]), rng.uniform(2, 10))


def bursts(rng, n):
    """Separate bursts of noise: breath, cloth, doors, traffic."""
    out = coloured(rng, n) * 10 ** (-rng.uniform(15, 50) / 20)
    for _ in range(rng.integers(1, 16)):
        length = int(rng.uniform(0.03, 1.2) * RATE_HZ)
        start = rng.integers(0, n - length)
        t = np.linspace(0, 1, length)
        shape = np.sin(np.pi * t ** rng.uniform(0.3, 2)) ** rng.uniform(0.5, 3)
        out[start : start + length] += normal(coloured(rng, length)) * shape * 10 ** (rng.uniform(-20, 0) / 20)
    return out


def hum(rng, n):
    """Mains and motor hum with harmonics, drifting a little."""
    base = rng.choice([50, 60, 100, 120, rng.uniform(30, 350)])
    t = np.arange(n) / RATE_HZ
    drift = 1 + rng.choice([0, 0.002, 0.02]) * np.sin(2 * np.pi * rng.uniform(0.05, 1) * t)
    phase = 2 * np.pi * base * np.cumsum(drift) / RATE_HZ
    out = np.zeros(n)
    tilt = rng.uniform(0, 2)
    for k in range(1, rng.integers(2, 40)):
        if base * k < 7500:
            out += k**-tilt * rng.uniform(0.1, 1) * np.sin(k * phase + rng.uniform(0, 6))
    return out * envelope(rng, n, rng.choice([0.2, 1]), rng.uniform(0, 3)) + coloured(rng, n) * 10 ** (-rng.uniform(0, 50) / 20)


def tones(rng, n):
    """Beeps, key tones, rings, sirens."""
    out = np.zeros(n)
    t = np.arange(n) / RATE_HZ
    if rng.random() < 0.3:
        sweep = rng.uniform(300, 2500) * 2 ** (rng.uniform(0.2, 1) * np.sin(2 * np.pi * rng.uniform(0.1, 6) * t))
        out += np.sin(2 * np.pi * np.cumsum(sweep) / RATE_HZ) * (1 + 0.5 * np.sign(np.sin(2 * np.pi * rng.uniform(0.2, 2) * t)))
    on, off = rng.uniform(0.04, 1.5), rng.uniform(0.05, 3)
    partials = rng.integers(1, 5)
    fixed = rng.uniform(200, 3500, partials)
    changing = rng.random() < 0.5
    start = rng.uniform(0, 2)
    while start < n / RATE_HZ:
        a, b = int(start * RATE_HZ), min(n, int((start + on) * RATE_HZ))
        if changing:
            fixed = rng.uniform(200, 3500, partials)
        x = np.arange(b - a) / RATE_HZ
        fade = np.minimum(1, np.minimum(x, x[::-1]) / 0.004)
        decay = np.exp(-x * rng.choice([0, 3, 10]))
        for f in fixed:
            out[a:b] += np.sin(2 * np.pi * f * x) * fade * decay
        start += on + off * rng.uniform(0.5, 1.5 if changing else 1.0)
    return out + coloured(rng, n) * 10 ** (-rng.uniform(20, 60) / 20)


def impacts(rng, n):
    """Clicks, keys, knocks, dishes: decaying modes and decaying noise."""
    out = np.zeros(n)
    rate = rng.choice([1, 4, 12])
    for _ in range(rng.poisson(rate * n / RATE_HZ) + 1):
        length = int(rng.uniform(0.005, 0.4) * RATE_HZ)
        start = rng.integers(0, n - length)
        x = np.arange(length) / RATE_HZ
        decay = np.exp(-x * 5 * RATE_HZ / length)
        hit = normal(coloured(rng, max(length, 64)))[:length] * rng.uniform(0, 1)
        for _ in range(rng.integers(0, 6)):
            hit = hit + np.sin(2 * np.pi * rng.uniform(80, 6000) * x) * rng.uniform(0, 1)
        out[start : start + length] += hit * decay * 10 ** (rng.uniform(-25, 0) / 20)
    return out + coloured(rng, n) * 10 ** (-rng.uniform(25, 70) / 20)


def music(rng, n):
    """Chords, melodies and drums."""
    out = np.zeros(n)
    beat = rng.uniform(0.15, 0.8)
    root = rng.uniform(60, 260)
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 12, 16, 19])
    voices = rng.integers(1, 5)
    tilt = rng.uniform(0.5, 2.5)
    harmonics = rng.integers(1, 14)
    vibrato = rng.choice([0, 0.003, 0.01])
    start = 0.0
    while start < n / RATE_HZ:
        length = beat * rng.choice([1, 1, 2, 4])
        a, b = int(start * RATE_HZ), min(n, int((start + length * rng.uniform(0.7, 1.3)) * RATE_HZ))
        x = np.arange(b - a) / RATE_HZ
        shape = np.minimum(1, x / rng.choice([0.005, 0.05])) * np.exp(-x * rng.choice([0.3, 2, 6])) * np.minimum(1, x[::-1] / 0.02)
        for semitone in rng.choice(scale, voices):
            phase = 2 * np.pi * root * 2 ** (semitone / 12) * (x + vibrato * np.sin(2 * np.pi * 5.5 * x) / 5.5)
            for k in range(1, harmonics + 1):
                if root * k * 4 < 7500:
                    out[a:b] += k**-tilt * np.sin(k * phase) * shape
        start += length
    if rng.random() < 0.5:
        for a in np.arange(0, n - 4000, int(beat * RATE_HZ)):
            x = np.arange(4000) / RATE_HZ
            drum = np.sin(2 * np.pi * rng.uniform(50, 120) * x) if rng.random() < 0.5 else rng.standard_normal(4000)
            out[a : a + 4000] += drum * np.exp(-x * rng.uniform(15, 60)) * rng.uniform(0.5, 2)
    return out + coloured(rng, n) * 10 ** (-rng.uniform(20, 60) / 20)


def murmur(rng, n):
    """Many voices far away: pulse trains through slowly moving resonances, summed until none stands out."""
    out = np.zeros(n)
    for _ in range(rng.integers(7, 14)):
        pitch = rng.uniform(80, 260) * envelope(rng, n, 2, 1.5)
        pulses = np.diff(np.floor(np.cumsum(pitch) / RATE_HZ), prepend=0)
        voice = np.zeros(n)
        for low, high in ((250, 800), (800, 2300), (2300, 3500)):
            centre = rng.uniform(low, high)
            sos = butter(1, [centre * 0.85, centre * 1.15], "bandpass", fs=RATE_HZ, output="sos")
            voice += sosfilt(sos, pulses) * envelope(rng, n, 5, 6) * 500 / centre
        out += voice * envelope(rng, n, 4, 8)
    return normal(lfilter([1], [1, -0.5], out)) + normal(coloured(rng, n)) * 10 ** (-rng.uniform(0, 20) / 20)


def rumble(rng, n):
    """Wind and handling: strong, quickly changing noise below some hundred hertz."""
    sos = butter(2, rng.uniform(60, 500), fs=RATE_HZ, output="sos")
    return sosfilt(sos, rng.standard_normal(n)) * envelope(rng, n, rng.choice([1, 4, 10]), rng.uniform(4, 14)) + coloured(rng, n) * 10 ** (-rng.uniform(20, 50) / 20) * 0.1


def fan(rng, n):
    """A fan or an engine: filtered noise with blade tones and their beat."""
    t = np.arange(n) / RATE_HZ
    beat = 1 + rng.uniform(0, 0.7) * np.sin(2 * np.pi * rng.uniform(1, 40) * t)
    return normal(coloured(rng, n)) * beat + normal(hum(rng, n)) * rng.uniform(0, 1)


KINDS = [(coloured, 4), (modulated, 3), (bursts, 4), (hum, 2), (tones, 3), (impacts, 3), (music, 4), (murmur, 1), (rumble, 1), (fan, 2)]


def normal(x):
    """Scaled to an RMS of 1."""
    return x / (np.sqrt(np.mean(np.square(x))) + 1e-12)


def make(rng, seconds):
    """One noise of `seconds`, RMS 1, often of two kinds and with jumps in level."""
    n = int(seconds * RATE_HZ)
    weights = np.array([w for _, w in KINDS], float)
    chosen = rng.choice(len(KINDS), size=1 + (rng.random() < 0.35), p=weights / weights.sum())
    out = np.zeros(n)
    for k in chosen:
        out += normal(KINDS[k][0](rng, n)) * 10 ** (rng.uniform(-15, 0) / 20)
    if rng.random() < 0.2:
        for _ in range(rng.integers(1, 5)):
            a = rng.integers(0, n)
            out[a : a + int(rng.uniform(0.5, 6) * RATE_HZ)] *= 10 ** (rng.uniform(-30, 10) / 20)
    if rng.random() < 0.1:
        a = rng.integers(0, n)
        out[a : a + int(rng.uniform(0.2, 3) * RATE_HZ)] = 0
    return normal(out).astype(np.float32)
