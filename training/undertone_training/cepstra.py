"""The front end's scales, as matrices: what is done on log-mel bands, done on cepstra."""

from __future__ import annotations

import numpy as np

MEL_BANDS = 128
TOP_HZ = 8000.0


def slaney_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp((mel - 15.0) * np.log(6.4) / 27.0))


def slaney_mel(hz: np.ndarray) -> np.ndarray:
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, 15.0 + np.log(np.maximum(hz, 1.0) / 1000.0) * 27.0 / np.log(6.4))


CORNERS_MEL = np.linspace(0.0, float(slaney_mel(np.array(TOP_HZ))), MEL_BANDS + 2)
BAND_CENTRES_MEL = CORNERS_MEL[1:-1]
BAND_CENTRES_HZ = slaney_hz(BAND_CENTRES_MEL)
# The filters have area 1 over frequency, so a band's power is a density, and times its width the power in it.
BAND_WIDTHS_HZ = (slaney_hz(CORNERS_MEL[2:]) - slaney_hz(CORNERS_MEL[:-2])) / 2.0


def dct(coefficients: int, bands: int = MEL_BANDS) -> np.ndarray:
    """The front end's orthonormal DCT-II, its first rows, [coefficients, bands]: bands -> cepstra for column vectors.

    Its transpose takes cepstra back to (smooth) bands.
    """
    band = (np.arange(bands) + 0.5) * np.pi / bands
    matrix = np.cos(np.arange(coefficients)[:, None] * band) * np.sqrt(2.0 / bands)
    matrix[0] /= np.sqrt(2.0)
    return matrix


def below(top_hz: float, coefficients: int, kept: int) -> np.ndarray:
    """The matrix [coefficients, kept] from cepstra to the lowest cepstra of the bands below `top_hz` alone, for row
    vectors. At `TOP_HZ` it picks the first ones."""
    bands = dct(coefficients)[:, BAND_CENTRES_HZ < top_hz]
    return (bands @ dct(kept, bands.shape[1]).T).astype(np.float32)


def warp(factor: float, coefficients: int) -> np.ndarray:
    """The matrix [coefficients, coefficients] that moves what is at f Hz to `factor` * f Hz, for row vectors of
    cepstra: another length of the vocal tract, and another pitch."""
    source = np.interp(slaney_mel(BAND_CENTRES_HZ / factor), BAND_CENTRES_MEL, np.arange(MEL_BANDS))
    low = np.clip(source.astype(int), 0, MEL_BANDS - 2)
    share = source - low
    bands = np.zeros((MEL_BANDS, MEL_BANDS))
    rows = np.arange(MEL_BANDS)
    bands[rows, low] = 1.0 - share
    bands[rows, low + 1] += share
    transform = dct(coefficients)
    return (transform @ bands @ transform.T).T.astype(np.float32)
