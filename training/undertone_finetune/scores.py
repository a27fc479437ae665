"""Figures of predictions. UA is unweighted average recall (balanced accuracy), WA plain accuracy, NLL mean
cross-entropy in nats."""

from __future__ import annotations

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def nll(truth: np.ndarray, logits: np.ndarray) -> float:
    return float(-log_softmax(logits)[np.arange(len(truth)), truth].mean())


def figures(truth: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Of tempered `logits` [clips, labels]; UA is over the labels that occur in the truth."""
    right = logits.argmax(1) == truth
    recalls = [right[truth == label].mean() for label in np.unique(truth)]
    return {"clips": len(truth), "ua": float(np.mean(recalls)), "wa": float(right.mean()), "nll": nll(truth, logits)}


def per_corpus(corpus: np.ndarray, truth: np.ndarray, logits: np.ndarray) -> dict[str, dict[str, float]]:
    return {str(name): figures(truth[corpus == name], logits[corpus == name]) for name in np.unique(corpus)}


def temperature(truth: np.ndarray, logits: np.ndarray) -> float:
    """What to divide logits by for the least cross-entropy, between 0.2 and 5: the best of a fine grid, since it is
    computed once and must not fail on odd predictions."""
    grid = np.geomspace(0.2, 5.0, 161)
    return float(grid[np.argmin([nll(truth, logits / one) for one in grid])])
