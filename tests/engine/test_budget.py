"""Models and folds within a time limit, and durations."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from hearback.engine.ensemble.budget import (
    MIN_GAIN,
    Costs,
    allocate_folds,
    choose_fallbacks,
    choose_models,
    parse_duration,
    plan_folds,
    plan_remaining,
    seconds_per_clip,
    show_duration,
)
from hearback.engine.ensemble.stacking import Groups, StackingData, fit_ensemble, mean_log_loss
from hearback.engine.errors import HearbackError
from tests.engine.toy_competition import ToyOutOfFold

FITTED = ("logits", "none")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("1h30m", 5400), ("90m", 5400), ("45s", 45), ("1.5h", 5400), ("5400", 5400)],
)
def test_durations_are_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "h", "2 hours", "-1h", "1h-3m", "30m1h", "nan", "1e3", "0s", "0h0m"]
)
def test_invalid_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="2h, 1h30m"):
        parse_duration(text)


def test_durations_are_formatted() -> None:
    assert [show_duration(s) for s in (0.4, 59.6, 7145, 36000)] == [
        "0:00:00",
        "0:01:00",
        "1:59:05",
        "10:00:00",
    ]


def make_table(*seconds: float | None) -> ToyOutOfFold:
    """Return a model with a fold per validation time, in seconds for 100 clips."""
    metadata_by_fold = {
        fold: {
            "n_validation": 100,
            "epochs": [{"epoch": 1} if s is None else {"epoch": 1, "validation_seconds": s}],
        }
        for fold, s in enumerate(seconds)
    }
    return ToyOutOfFold("model1m", len(seconds), pd.DataFrame(), metadata_by_fold)


def test_seconds_per_clip_are_the_median_of_the_validations() -> None:
    assert seconds_per_clip(make_table(50, 60, 900)) == pytest.approx(0.6)
    assert seconds_per_clip(make_table(None, 60)) == pytest.approx(0.6)
    assert seconds_per_clip(make_table(0.0)) == pytest.approx(1e-4)  # rounded times are not zero
    assert seconds_per_clip(make_table(None, None)) is None
    with pytest.raises(HearbackError, match="model1m: its metadata lacks the validation times"):
        Costs.of_models([make_table(60), make_table(None, None)], 10)


def test_costs_are_of_the_clips_and_the_trained_folds() -> None:
    costs = Costs.of_models([make_table(60), make_table(20, 20)], 10)
    assert costs.seconds == pytest.approx([6, 2])
    assert costs.n_folds.tolist() == [1, 2]


def make_data(qualities: list[float], n_rows: int = 1500, seed: int = 0) -> StackingData:
    """Return models of these qualities with independent errors."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n_rows).astype(float)
    sign = 2 * labels - 1
    logits = np.array(qualities)[:, None] * (sign + rng.normal(0, 1, (len(qualities), n_rows)))
    groups = Groups(np.arange(n_rows) // 10)
    return StackingData(expit(logits), labels, groups, np.full(n_rows, "3"))


def test_with_time_for_all_every_model_that_helps_is_chosen() -> None:
    data = make_data([1.0, 1.0, 0.0, 1.0])  # the third is always 0.5
    assert choose_models(data, np.ones(4), 100, *FITTED) == [0, 1, 3]


def test_a_copy_is_not_chosen() -> None:
    data = make_data([1.0, 1.0])
    copies = StackingData(
        np.concatenate([data.predictions, data.predictions[:1]]),
        data.labels,
        data.groups,
        data.calibration_groups,
    )
    assert choose_models(copies, np.array([3.0, 1.0, 2.0]), 100, *FITTED) == [1, 2]


def test_a_cheap_model_does_not_take_the_time_of_a_good_one() -> None:
    # The weak model gains more per second, but then the good one does not fit.
    data = make_data([0.0, 3.0])
    rng = np.random.default_rng(1)
    weak = expit(0.3 * (2 * data.labels - 1) + 0.8 * rng.normal(size=len(data.labels)))
    data.predictions[0] = weak
    assert choose_models(data, np.array([0.1, 10]), 10, *FITTED) == [1]
    assert choose_models(data, np.array([0.1, 10]), 9, *FITTED) == [0]


def test_an_expensive_model_does_not_take_the_time_of_several() -> None:
    # The first is the best alone; the other four together are better and take as long.
    data = make_data([1.0, 1.0, 1.0, 1.0, 1.0])
    better = data.predictions.copy()
    labels = data.labels
    better[0] = expit(1.3 * (2 * labels - 1) + np.random.default_rng(9).normal(0, 1, len(labels)))
    data = StackingData(better, labels, data.groups, data.calibration_groups)
    assert choose_models(data, np.array([4.0, 1, 1, 1, 1]), 4, *FITTED) == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(3))
def test_the_limit_is_kept_and_used_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = make_data(rng.uniform(0.2, 1.5, 5).tolist(), 200, seed)
    costs = Costs(seconds=rng.uniform(1, 10, 5), n_folds=rng.integers(1, 7, 5))
    for limit in (costs.seconds.min(), 12.0, 40.0, 1.001 * costs.total(costs.n_folds)):
        n_folds = plan_folds(data, costs, limit, *FITTED)
        assert 0 < costs.total(n_folds) <= limit * (1 + 1e-12)
        assert (n_folds <= costs.n_folds).all()
        left = limit - costs.total(n_folds)
        more = (n_folds > 0) & (n_folds < costs.n_folds)
        assert (costs.seconds[more] > left).all()
    assert (n_folds[n_folds > 0] == costs.n_folds[n_folds > 0]).all()  # time for all


def test_a_limit_too_short_for_any_model_is_an_error_with_the_shortest_time() -> None:
    costs = Costs(np.array([70.0, 90.0]), np.array([6, 6]))
    with pytest.raises(HearbackError, match=r"0:01:00: the fastest fold alone takes 0:01:10"):
        plan_folds(make_data([1.0, 1.0], 100), costs, 60, *FITTED)


def test_models_no_better_than_the_base_rate_are_an_error() -> None:
    costs = Costs(np.array([1.0]), np.array([6]))
    with pytest.raises(HearbackError, match="better than the base rate"):
        plan_folds(make_data([0.0]), costs, 60, *FITTED)
    assert MIN_GAIN > 0


def test_remaining_time_goes_to_folds_by_weight_and_seconds() -> None:
    six = np.full(3, 6)
    equal = Costs(np.ones(3), six)
    weights = np.array([0.5, 0.5, 0.0])
    assert allocate_folds(weights, equal.fold_seconds, 7).tolist() == [
        4,
        3,
        0,
    ]  # none without a weight
    # Twice the weight: as many folds of a model as make weight² / folds² equal.
    assert allocate_folds(np.array([0.8, 0.4, 0.0]), equal.fold_seconds, 9).tolist() == [6, 3, 0]
    # Four times the seconds count like half the weight.
    expensive = Costs(np.array([4.0, 1.0, 1.0]), six)
    assert allocate_folds(weights, expensive.fold_seconds, 18).tolist() == [3, 6, 0]
    assert allocate_folds(weights, expensive.fold_seconds, 1000).tolist() == [6, 6, 0]


def test_half_of_the_folds() -> None:
    costs = Costs(np.array([10.0, 1.0]), np.array([6, 5]))
    assert costs.half_of_the_folds.tolist() == [3, 3]
    assert costs.total(costs.half_of_the_folds) == 33


def with_noise(*deviations: float) -> StackingData:
    """Return models with noise of these standard deviations, independent of each other."""
    data, rng = make_data([1.0]), np.random.default_rng(3)
    sign = 2 * data.labels - 1
    noise = np.array(deviations)[:, None] * rng.normal(size=(len(deviations), len(sign)))
    return StackingData(expit(sign + noise), data.labels, data.groups, data.calibration_groups)


def test_fallbacks_are_single_models_and_the_steps_of_greedy_selection() -> None:
    data = with_noise(0.8, 1.6, 1.0)
    found = choose_fallbacks(data, np.array([10.0, 1.0, 5.0]), *FITTED)
    # By gain 0, 2, 1; by gain per second 1, 2, 0; all three are the ensemble itself.
    assert [subset.models for subset in found] == [(1,), (2,), (1, 2), (0,), (0, 2)]
    losses = [subset.log_loss for subset in found]
    assert losses == sorted(losses, reverse=True)
    for subset in found:
        some = data.only(subset.models)
        fitted = fit_ensemble(some, *FITTED)
        np.testing.assert_allclose(subset.ensemble.weights, fitted.weights)
        predicted = subset.ensemble.predict(some.predictions, some.calibration_groups)
        assert subset.log_loss == pytest.approx(mean_log_loss(some.labels, predicted))


def test_all_models_together_are_no_fallback() -> None:
    found = choose_fallbacks(with_noise(1.0, 2.0), np.ones(2), *FITTED)
    assert [subset.models for subset in found] == [(1,), (0,)]
    assert not choose_fallbacks(with_noise(1.0), np.ones(1), *FITTED)


BOTH, FIRST, SECOND = np.array([0.6, 0.4]), np.array([1.0, 0.0]), np.array([0.0, 1.0])
FALLBACKS = [(BOTH, 0.3), (SECOND, 0.5), (FIRST, 0.4)]


@pytest.mark.parametrize(
    ("folds", "left", "planned"),
    [
        ([[10.0] * 3, [5.0] * 2], 40, [3, 2]),  # all
        ([[10.0] * 3, [5.0] * 2], 39, [2, 2]),
        ([[10.0] * 3, [5.0] * 2], 16, [1, 1]),
        ([[10.0] * 3, [5.0] * 2], 14, [1, 0]),  # the best that fits
        ([[10.0] * 3, [5.0] * 2], 9, [0, 1]),
        ([[10.0] * 3, [5.0] * 2], 4, None),
        ([[0.0, 10.0, 10.0], [5.0] * 2], 6, [1, 1]),  # one fold is finished
        ([[0.0, 3.0, 10.0], [5.0] * 2], 9, [2, 1]),  # and another half finished
        ([[0.0, 0.0, 10.0], [5.0] * 2], 0, [2, 0]),
        ([[np.inf], [5.0] * 2], 1e9, [0, 2]),
    ],
)
def test_the_remaining_time_is_planned(
    folds: list[list[float]], left: float, planned: list[int] | None
) -> None:
    found = plan_remaining(FALLBACKS, folds, left)
    assert (None if found is None else found.tolist()) == planned
