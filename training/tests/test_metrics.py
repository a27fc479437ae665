"""Against values worked out by hand."""

import numpy as np
import pytest

from undertone_training import metrics

TRUTH = np.array([0, 0, 0, 0, 1, 1])
# Class 0: three of four right; class 1: one of two. Class 2 never occurs, and is guessed once.
GUESS = np.array([0, 0, 0, 2, 1, 0])


def logits_of(guess: np.ndarray, confidence: float) -> np.ndarray:
    probabilities = np.full((len(guess), 3), (1 - confidence) / 2)
    probabilities[np.arange(len(guess)), guess] = confidence
    return np.log(probabilities)


def test_recalls_accuracy_and_f1():
    figures = metrics.figures(TRUTH, logits_of(GUESS, 0.8))
    assert figures["ua"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert figures["wa"] == pytest.approx(4 / 6)
    # F1 of class 0: 2*3 / (4 said + 4 true); of class 1: 2*1 / (1 + 2).
    assert figures["macro_f1"] == pytest.approx((6 / 8 + 2 / 3) / 2)


def test_loss_and_calibration_error():
    figures = metrics.figures(TRUTH, logits_of(GUESS, 0.8))
    assert figures["nll"] == pytest.approx(-(4 * np.log(0.8) + 2 * np.log(0.1)) / 6)
    assert figures["ece"] == pytest.approx(0.8 - 4 / 6)


def test_a_label_that_is_ruled_out_is_never_chosen():
    logits = np.array([[0.0, 5.0, 1.0]])
    assert metrics.restricted(logits, [0, 2]).argmax() == 2


def test_temperature_undoes_a_known_overconfidence():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((20000, 4)) * 2
    chances = metrics.softmax(logits).cumsum(1)
    truth = np.minimum((rng.random((20000, 1)) > chances).sum(1), 3)
    assert metrics.best_temperature(truth, logits * 2.5) == pytest.approx(2.5, rel=0.05)
