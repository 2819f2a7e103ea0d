"""Means with intervals from one bootstrap: those of a bootstrap of each alone."""

import numpy as np
import pytest

from hearback.engine.evaluation.bootstrap import bootstrap_interval
from hearback.engine.page.content import NO_ESTIMATE
from hearback.engine.page.estimates import MeanTable

SPEAKERS = np.repeat([f"s{number}" for number in range(12)], 5)
VALUES = np.random.default_rng(0).normal(2, 1, 60)


def estimate(*columns: tuple[str, np.ndarray, np.ndarray]) -> dict[object, object]:
    table = MeanTable(SPEAKERS)
    for key, values, rows in columns:
        table.add(key, values, rows)
    return {**table.estimate(np.random.default_rng(0))}


def test_the_interval_of_all_rows_is_that_of_bootstrap_interval() -> None:
    table = MeanTable(SPEAKERS)
    table.add("all", VALUES, np.full(60, True))
    table.add("other", VALUES, SPEAKERS == "s0")
    found = table.estimate(np.random.default_rng(0))["all"]
    assert found.value == pytest.approx(VALUES.mean())
    interval = bootstrap_interval(VALUES, SPEAKERS, np.random.default_rng(0))
    assert (found.low, found.high) == pytest.approx(interval)


def test_a_selection_is_estimated_from_its_own_rows() -> None:
    some = np.arange(60) < 30  # of the first six speakers
    table = MeanTable(SPEAKERS)
    table.add("some", VALUES, some)
    found = table.estimate(np.random.default_rng(0))["some"]
    assert found.value == pytest.approx(VALUES[:30].mean())
    # The mean of six speakers has about the deviation of its speakers' means.
    deviation = VALUES[:30].reshape(6, 5).mean(axis=1).std() / np.sqrt(6)
    assert found.low is not None and found.high is not None
    assert found.low == pytest.approx(found.value - 1.96 * deviation, abs=deviation)
    assert found.high == pytest.approx(found.value + 1.96 * deviation, abs=deviation)


def test_one_speaker_has_no_interval_and_no_row_no_estimate() -> None:
    found = estimate(
        ("one", VALUES, SPEAKERS == "s3"),
        ("none", VALUES, np.full(60, False)),
        ("counts", VALUES > 2, np.full(60, True)),
    )
    assert found["one"] == pytest.approx((VALUES[15:20].mean(), None, None))
    assert found["none"] == NO_ESTIMATE
    assert found["counts"][0] == pytest.approx((VALUES > 2).mean())  # type: ignore[index]
    assert estimate() == {}


def test_a_share_of_none_or_all_has_an_exact_interval() -> None:
    table = MeanTable(np.array(["a", "b", "c", "d", "e", "f", "f"]))
    table.add("none", np.zeros(7), np.full(7, True))
    table.add("all", np.ones(7), np.arange(7) < 5)
    found = table.estimate(np.random.default_rng(0))
    # Clopper-Pearson: nothing in n rows is at most 1 - 0.025 ** (1 / n).
    assert found["none"] == pytest.approx((0, 0, 1 - 0.025 ** (1 / 7)))
    assert found["all"] == pytest.approx((1, 0.025 ** (1 / 5), 1))


@pytest.mark.parametrize("clusters", ["aa", "aab", "abcd"])
def test_few_clusters_have_no_interval(clusters: str) -> None:
    table, n = MeanTable(np.array(list(clusters))), len(clusters)
    table.add("x", np.linspace(0.2, 0.4, n), np.full(n, True))
    table.add("none", np.zeros(n), np.full(n, True))
    found = table.estimate(np.random.default_rng(0))
    assert found["x"] == pytest.approx((0.3, None, None))
    assert found["none"] == pytest.approx((0, None, None))
