"""Writes the vectors that hold `src/features/voice.rs` to this reference.

    python training/voice/golden.py --weights src/features/voice.weights --out tests/golden/voice_frames.npz

Synthetic sounds only. Frames are kept in steps of half a dB above -100 dB, one byte a band, and the
probabilities are those of the frames so rounded.
"""

import argparse

import numpy as np
from scipy.signal import lfilter

import frontend
import network

RATE = frontend.RATE_HZ


def resonance(x, hz, width_hz):
    r = np.exp(-np.pi * width_hz / RATE)
    return lfilter([1 - r], [1, -2 * r * np.cos(2 * np.pi * hz / RATE), r * r], x)


def syllables(rng):
    """Two seconds of vowels of a gliding voice with noise bursts between, after half a second of nothing."""
    parts = [np.zeros(RATE // 2)]
    for first, second in ((700, 1200), (300, 2200), (500, 900), (600, 1700), (350, 800), (700, 1100), (400, 2000)):
        n = int(0.2 * RATE)
        pitch = np.linspace(150, 105, n) * (1 + 0.01 * np.sin(np.arange(n) / 400))
        pulses = lfilter([1], [1, -0.95], np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0))
        vowel = sum(resonance(pulses, hz, 70 + hz / 20) for hz in (first, second, 2600, 3500))
        burst = 0.04 * rng.standard_normal(n // 3) * np.hanning(n // 3)
        parts += [np.diff(burst, prepend=0), vowel / np.abs(vowel).max() * np.hanning(n) ** 0.3 * 0.3, np.zeros(n // 4)]
    return np.concatenate(parts) + 1e-4 * rng.standard_normal(sum(map(len, parts)))


def sounds():
    rng = np.random.default_rng(99)
    t = np.arange(2 * RATE) / RATE
    return {
        "syllables": syllables(rng),
        "white": 0.1 * rng.standard_normal(2 * RATE),
        "hum": sum(0.1 / k * np.sin(2 * np.pi * 50 * k * t) for k in range(1, 12)) + 1e-3 * rng.standard_normal(len(t)),
        "silence": np.zeros(RATE),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    weights, out = network.tables(args.weights), {}
    for name, audio in sounds().items():
        db = frontend.to_db(frontend.mel_power(audio))
        frames = np.clip(np.round((db + 100) * 2), 0, 255).astype(np.uint8)
        out[f"{name}_frames"] = frames
        out[f"{name}_probability"] = network.probabilities(weights, frames[None].astype(np.float32) / 2 - 100)[0]
        p = out[f"{name}_probability"]
        print(f"{name}: {len(p)} hops, mean {p.mean():.3f}, max {p.max():.3f}, above 0.6 {np.mean(p > 0.6):.2f}")
    np.savez(args.out, **out)


if __name__ == "__main__":
    main()
