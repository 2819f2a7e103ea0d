"""Models and folds within a time limit, and durations."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from hearback.engine.ensemble.budget import (
    LEAST_GAIN,
    Costs,
    choose_fallbacks,
    choose_models,
    parse_duration,
    plan_folds,
    plan_rest,
    seconds_per_clip,
    share_out,
    show_duration,
)
from hearback.engine.ensemble.stacking import Evidence, Groups, fit_mixture, mean_log_loss
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.oof import OutOfFold

FITTED = ("logits", "none")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("1h30m", 5400), ("90m", 5400), ("45s", 45), ("1.5h", 5400), ("5400", 5400)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "h", "2 hours", "-1h", "1h-3m", "30m1h", "nan", "1e3"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="2h, 1h30m"):
        parse_duration(text)


def test_durations_are_shown() -> None:
    assert [show_duration(s) for s in (0.4, 59.6, 7145, 36000)] == [
        "0:00:00",
        "0:01:00",
        "1:59:05",
        "10:00:00",
    ]


def make_table(*seconds: float | None) -> OutOfFold:
    """Return a model of a fold for each of the validations' seconds, 100 clips each."""
    metadata_by_fold = {
        fold: {
            "n_validation": 100,
            "epochs": [{"epoch": 1} if s is None else {"epoch": 1, "validation_seconds": s}],
        }
        for fold, s in enumerate(seconds)
    }
    return OutOfFold("model1m", len(seconds), pd.DataFrame(), metadata_by_fold)


def test_seconds_per_clip_are_the_median_of_the_validations() -> None:
    assert seconds_per_clip(make_table(50, 60, 900)) == pytest.approx(0.6)
    assert seconds_per_clip(make_table(None, 60)) == pytest.approx(0.6)
    assert seconds_per_clip(make_table(0.0)) > 0  # rounded
    with pytest.raises(HearbackError, match="model1m: its folds do not say"):
        seconds_per_clip(make_table(None, None))


def make_evidence(qualities: list[float], n_rows: int = 1500, seed: int = 0) -> Evidence:
    """Return models with independent errors, the better the higher their quality."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n_rows).astype(float)
    sign = 2 * labels - 1
    logits = np.array(qualities)[:, None] * (sign + rng.normal(0, 1, (len(qualities), n_rows)))
    groups = Groups(np.arange(n_rows) // 10)
    return Evidence(expit(logits), labels, groups, np.full(n_rows, "3"))


def test_with_time_for_all_every_model_that_helps_is_chosen() -> None:
    evidence = make_evidence([1.0, 1.0, 0.0, 1.0])  # the third knows nothing: always 0.5
    assert choose_models(evidence, np.ones(4), 100, *FITTED) == [0, 1, 3]


def test_a_copy_is_not_worth_its_time() -> None:
    evidence = make_evidence([1.0, 1.0])
    copies = Evidence(
        np.concatenate([evidence.predictions, evidence.predictions[:1]]),
        evidence.labels,
        evidence.groups,
        evidence.calibration_groups,
    )
    assert choose_models(copies, np.array([3.0, 1.0, 2.0]), 100, *FITTED) == [1, 2]


def test_a_cheap_model_does_not_take_the_time_of_a_good_one() -> None:
    # The weak one gains more per second, and after it the good one no longer fits.
    evidence = make_evidence([0.0, 3.0])
    rng = np.random.default_rng(1)
    weak = expit(0.3 * (2 * evidence.labels - 1) + 0.8 * rng.normal(size=len(evidence.labels)))
    evidence.predictions[0] = weak
    assert choose_models(evidence, np.array([0.1, 10]), 10, *FITTED) == [1]
    assert choose_models(evidence, np.array([0.1, 10]), 9, *FITTED) == [0]


def test_a_dear_model_does_not_take_the_time_of_several() -> None:
    # The first is the best alone; the four others together are better and take as long.
    evidence = make_evidence([1.0, 1.0, 1.0, 1.0, 1.0])
    better = evidence.predictions.copy()
    labels = evidence.labels
    better[0] = expit(1.3 * (2 * labels - 1) + np.random.default_rng(9).normal(0, 1, len(labels)))
    evidence = Evidence(better, labels, evidence.groups, evidence.calibration_groups)
    assert choose_models(evidence, np.array([4.0, 1, 1, 1, 1]), 4, *FITTED) == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(3))
def test_the_limit_is_kept_and_what_is_left_is_too_short_for_another_fold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    evidence = make_evidence(rng.uniform(0.2, 1.5, 5).tolist(), 200, seed)
    costs = Costs(seconds=rng.uniform(1, 10, 5), n_folds=rng.integers(1, 7, 5))
    for limit in (costs.seconds.min(), 12.0, 40.0, 1.001 * costs.total(costs.n_folds)):
        n_folds = plan_folds(evidence, costs, limit, *FITTED)
        assert 0 < costs.total(n_folds) <= limit * (1 + 1e-12)
        assert (n_folds <= costs.n_folds).all()
        left = limit - costs.total(n_folds)
        more = (n_folds > 0) & (n_folds < costs.n_folds)
        assert (costs.seconds[more] > left).all()
    assert (n_folds[n_folds > 0] == costs.n_folds[n_folds > 0]).all()  # time for everything


def test_a_limit_too_short_for_any_model_is_an_error_that_says_how_long_one_takes() -> None:
    costs = Costs(np.array([70.0, 90.0]), np.array([6, 6]))
    with pytest.raises(HearbackError, match=r"0:01:00: the fastest fold alone takes 0:01:10"):
        plan_folds(make_evidence([1.0, 1.0], 100), costs, 60, *FITTED)


def test_models_that_know_nothing_are_no_plan() -> None:
    costs = Costs(np.array([1.0]), np.array([6]))
    with pytest.raises(HearbackError, match="better than the base rate"):
        plan_folds(make_evidence([0.0]), costs, 60, *FITTED)
    assert LEAST_GAIN > 0


def test_the_time_left_goes_to_folds_by_weight_and_seconds() -> None:
    six = np.full(3, 6)
    alike = Costs(np.ones(3), six)
    weights = np.array([0.5, 0.5, 0.0])
    assert share_out(weights, alike.folds, 7).tolist() == [4, 3, 0]  # never one without a weight
    # Twice the weight: as many folds of a model as make weight² / folds² equal.
    assert share_out(np.array([0.8, 0.4, 0.0]), alike.folds, 9).tolist() == [6, 3, 0]
    # Four times the seconds count like half the weight.
    dear = Costs(np.array([4.0, 1.0, 1.0]), six)
    assert share_out(weights, dear.folds, 18).tolist() == [3, 6, 0]
    assert share_out(weights, dear.folds, 1000).tolist() == [6, 6, 0]


def test_half_of_the_folds() -> None:
    costs = Costs(np.array([10.0, 1.0]), np.array([6, 5]))
    assert costs.half_of_the_folds.tolist() == [3, 3]
    assert costs.total(costs.half_of_the_folds) == 33


def with_noise(*deviations: float) -> Evidence:
    """Return models that are the better the less noise they have, with independent errors."""
    evidence, rng = make_evidence([1.0]), np.random.default_rng(3)
    sign = 2 * evidence.labels - 1
    noise = np.array(deviations)[:, None] * rng.normal(size=(len(deviations), len(sign)))
    return Evidence(
        expit(sign + noise), evidence.labels, evidence.groups, evidence.calibration_groups
    )


def test_fallbacks_are_each_model_alone_and_what_comes_of_taking_one_after_the_other() -> None:
    evidence = with_noise(0.8, 1.6, 1.0)
    found = choose_fallbacks(evidence, np.array([10.0, 1.0, 5.0]), *FITTED)
    # By gain 0, 2, 1; by gain per second 1, 2, 0; all three are the ensemble itself.
    assert [choice.models for choice in found] == [(1,), (2,), (1, 2), (0,), (0, 2)]
    losses = [choice.log_loss for choice in found]
    assert losses == sorted(losses, reverse=True)
    for choice in found:
        some = evidence.only(choice.models)
        fitted = fit_mixture(some, *FITTED)
        np.testing.assert_allclose(choice.mixture.weights, fitted.weights)
        predicted = choice.mixture.predict(some.predictions, some.calibration_groups)
        assert choice.log_loss == pytest.approx(mean_log_loss(some.labels, predicted))


def test_all_models_together_are_no_fallback() -> None:
    found = choose_fallbacks(with_noise(1.0, 2.0), np.ones(2), *FITTED)
    assert [choice.models for choice in found] == [(1,), (0,)]
    assert not choose_fallbacks(with_noise(1.0), np.ones(1), *FITTED)


BOTH, FIRST, SECOND = np.array([0.6, 0.4]), np.array([1.0, 0.0]), np.array([0.0, 1.0])
FALLBACKS = [(BOTH, 0.3), (SECOND, 0.5), (FIRST, 0.4)]


@pytest.mark.parametrize(
    ("folds", "left", "planned"),
    [
        ([[10.0] * 3, [5.0] * 2], 40, [3, 2]),  # all
        ([[10.0] * 3, [5.0] * 2], 39, [2, 2]),
        ([[10.0] * 3, [5.0] * 2], 16, [1, 1]),
        ([[10.0] * 3, [5.0] * 2], 14, [1, 0]),  # the better of those that fit
        ([[10.0] * 3, [5.0] * 2], 9, [0, 1]),
        ([[10.0] * 3, [5.0] * 2], 4, None),
        ([[0.0, 10.0, 10.0], [5.0] * 2], 6, [1, 1]),  # a fold has been run
        ([[0.0, 3.0, 10.0], [5.0] * 2], 9, [2, 1]),  # and another is half done
        ([[0.0, 0.0, 10.0], [5.0] * 2], 0, [2, 0]),
        ([[np.inf], [5.0] * 2], 1e9, [0, 2]),
    ],
)
def test_the_rest_of_the_time_is_planned_by_what_has_been_run(
    folds: list[list[float]], left: float, planned: list[int] | None
) -> None:
    found = plan_rest(FALLBACKS, folds, left)
    assert (None if found is None else found.tolist()) == planned
