"""Figures of one set of predictions. UA is unweighted average recall (balanced accuracy), WA plain accuracy."""

from __future__ import annotations

import numpy as np

CALIBRATION_BINS = 15


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def restricted(logits: np.ndarray, classes: list[int]) -> np.ndarray:
    """Logits with all classes but `classes` ruled out."""
    kept = np.full_like(logits, -1e9)
    kept[..., classes] = logits[..., classes]
    return kept


def confusion(truth: np.ndarray, guess: np.ndarray, classes: int) -> np.ndarray:
    """Counts [truth, guess]."""
    return np.bincount(truth * classes + guess, minlength=classes * classes).reshape(classes, classes)


def macro_f1(counts: np.ndarray) -> float:
    """Mean F1 over the classes that occur in the truth."""
    hits = np.diag(counts).astype(float)
    occurring = counts.sum(1) > 0
    f1 = 2 * hits / np.maximum(counts.sum(0) + counts.sum(1), 1)
    return float(f1[occurring].mean())


def calibration_error(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error of the top class, equal-width bins of confidence."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == truth
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    error = 0.0
    for index in range(CALIBRATION_BINS):
        inside = bins == index
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(error)


def nll(truth: np.ndarray, logits: np.ndarray) -> float:
    """Mean cross-entropy in nats."""
    return float(-np.log(np.maximum(softmax(logits)[np.arange(len(truth)), truth], 1e-12)).mean())


def figures(truth: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """All figures of (already tempered) `logits`."""
    counts = confusion(truth, logits.argmax(1), logits.shape[1])
    occurring = counts.sum(1) > 0
    recalls = np.diag(counts)[occurring] / counts.sum(1)[occurring]
    return {
        "clips": int(len(truth)),
        "ua": float(recalls.mean()),
        "wa": float(np.diag(counts).sum() / counts.sum()),
        "macro_f1": macro_f1(counts),
        "nll": nll(truth, logits),
        "ece": calibration_error(truth, softmax(logits)),
    }


def best_temperature(truth: np.ndarray, logits: np.ndarray) -> float:
    """The temperature that minimises cross-entropy, by golden-section search on its logarithm (it is unimodal)."""
    low, high = np.log(0.2), np.log(5.0)
    ratio = (np.sqrt(5.0) - 1.0) / 2.0
    cost = lambda at: nll(truth, logits / np.exp(at))
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = cost(left), cost(right)
    while high - low > 1e-3:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = cost(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = cost(right)
    return float(np.exp((low + high) / 2.0))
