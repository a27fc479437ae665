#!/usr/bin/env python3
"""Makes mfcc.npz, the golden vectors of the front end, with librosa in double precision.

    apt-get install espeak-ng
    python3 -m venv venv && venv/bin/pip install librosa==0.11.0
    venv/bin/python make_mfcc.py

Run it again only when the front end's definition changes; the vectors are kept, so that the test
needs neither Python nor espeak-ng. Everything that is heard in them was made here: six synthetic
signals and two sentences of espeak-ng (1.51 made the vectors that are kept).

For each signal NAME the archive has
    NAME.samples        int16 [n]             the input, 16 kHz mono, full scale 32768
    NAME.mel_db         float32 [frames, 128] power_to_db(melspectrogram, top_db=None)
    NAME.mfcc           float32 [frames, 40]  librosa.feature.mfcc of mel_db: absolute
    NAME.reference_db   float32 [frames]      the causal reference by its rule, in double precision
    NAME.relative_mfcc  float32 [frames, 40]  the same transform of the relative, floored log-mel
    NAME.floored        uint8 [frames]        1 where any band is 80 dB or more below the reference
"""

import pathlib
import subprocess
import tempfile

import librosa
import numpy as np
import scipy.fft
import scipy.io.wavfile
import scipy.signal

LIBROSA = "0.11.0"
RATE = 16_000
FRONT_END = dict(sr=RATE, n_fft=1024, hop_length=256, n_mels=128, center=False, dtype=np.float64)

# The causal reference; src/features/reference.rs has the rule in words.
LOWEST_REFERENCE_DB = -40.0
DECAY_DB_PER_HOP = 1.0 * 256 / RATE
RANGE_DB = 80.0

SENTENCES = {
    "sentence_calm": ["-v", "en-gb", "-s", "160", "Kids are talking by the door."],
    "sentence_high": ["-v", "en-us+f3", "-s", "190", "-p", "80", "I wonder what this is about!"],
}


def synthetic() -> dict[str, np.ndarray]:
    """Six signals in [-1, 1] with known difficulties."""
    random = np.random.default_rng(1)
    seconds = lambda s: np.arange(int(s * RATE)) / RATE
    chirp = 0.8 * scipy.signal.chirp(seconds(1.2), 60, 1.2, 7_800, method="logarithmic")
    t = seconds(1.0)
    am_tone = 0.5 * (1 + 0.9 * np.sin(2 * np.pi * 4 * t)) * np.sin(2 * np.pi * 440 * t)
    impulses = np.zeros(RATE)
    impulses[[700, 4_000, 4_300, 9_999, 15_000]] = [0.9, -0.5, 0.25, 1.0, -1.0]
    # A glottal pulse train at a gliding pitch through the formants of /a/, with a little breath.
    t = seconds(1.4)
    phase = np.cumsum(110 + 60 * np.sin(2 * np.pi * 1.3 * t)) / RATE
    vowel = np.diff(np.floor(phase), prepend=0) + 0.003 * random.standard_normal(t.size)
    for formant_hz, width_hz in [(730, 90), (1_090, 110), (2_440, 170), (3_500, 250)]:
        radius = np.exp(-np.pi * width_hz / RATE)
        angle = 2 * np.pi * formant_hz / RATE
        vowel = scipy.signal.lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], vowel)
    return {
        "chirp": chirp,
        "noise": 0.2 * random.standard_normal(RATE).clip(-4, 4),
        "am_tone": am_tone,
        "impulses": impulses,
        "quiet_noise": 10 ** (-70 / 20) * random.standard_normal(RATE),
        "vowel": 0.5 * vowel / np.abs(vowel).max(),
    }


def spoken(arguments: list[str]) -> np.ndarray:
    """A sentence of espeak-ng, brought from 22.05 to 16 kHz."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as wav:
        subprocess.run(["espeak-ng", "-w", wav.name, *arguments], check=True)
        rate, samples = scipy.io.wavfile.read(wav.name)
    return scipy.signal.resample_poly(samples / 32_768, RATE, rate)


def quantised(signal: np.ndarray) -> np.ndarray:
    return np.round(signal * 32_768).clip(-32_768, 32_767).astype(np.int16)


def causal_reference(mel_db: np.ndarray) -> np.ndarray:
    """The rule as a recursion, one value per frame."""
    reference = LOWEST_REFERENCE_DB
    out = []
    for loudest in mel_db.max(axis=1):
        reference = max(loudest, reference - DECAY_DB_PER_HOP, LOWEST_REFERENCE_DB)
        out.append(reference)
    return np.array(out)


def golden(samples: np.ndarray) -> dict[str, np.ndarray]:
    y = samples.astype(np.float64) / 32_768
    power = librosa.feature.melspectrogram(y=y, **FRONT_END)
    mel_db = librosa.power_to_db(power, top_db=None)
    # Transposed for good: .npy keeps the order in memory, and readers outside numpy need not.
    mfcc = np.ascontiguousarray(librosa.feature.mfcc(S=mel_db, n_mfcc=40).T)
    if np.ptp(mel_db) < RANGE_DB:
        # Where librosa's own floor, 80 dB below the clip's maximum, does not act: the one call.
        one_call = librosa.feature.mfcc(y=y, n_mfcc=40, **FRONT_END).T
        assert np.abs(mfcc - one_call).max() < 1e-9
    mel_db = np.ascontiguousarray(mel_db.T)
    reference_db = causal_reference(mel_db)
    floor_db = (reference_db - RANGE_DB)[:, None]
    relative = np.maximum(mel_db, floor_db) - reference_db[:, None]
    relative_mfcc = scipy.fft.dct(relative, axis=1, type=2, norm="ortho")[:, :40]
    return {
        "samples": samples,
        "mel_db": mel_db.astype(np.float32),
        "mfcc": mfcc.astype(np.float32),
        "reference_db": reference_db.astype(np.float32),
        "relative_mfcc": relative_mfcc.astype(np.float32),
        "floored": (mel_db <= floor_db).any(axis=1).astype(np.uint8),
    }


def main() -> None:
    if librosa.__version__ != LIBROSA:
        raise SystemExit(f"the vectors are of librosa {LIBROSA}, this is {librosa.__version__}")
    signals = synthetic() | {name: spoken(words) for name, words in SENTENCES.items()}
    arrays = {}
    for name, signal in signals.items():
        vectors = golden(quantised(signal))
        arrays |= {f"{name}.{key}": value for key, value in vectors.items()}
        frames, floored = vectors["floored"].size, vectors["floored"].sum()
        print(f"{name}: {frames} frames, {floored} with bands under the floor")
    file = pathlib.Path(__file__).with_name("mfcc.npz")
    np.savez_compressed(file, **arrays)
    print(f"{file.name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
