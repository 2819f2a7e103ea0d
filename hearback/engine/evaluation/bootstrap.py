"""Bootstrap errors and intervals over groups of rows, such as the rows of one speaker."""

import math
from collections.abc import Callable

import numpy as np

N_BOOTSTRAPS = 2000
MIN_GROUPS = 5  # for an interval: resamples of fewer are too alike, those of one are all equal
NONE = (math.nan, math.nan)
_SAMPLES_AT_ONCE = 50  # bounds the memory for tens of thousands of groups


def bootstrap_standard_error(
    values: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> float:
    """Return the standard error of the mean of `values`, (rows,), resampling whole `groups`."""
    return float(np.std(_bootstrap_means(values, groups, rng), ddof=1))


def bootstrap_interval(
    values: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % percentiles of the mean of `values`, resampling whole `groups`.

    The percentile interval (Efron & Tibshirani 1993, chapter 13). NaN below `MIN_GROUPS` groups.
    """
    return percentile_interval(_bootstrap_means(values, groups, rng), len(np.unique(groups)))


def percentile_interval(samples: np.ndarray, n_groups: int) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % percentiles of bootstrap `samples` of groups, (samples,).

    NaN below `MIN_GROUPS` groups.
    """
    if n_groups < MIN_GROUPS:
        return NONE
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def show_interval(low: float, high: float, numbers: str = ".4f") -> str:
    """Return an interval such as "[0.1982, 0.2268]", or "[–]" for NaN: there is none."""
    return "[–]" if math.isnan(low) else f"[{low:{numbers}}, {high:{numbers}}]"


def _bootstrap_means(
    values: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the mean in each of `N_BOOTSTRAPS` resamples of whole `groups`."""
    _, codes = np.unique(groups, return_inverse=True)
    totals = np.stack([np.bincount(codes, weights=values), np.bincount(codes)], axis=1)
    return bootstrap(totals, lambda total: total[0] / total[1], rng)


def bootstrap(
    totals: np.ndarray, statistic: Callable[[np.ndarray], float], rng: np.random.Generator
) -> np.ndarray:
    """Return a statistic in each of `N_BOOTSTRAPS` resamples of whole groups, (samples,).

    `totals`, (groups, ...), are sums over the rows of each group. `statistic` maps their sum over
    the resampled groups, (...), to a number. Groups are resampled whole because the rows of a group
    are not independent. Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 6.
    """
    n_groups, *shape = totals.shape
    flat = totals.reshape(n_groups, -1).astype(float)
    samples = np.empty(N_BOOTSTRAPS)
    # One sample at a time: all at once would take gigabytes for 38,000 groups.
    for i in range(N_BOOTSTRAPS):
        drawn = rng.integers(n_groups, size=n_groups)
        counts = np.bincount(drawn, minlength=n_groups).astype(float)
        samples[i] = statistic((counts @ flat).reshape(shape))
    return samples


def bootstrap_auc_interval(
    labels: np.ndarray, predictions: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % percentiles of the area under the ROC curve, resampling groups.

    All are (rows,). Resamples of one class are left out. NaN if the rows of one class are of fewer
    than `MIN_GROUPS` groups.
    """
    _, codes = np.unique(groups, return_inverse=True)
    _, ranks = np.unique(predictions, return_inverse=True)
    positive = np.asarray(labels) > 0.5
    fewest = min(len(np.unique(codes[rows])) for rows in (positive, ~positive))
    if fewest < MIN_GROUPS:
        return NONE
    n_groups, areas = int(codes.max()) + 1, []
    for _ in range(N_BOOTSTRAPS):
        counts = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)[codes]
        # By rank; rows of equal predictions count by half (Mann-Whitney).
        right = np.bincount(ranks, weights=counts * positive)
        wrong = np.bincount(ranks, weights=counts * ~positive)
        n_pairs = right.sum() * wrong.sum()
        if n_pairs:
            areas.append(float(right @ (np.cumsum(wrong) - wrong / 2)) / n_pairs)
    return percentile_interval(np.array(areas), fewest)


def bootstrap_mean_intervals(
    values: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the percentile intervals of the means of many columns, (columns, 2).

    `values` is (rows, columns), with NaN for rows that do not belong to a column. All columns share
    their resamples of whole `groups`, (rows,), which are those of `bootstrap_interval`. NaN for a
    column with rows of fewer than `MIN_GROUPS` groups.
    """
    _, codes = np.unique(groups, return_inverse=True)
    known = ~np.isnan(values)
    n_groups, n_columns = int(codes.max()) + 1, values.shape[1]
    sums, counts = np.zeros((n_groups, n_columns)), np.zeros((n_groups, n_columns))
    np.add.at(sums, codes, np.where(known, values, 0.0))
    np.add.at(counts, codes, known)
    totals = np.concatenate([sums, counts], axis=1)
    means = np.empty((N_BOOTSTRAPS, n_columns))
    for first in range(0, N_BOOTSTRAPS, _SAMPLES_AT_ONCE):
        drawn = np.stack(
            [
                np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
                for _ in range(_SAMPLES_AT_ONCE)
            ]
        )
        numerators, denominators = np.split(drawn @ totals, 2, axis=1)
        # A resample may lack all rows of a column.
        means[first : first + _SAMPLES_AT_ONCE] = np.divide(
            numerators,
            denominators,
            out=np.full_like(numerators, np.nan),
            where=denominators > 0,
        )
    enough = (counts > 0).sum(axis=0) >= MIN_GROUPS
    intervals = np.full((n_columns, 2), np.nan)
    if enough.any():
        intervals[enough] = np.nanpercentile(means[:, enough], [2.5, 97.5], axis=0).T
    return intervals
