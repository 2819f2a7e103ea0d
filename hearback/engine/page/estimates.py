"""Means of many selections of rows, with intervals from one bootstrap for all of them."""

from collections.abc import Hashable

import numpy as np

from hearback.engine.evaluation.bootstrap import bootstrap_mean_intervals
from hearback.engine.page.content import NO_ESTIMATE, Estimate


class MeanTable:
    """Collects means to estimate, by key, then estimates all of them at once.

    `clusters`, (rows,), are resampled whole: the speakers of recordings, or the recordings.
    """

    def __init__(self, clusters: np.ndarray) -> None:
        self._clusters = clusters
        self._columns: dict[Hashable, np.ndarray] = {}

    def add(self, key: Hashable, values: np.ndarray, rows: np.ndarray) -> None:
        """Add the mean of `values`, (rows,), over the selection `rows`, (rows,) bool."""
        self._columns[key] = np.where(rows, values.astype(float), np.nan)

    def estimate(self, rng: np.random.Generator) -> dict[Hashable, Estimate]:
        """Return the mean and its interval by key; empty estimates for empty selections."""
        found: dict[Hashable, Estimate] = dict.fromkeys(self._columns, NO_ESTIMATE)
        filled = {key: x for key, x in self._columns.items() if not np.isnan(x).all()}
        if not filled:
            return found
        columns = np.stack(list(filled.values()), axis=1)
        intervals = bootstrap_mean_intervals(columns, self._clusters, rng)
        for key, mean, interval in zip(
            filled, np.nanmean(columns, axis=0).tolist(), intervals.tolist(), strict=True
        ):
            low, high = (None if np.isnan(edge) else edge for edge in interval)
            if low is not None and low == high and mean in (0, 1):
                low, high = _exact_interval(mean, int(np.count_nonzero(~np.isnan(filled[key]))))
            found[key] = Estimate(mean, low, high)
        return found


def _exact_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of 0 or 1 in `n` rows, which a bootstrap cannot show.

    Clopper & Pearson 1934; as if the rows were independent.
    """
    edge = 0.025 ** (1 / n)
    return (0.0, 1 - edge) if share == 0 else (edge, 1.0)
