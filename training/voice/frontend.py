"""The front end and the detector's inputs, in numpy: the reference that `src/features/voice.rs` follows.

Everything works on a batch of lanes at once: arrays are [lane, hop, band].
"""

import librosa
import numpy as np

RATE_HZ = 16_000
FRAME = 1024
HOP = 256
MELS = 128
POOLS = 32
LAGS = 16
SCALARS = 8
INPUTS = POOLS * 2 + LAGS + SCALARS

# dB of one mel band. What 16-bit quantisation leaves behind (about -92 dB) lies below it, so that a
# digital silence, dithered or not, looks the same.
FLOOR_DB = -85.0
# How fast a band's noise floor may rise, in dB per hop (5 dB/s): slower than words come and go.
FLOOR_RISE_DB = 0.08
# Weight of the new frame in the smoothed bands that the noise floor follows.
SMOOTH = 0.4
# Weights of the new frame in the fast (~50 ms) and slow (~1.3 s) mean level.
FAST = 0.3
SLOW = 0.0125
# Fall of the running maximum of the mean level, in dB per hop (1 dB/s).
PEAK_FALL_DB = 0.016
# The bands below about 1 kHz lie 23.6 Hz apart, linearly (Slaney's scale): harmonics of a voice make
# an evenly spaced ripple there. The lags, in bands, span pitches of 71 to 425 Hz.
RIPPLE_FIRST = 3
RIPPLE_BANDS = 40
LAG_FIRST = 3

_WINDOW = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
_FILTERS = librosa.filters.mel(sr=RATE_HZ, n_fft=FRAME, n_mels=MELS)


def mel_power(audio):
    """Mel power [hops, 128] of one recording; frame i covers samples 256 i .. 256 i + 1024."""
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(audio, np.float32), FRAME)[::HOP]
    spectrum = np.fft.rfft(frames * _WINDOW.astype(np.float32), axis=1)
    return (np.abs(spectrum) ** 2).astype(np.float32) @ _FILTERS.T


def to_db(power):
    """Absolute dB as the service computes them."""
    return 10 * np.log10(np.maximum(power, 1e-10))


def inputs(mel_db):
    """The network's inputs [lane, hop, INPUTS] of absolute mel dB [lane, hop, 128]."""
    mel_db = np.maximum(np.asarray(mel_db, np.float32), FLOOR_DB)
    lanes, hops, _ = mel_db.shape
    pools = mel_db.reshape(lanes, hops, POOLS, MELS // POOLS).mean(3)
    level = pools.mean(2)
    floor, smooth, fast, slow, peak = _track(pools, level)
    snr = pools - floor
    ripple, correlation = _ripple(mel_db)
    scalars = np.stack(
        [
            (level - peak) / 20,
            snr.mean(2) / 10,
            (pools.max(2) - level) / 20,
            ripple / 10,
            correlation.max(2),
            (level - fast) / 10,
            (level - slow) / 20,
            np.abs(pools - smooth).mean(2) / 5,
        ],
        axis=2,
    )
    shape = (pools - level[:, :, None]) / 15
    return np.concatenate([shape, snr / 15, correlation, scalars], axis=2).astype(np.float32)


def _track(pools, level):
    """The causal trackers, as they stand after each hop (`smooth`, `fast`, `slow`: before it)."""
    lanes, hops, _ = pools.shape
    floors, smooths = np.empty_like(pools), np.empty_like(pools)
    levels = np.empty((3, lanes, hops), np.float32)
    floor, smooth = pools[:, 0].copy(), pools[:, 0].copy()
    fast, slow, peak = (level[:, 0].copy() for _ in range(3))
    for t in range(hops):
        smooths[:, t] = smooth
        levels[0, :, t], levels[1, :, t] = fast, slow
        smooth = smooth + SMOOTH * (pools[:, t] - smooth)
        floor = np.minimum(floor + FLOOR_RISE_DB, smooth)
        fast = fast + FAST * (level[:, t] - fast)
        slow = slow + SLOW * (level[:, t] - slow)
        peak = np.maximum(peak - PEAK_FALL_DB, level[:, t])
        floors[:, t] = floor
        levels[2, :, t] = peak
    return floors, smooths, levels[0], levels[1], levels[2]


def _ripple(mel_db):
    """RMS ripple in dB [lane, hop] and its normalised autocorrelation [lane, hop, LAGS]."""
    wide = LAG_FIRST + LAGS - 1
    # Detrended by the mean of seven bands, then zero behind the last band.
    low = mel_db[:, :, RIPPLE_FIRST - 3 : RIPPLE_FIRST + RIPPLE_BANDS + 3]
    total = np.cumsum(np.pad(low, ((0, 0), (0, 0), (1, 0))), axis=2, dtype=np.float64)
    mean = (total[:, :, 7:] - total[:, :, :-7]) / 7
    ripple = (low[:, :, 3:-3] - mean).astype(np.float32)
    power = (ripple**2).sum(2)
    padded = np.pad(ripple, ((0, 0), (0, 0), (0, wide)))
    correlation = np.stack(
        [
            (ripple * padded[:, :, lag : lag + RIPPLE_BANDS]).sum(2)
            for lag in range(LAG_FIRST, LAG_FIRST + LAGS)
        ],
        axis=2,
    )
    # 40 dB^2 over the 40 bands: a ripple of 1 dB rms and less fades out.
    correlation /= (power + RIPPLE_BANDS)[:, :, None]
    return np.sqrt(power / RIPPLE_BANDS), correlation
