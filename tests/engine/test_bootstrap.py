"""Bootstrap errors and intervals: analytic figures for independent rows, and whole groups."""

import numpy as np
import pytest

from hearback.engine.evaluation import bootstrap
from hearback.engine.evaluation.metrics import area_under_curve


def standard_error(values: np.ndarray, groups: np.ndarray) -> float:
    return bootstrap.bootstrap_standard_error(values, groups, np.random.default_rng(0))


def test_the_error_of_independent_rows_is_the_analytic_one() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    analytic = values.std(ddof=1) / np.sqrt(len(values))
    assert standard_error(values, np.arange(400)) == pytest.approx(analytic, rel=0.1)


def test_copies_within_a_group_do_not_lower_the_error() -> None:
    values = np.random.default_rng(1).normal(3, 2, 100)
    copies, names = np.repeat(values, 4), np.repeat([f"s{number}" for number in range(100)], 4)
    by_speaker = standard_error(copies, names)
    # Four copies of a row are one row; treated as independent, they would halve the error.
    assert by_speaker == pytest.approx(standard_error(values, np.arange(100)), rel=0.1)
    assert standard_error(copies, np.arange(400)) == pytest.approx(by_speaker / 2, rel=0.1)


def test_equal_rows_have_no_error_in_groups_of_any_size() -> None:
    groups = np.array([0, 1, 1, 2, 2, 2, 2])
    assert standard_error(np.full(7, 0.3), groups) == pytest.approx(0, abs=1e-12)


def test_whole_groups_are_resampled_for_totals_of_any_shape() -> None:
    rng = np.random.default_rng(0)
    values, groups = rng.normal(5, 1, 60), np.arange(60) // 3
    totals = np.stack([np.bincount(groups, values), np.bincount(groups)], axis=1)
    # The same totals with another shape.
    squares = totals.reshape(20, 1, 2)
    samples = bootstrap.bootstrap(squares, lambda t: t[0, 0] / t[0, 1], np.random.default_rng(1))
    interval = bootstrap.bootstrap_interval(values, groups, np.random.default_rng(1))
    assert bootstrap.percentile_interval(samples, 20) == pytest.approx(interval)
    of_groups = values.reshape(20, 3).mean(axis=1)
    assert samples.std() == pytest.approx(of_groups.std() / np.sqrt(20), rel=0.1)
    constant = bootstrap.bootstrap(squares, lambda t: t[0, 1], np.random.default_rng(1))
    assert set(constant) == {60.0}


def test_the_interval_of_independent_rows_is_the_analytic_one() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = bootstrap.bootstrap_interval(values, np.arange(400), np.random.default_rng(0))
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_the_interval_of_an_area_is_that_of_resampled_speakers() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 10).astype(str)
    labels = rng.integers(0, 2, 300).astype(float)
    predictions = np.round(labels + rng.normal(0, 1, 300), 1)  # with ties
    low, high = bootstrap.bootstrap_auc_interval(
        labels, predictions, groups, np.random.default_rng(1)
    )
    areas = []
    draws = np.random.default_rng(1)
    for _ in range(200):
        drawn = draws.integers(30, size=30)
        rows = np.concatenate([np.flatnonzero(groups == str(group)) for group in drawn])
        areas.append(area_under_curve(labels[rows], predictions[rows]))
    expected = np.percentile(areas, [2.5, 97.5])
    assert [low, high] == pytest.approx(expected.tolist(), abs=0.01)
    one_class = bootstrap.bootstrap_auc_interval(np.ones(300), predictions, groups, rng)
    assert np.isnan(one_class).all()


@pytest.mark.parametrize("n_groups", [1, 2, 4])
def test_few_groups_have_no_interval(n_groups: int) -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.uniform(size=40), np.arange(40) % 2
    few, enough = np.arange(40) // 2 % n_groups, np.arange(40) // 2 % 5
    assert np.isnan(bootstrap.bootstrap_interval(values, few, rng)).all()
    assert np.isnan(bootstrap.bootstrap_auc_interval(labels, values, few, rng)).all()
    low, high = bootstrap.bootstrap_interval(values, enough, rng)
    assert low < values.mean() < high
    low, high = bootstrap.bootstrap_auc_interval(labels, values, enough, rng)
    assert low < area_under_curve(labels, values) < high

    columns = np.stack([values, np.where(enough < n_groups, values, np.nan)], axis=1)
    intervals = bootstrap.bootstrap_mean_intervals(columns, enough, rng)
    assert np.isnan(intervals).tolist() == [[False, False], [True, True]]


def test_an_area_needs_several_groups_of_both_classes() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(60) % 12
    labels = (groups > 1).astype(float)  # two speakers have all the wrong ones
    assert np.isnan(
        bootstrap.bootstrap_auc_interval(labels, rng.uniform(size=60), groups, rng)
    ).all()


def test_an_interval_is_shown_where_there_is_one() -> None:
    assert bootstrap.show_interval(0.1, 0.25) == "[0.1000, 0.2500]"
    assert bootstrap.show_interval(0.1, 0.25, ".1%") == "[10.0%, 25.0%]"
    assert bootstrap.show_interval(*bootstrap.NONE) == "[–]"
