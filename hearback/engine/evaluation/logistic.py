"""Log-odds, and logistic regression with a normal prior."""

import numpy as np

from hearback.engine.evaluation.newton import Hessian, minimise, scaled_gram

PROBABILITY_MARGIN = 1e-7  # probabilities are kept this far from 0 and 1


def logit(predictions: np.ndarray) -> np.ndarray:
    """Return the log-odds of probabilities, kept `PROBABILITY_MARGIN` away from 0 and 1."""
    clipped = np.clip(np.asarray(predictions, float), PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    return np.log(clipped) - np.log1p(-clipped)


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    centre: np.ndarray,
    precision: np.ndarray,
    *,
    at_least: float | None = None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Return a logistic regression's coefficients, (features,), of (rows, features).

    They have a normal prior of that `centre`, (features,), and `precision`, (features, features),
    the inverse of its covariance; zeros are no prior. `at_least` bounds all of them from below.
    There is no intercept but a column of ones. The problem is convex; the search begins at `start`,
    or at `centre`, and a start nearby saves steps.
    """
    n_rows = len(labels)
    # (features, rows), and the rows' own signs in them: what is left is how far each row is right.
    signed = features.T * np.where(labels > 0.5, 1.0, -1.0)
    precision = precision / n_rows

    def objective(coefficients: np.ndarray) -> tuple[float, np.ndarray, Hessian]:
        margins = coefficients @ signed
        off = coefficients - centre
        pull = precision @ off
        # exp(-|margin|) cannot overflow: the loss, its slope and its curvature all come of it.
        small = np.exp(-np.abs(margins))
        losses = np.log1p(small) - np.minimum(margins, 0)
        slopes = np.where(margins > 0, small, 1.0) / (1 + small)

        def hessian() -> np.ndarray:
            return scaled_gram(signed, np.sqrt(small) / (1 + small)) / n_rows + precision

        return float(losses.mean() + 0.5 * off @ pull), pull - signed @ slopes / n_rows, hessian

    return minimise(objective, centre if start is None else start, at_least)
