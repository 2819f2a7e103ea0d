"""Log loss, AUC and calibration metrics of predictions, most of them of binary ones."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hearback.engine.evaluation.logistic import PROBABILITY_MARGIN, fit_logistic, logit

N_BINS = 10  # of equal mass, for the expected calibration error
MIN_ROWS_PER_BIN = 10


def is_probability(value: object) -> bool:
    """Return whether a value is a number from 0 to 1."""
    return isinstance(value, float | int) and 0 <= value <= 1


def row_log_loss(labels: pd.Series, predictions: pd.Series) -> pd.Series:
    """Return the log loss per row, (rows,), in nats; probabilities are clipped."""
    clipped = predictions.clip(PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    return -(labels * np.log(clipped) + (1 - labels) * np.log1p(-clipped))


def entropy(shares: Sequence[float]) -> float:
    """Return the log loss of always predicting the classes' `shares`, which sum to one, in nats."""
    there = np.array([share for share in shares if share > 0])
    return float(-(there * np.log(there)).sum())


def area_under_curve(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the area under the ROC curve, 0 to 1; NaN if there is only one class."""
    positive = np.asarray(labels) > 0.5
    if positive.all() or not positive.any():
        return float("nan")
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415  (--help needs none)

    return float(roc_auc_score(positive, predictions))


def expected_calibration_error(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the expected calibration error over `N_BINS` bins of equal mass, 0 to 1.

    Naeini, Cooper & Hauskrecht 2015, "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning". Rows with equal predictions share their mean label, so the result does not depend on
    row order. Chance alone makes it positive, more so with few rows: it is NaN below
    `MIN_ROWS_PER_BIN` rows per bin.
    """
    if len(labels) < N_BINS * MIN_ROWS_PER_BIN:
        return float("nan")
    shared = pd.Series(labels).groupby(np.asarray(predictions)).transform("mean").to_numpy()
    order = np.argsort(predictions, kind="stable")
    bins = np.array_split((shared - predictions)[order], N_BINS)
    return float(sum(abs(differences.sum()) for differences in bins) / len(labels))


def calibration_line(labels: np.ndarray, predictions: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of a logistic regression of labels on the predictions' log-odds.

    Cox 1958, "Two Further Applications of a Model for Binary Regression": (1, 0) is calibrated, a
    slope below 1 is overconfident, an intercept above 0 underestimates. Both are NaN if there is no
    finite maximum-likelihood line: only one class, or classes that the predictions separate.
    """
    logits, positive = logit(predictions), np.asarray(labels) > 0.5
    if positive.all() or not positive.any():
        return float("nan"), float("nan")
    is_separable = (
        logits[positive].min() >= logits[~positive].max()
        or logits[positive].max() <= logits[~positive].min()
    )
    if is_separable:
        return float("nan"), float("nan")
    features = np.stack([logits, np.ones_like(logits)], axis=1)
    slope, intercept = fit_logistic(
        features,
        positive.astype(float),
        prior_mean=np.array([1.0, 0.0]),
        precision=np.zeros((2, 2)),
    )
    return float(slope), float(intercept)
