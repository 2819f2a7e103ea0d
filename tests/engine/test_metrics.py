"""Log loss, AUC and calibration metrics equal scikit-learn's, or figures computed by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from hearback.engine.evaluation import metrics


def test_row_log_loss_by_hand() -> None:
    scores, predictions = pd.Series([1.0, 0, 1, 0]), pd.Series([0.8, 0.8, 0.5, 0.1])
    expected = [-np.log(0.8), -np.log(0.2), np.log(2), -np.log(0.9)]
    np.testing.assert_allclose(metrics.row_log_loss(scores, predictions), expected)


def test_a_confident_mistake_has_a_finite_loss() -> None:
    scores, predictions = pd.Series([1.0, 0, 1, 0]), pd.Series([0.0, 1, 1, 0])
    losses = metrics.row_log_loss(scores, predictions)
    np.testing.assert_allclose(losses, [-np.log(1e-7)] * 2 + [0, 0], atol=2e-7)


@pytest.mark.parametrize("decimals", [1, 8])
def test_auc_equals_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 2, 200)
    predictions = (scores + rng.normal(0, 1, 200)).round(decimals)  # with one decimal, ties
    area = metrics.area_under_curve(scores, predictions)
    assert area == pytest.approx(roc_auc_score(scores, predictions))


@pytest.mark.parametrize("score", [0, 1])
def test_auc_of_one_class_is_nan(score: int) -> None:
    assert np.isnan(metrics.area_under_curve(np.full(3, score), np.array([0.1, 0.2, 0.3])))


def make_calibrated(n_rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, (rows,), and labels drawn from them, (rows,)."""
    rng = np.random.default_rng(0)
    predictions = 1 / (1 + np.exp(-rng.normal(0, 1.5, n_rows)))
    return predictions, (rng.random(n_rows) < predictions).astype(float)


def test_expected_calibration_error_by_hand() -> None:
    predictions, labels = make_calibrated()
    error = metrics.expected_calibration_error
    assert error(labels, predictions) < 0.015
    assert error(labels, np.clip(predictions - 0.2, 0, 1)) == pytest.approx(0.18, abs=0.03)
    assert error(labels, np.full(len(labels), 0.8)) == pytest.approx(0.8 - labels.mean())
    # Ten bins with errors of both signs, which do not cancel.
    steps = np.repeat(np.arange(10) / 10, 40)
    halves = np.tile([0.0, 1.0], 200)
    assert error(halves, steps) == pytest.approx(np.abs(np.arange(10) / 10 - 0.5).mean())
    shuffled = np.random.default_rng(0).permutation(400)
    assert error(halves[shuffled], steps[shuffled]) == pytest.approx(error(halves, steps))
    assert np.isnan(error(halves[:99], steps[:99]))


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, 0.0), (1.6, 0.7)])
def test_calibration_line_recovers_a_transformed_log_odds(slope: float, intercept: float) -> None:
    truth, labels = make_calibrated()
    logits = np.log(truth / (1 - truth))
    predictions = 1 / (1 + np.exp(-(logits - intercept) / slope))
    found = metrics.calibration_line(labels, predictions)
    np.testing.assert_allclose(found, (slope, intercept), atol=0.06)


@pytest.mark.parametrize("labels", [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0]])
def test_calibration_line_is_nan_for_one_class_or_separable_classes(labels: list[int]) -> None:
    predictions = np.array([0.1, 0.2, 0.3, 0.9])
    assert np.isnan(metrics.calibration_line(np.array(labels), predictions)).all()
