"""Out-of-fold tables: how good the trained folds are, and which of them stand out."""

from collections.abc import Callable

import numpy as np

N_BOOTSTRAPS = 2000


def bootstrap_standard_error(
    values: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> float:
    """Return the standard error of the mean of `values`, (rows,), resampling whole `groups`."""
    return float(np.std(_bootstrap_means(values, groups, rng), ddof=1))


def bootstrap_interval(
    values: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % percentiles of the mean of `values`, resampling whole `groups`.

    The percentile interval (Efron & Tibshirani 1993, chapter 13).
    """
    return percentile_interval(_bootstrap_means(values, groups, rng))


def percentile_interval(draws: np.ndarray) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % percentiles of a bootstrap's `draws`."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _bootstrap_means(
    values: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the means of `N_BOOTSTRAPS` draws of whole `groups`."""
    _, codes = np.unique(groups, return_inverse=True)
    totals = np.stack([np.bincount(codes, weights=values), np.bincount(codes)], axis=1)
    return bootstrap(totals, lambda total: total[0] / total[1], rng)


def bootstrap(
    totals: np.ndarray, statistic: Callable[[np.ndarray], float], rng: np.random.Generator
) -> np.ndarray:
    """Return a statistic of `N_BOOTSTRAPS` draws of whole groups.

    `totals`, (groups, ...), are each group's sums over its rows of whatever the statistic is made
    of; it is given their sum over the groups drawn. Efron & Tibshirani, "An Introduction to the
    Bootstrap", 1993, chapter 6; groups are drawn whole, for the rows of one speaker go together.
    """
    n_groups, *shape = totals.shape
    flat = totals.reshape(n_groups, -1).astype(float)
    values = np.empty(N_BOOTSTRAPS)
    for place in range(N_BOOTSTRAPS):  # all draws at once would be gigabytes for 38,000 groups
        drawn = rng.integers(n_groups, size=n_groups)
        times = np.bincount(drawn, minlength=n_groups).astype(float)
        values[place] = statistic((times @ flat).reshape(shape))
    return values
