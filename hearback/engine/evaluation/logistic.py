"""Log-odds, and logistic regression with a normal prior."""

import numpy as np

from hearback.engine.evaluation.newton import Hessian, minimise, scaled_gram

PROBABILITY_MARGIN = 1e-7  # probabilities are clipped to this distance from 0 and 1
SMALLEST_PROBABILITY = 1e-9  # where these can be smaller than the margin; its odds are finite


def logit(predictions: np.ndarray, margin: float = PROBABILITY_MARGIN) -> np.ndarray:
    """Return the log-odds of probabilities, clipped `margin` away from 0 and 1."""
    clipped = np.clip(np.asarray(predictions, float), margin, 1 - margin)
    return np.log(clipped) - np.log1p(-clipped)


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    prior_mean: np.ndarray,
    precision: np.ndarray,
    *,
    lower_bound: float | None = None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Fit a logistic regression to (rows, features); return its coefficients, (features,).

    `labels`, (rows,), are 0 or 1. The coefficients have a normal prior with mean `prior_mean`,
    (features,), and inverse covariance `precision`, (features, features); zeros are a flat prior.
    `lower_bound` applies to every coefficient. There is no intercept: add a column of ones. The
    problem is convex. The search begins at `start`, or else at `prior_mean`.
    """
    n_rows = len(labels)
    # (features, rows), negated for label 0: the margin of a row is then its signed log-odds.
    signed = features.T * np.where(labels > 0.5, 1.0, -1.0)
    precision = precision / n_rows

    def objective(coefficients: np.ndarray) -> tuple[float, np.ndarray, Hessian]:
        margins = coefficients @ signed
        distance = coefficients - prior_mean
        pull = precision @ distance
        # exp(-|margin|) does not overflow; loss, gradient and Hessian are all computed from it.
        small = np.exp(-np.abs(margins))
        losses = np.log1p(small) - np.minimum(margins, 0)
        slopes = np.where(margins > 0, small, 1.0) / (1 + small)

        def hessian() -> np.ndarray:
            return scaled_gram(signed, np.sqrt(small) / (1 + small)) / n_rows + precision

        value = float(losses.mean() + 0.5 * distance @ pull)
        return value, pull - signed @ slopes / n_rows, hessian

    return minimise(objective, prior_mean if start is None else start, lower_bound)
