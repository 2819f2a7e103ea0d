"""Out-of-fold tables: how good the trained folds are, and which of them stand out."""

import numpy as np
import pandas as pd

from hearback.engine.evaluation.logistic import PROBABILITY_MARGIN, fit_logistic, logit

N_BINS = 10  # of equal mass, for the expected calibration error
FEWEST_ROWS_OF_A_BIN = 10


def row_log_loss(scores: pd.Series, predictions: pd.Series) -> pd.Series:
    """Return each row's log loss, in nats; probabilities are kept a little away from 0 and 1."""
    clipped = predictions.clip(PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    return -(scores * np.log(clipped) + (1 - scores) * np.log1p(-clipped))


def area_under_curve(scores: np.ndarray, predictions: np.ndarray) -> float:
    """Return the probability that a 1 is ranked above a 0 (ties half); NaN with one class only."""
    ranks = pd.Series(predictions).rank().to_numpy()
    positives = np.asarray(scores) > 0.5
    n_positives, n_negatives = positives.sum(), (~positives).sum()
    if not n_positives or not n_negatives:
        return float("nan")
    wins = ranks[positives].sum() - n_positives * (n_positives + 1) / 2
    return float(wins / (n_positives * n_negatives))


def expected_calibration_error(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the mean distance of prediction and label in `N_BINS` bins of equal mass.

    Naeini, Cooper & Hauskrecht 2015, "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning". Rows of equal predictions share their mean label, so that their order does not matter.
    Chance alone makes it larger than zero, the more the fewer the rows: NaN below
    `FEWEST_ROWS_OF_A_BIN` rows to a bin.
    """
    if len(labels) < N_BINS * FEWEST_ROWS_OF_A_BIN:
        return float("nan")
    shared = pd.Series(labels).groupby(np.asarray(predictions)).transform("mean").to_numpy()
    order = np.argsort(predictions, kind="stable")
    bins = np.array_split((shared - predictions)[order], N_BINS)
    return float(sum(abs(differences.sum()) for differences in bins) / len(labels))


def calibration_line(labels: np.ndarray, predictions: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the labels' log-odds over the predictions' log-odds.

    Cox 1958, "Two Further Applications of a Model for Binary Regression": (1, 0) is calibrated; a
    slope below 1 is too certain, an intercept above 0 says yes too seldom. NaN where no finite line
    is the most likely: the labels are all the same, or the predictions part them.
    """
    logits, positive = logit(predictions), np.asarray(labels) > 0.5
    if positive.all() or not positive.any():
        return float("nan"), float("nan")
    parted = (
        logits[positive].min() >= logits[~positive].max()
        or logits[positive].max() <= logits[~positive].min()
    )
    if parted:
        return float("nan"), float("nan")
    features = np.stack([logits, np.ones_like(logits)], axis=1)
    slope, intercept = fit_logistic(
        features, positive.astype(float), centre=np.array([1.0, 0.0]), precision=np.zeros((2, 2))
    )
    return float(slope), float(intercept)
