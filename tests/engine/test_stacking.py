"""The fit of weights, and the cross-fitted score."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, softmax
from sklearn.metrics import log_loss

from hearback.engine.ensemble.calibration import KINDS, fit_calibration
from hearback.engine.ensemble.stacking import (
    COMBINATIONS,
    TOLERANCE,
    Groups,
    StackingData,
    WeightedEnsemble,
    combine_predictions,
    compare_combinations,
    cross_fit,
    fit_ensemble,
    fit_logit_weights,
    fit_probability_weights,
    log_loss_without,
    mean_log_loss,
    score_ensemble,
)
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.logistic import fit_logistic, logit


def make_models(n_models: int, n_rows: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, (models, rows), of unequal models, and labels, (rows,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n_rows).astype(float)
    quality = rng.uniform(0.3, 2, (n_models, 1))
    logits = quality * (2 * labels - 1) + rng.normal(0, 1.5, (n_models, n_rows))
    return 1 / (1 + np.exp(-logits)), labels


@pytest.mark.parametrize("seed", range(3))
def test_weights_of_two_models_equal_a_fine_grid_search(seed: int) -> None:
    predictions, labels = make_models(2, seed=seed)
    grid = np.linspace(0, 1, 2001)
    losses = [mean_log_loss(labels, w * predictions[0] + (1 - w) * predictions[1]) for w in grid]
    weights = fit_probability_weights(predictions, labels)
    assert weights[0] == pytest.approx(grid[np.argmin(losses)], abs=2e-3)
    assert mean_log_loss(labels, weights @ predictions) <= min(losses) + 1e-7


@pytest.mark.parametrize("seed", range(3))
def test_weights_of_four_models_equal_another_optimiser(seed: int) -> None:
    predictions, labels = make_models(4, seed=seed)
    other = minimize(
        lambda weights: mean_log_loss(labels, weights @ predictions),
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    weights = fit_probability_weights(predictions, labels)
    # Weights differ more than their losses near the optimum.
    np.testing.assert_allclose(weights, other.x, atol=5e-3)
    assert mean_log_loss(labels, weights @ predictions) == pytest.approx(other.fun, abs=2e-7)


@pytest.mark.parametrize("n_models", [1, 2, 3, 6, 10])
def test_weights_are_shares_and_no_worse_than_the_plain_mean_or_the_best_model(
    n_models: int,
) -> None:
    predictions, labels = make_models(n_models, n_rows=100, seed=n_models)
    weights = fit_probability_weights(predictions, labels)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    fitted = mean_log_loss(labels, weights @ predictions)
    alone = [mean_log_loss(labels, model) for model in predictions]
    assert fitted <= min(*alone, mean_log_loss(labels, predictions.mean(axis=0))) + 1e-7


def test_a_model_that_only_hurts_gets_no_weight() -> None:
    (better,), labels = make_models(1)
    worse = np.where(labels > 0.5, 0.8 * better, 1 - 0.8 * (1 - better))  # of every row
    weights = fit_probability_weights(np.stack([worse, better]), labels)
    np.testing.assert_allclose(weights, [0, 1], atol=1e-6)


def test_a_confident_mistake_has_a_finite_cost() -> None:
    labels = np.array([1.0, 0.0, 1.0, 0.0])
    predictions = np.array([[0.0, 0.0, 1.0, 0.0], [0.6, 0.4, 0.6, 0.4]])
    assert mean_log_loss(labels, predictions[0]) == pytest.approx(-np.log(1e-7) / 4, rel=1e-5)
    weights = fit_probability_weights(predictions, labels)
    assert np.isfinite(mean_log_loss(labels, weights @ predictions))
    assert 0 < weights[1] < 1


DIFFICULT = ("plain", "copies", "one far better", "reversed", "constants", "certain", "noise")
GRID = np.linspace(0, 1, 101)


def make_difficult(kind: str, n_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return six models that are difficult to fit, (6, rows), and labels of both kinds, (rows,)."""
    predictions, labels = make_models(6, n_rows, seed)
    labels[:2] = 0, 1
    rng = np.random.default_rng(seed)
    sign = 2 * labels - 1
    if kind == "copies":
        predictions[3:] = predictions[:3]
    elif kind == "one far better":
        predictions[2] = expit(9 * sign + rng.normal(0, 4, n_rows))
    elif kind == "reversed":
        predictions[3:] = 1 - predictions[:3]
    elif kind == "constants":
        predictions[2:] = rng.uniform(0, 1, (4, 1))
        predictions[5] = 0.5
    elif kind == "certain":  # every mistake costs 16 nats
        predictions = np.round(predictions)
    elif kind == "noise":
        predictions = expit(rng.normal(0, 4, predictions.shape))
    return predictions, labels


def search_grid(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the weights of a coordinate search over a grid, for comparison."""
    weights = np.full(len(predictions), 1 / len(predictions))
    best, before = mean_log_loss(labels, weights @ predictions), np.inf
    while best < before:
        before = best
        for model in range(len(weights)):
            others = np.delete(weights, model)
            if not others.any():
                continue
            shares = others / others.sum()
            candidates = np.insert(np.outer(1 - GRID, shares), model, GRID, axis=1)
            losses = [mean_log_loss(labels, combined) for combined in candidates @ predictions]
            if min(losses) < best:
                best, weights = min(losses), candidates[int(np.argmin(losses))]
    return weights


@pytest.mark.parametrize("kind", DIFFICULT)
@pytest.mark.parametrize("n_rows", [2, 7, 40, 400])
def test_weights_are_optimal_and_no_worse_than_a_grid_search(kind: str, n_rows: int) -> None:
    for seed in range(4):
        predictions, labels = make_difficult(kind, n_rows, seed)
        weights = fit_probability_weights(predictions, labels)
        assert (weights >= 0).all() and weights.sum() == pytest.approx(1, abs=1e-12)
        found = mean_log_loss(labels, weights @ predictions)
        by_grid = search_grid(predictions, labels)
        assert found <= mean_log_loss(labels, by_grid @ predictions) + TOLERANCE
        # Lindsay's bound, computed from the probabilities.
        clipped = np.clip(predictions, 1e-7, 1 - 1e-7)
        likelihoods = np.where(labels > 0.5, clipped, 1 - clipped)
        ratios = (likelihoods / (weights @ likelihoods)).mean(axis=1)
        assert ratios.max() - 1 < TOLERANCE
        # No random mixture is better.
        others = np.random.default_rng(seed).dirichlet(np.full(6, 0.3), 50) @ predictions
        assert found <= min(mean_log_loss(labels, other) for other in others) + TOLERANCE


@pytest.mark.parametrize("kind", DIFFICULT)
@pytest.mark.parametrize("n_rows", [2, 7, 40, 400])
def test_logit_weights_of_difficult_models_are_finite(kind: str, n_rows: int) -> None:
    for seed in range(3):
        predictions, labels = make_difficult(kind, n_rows, seed)
        groups = Groups(np.arange(n_rows) // 2)
        weights = fit_logit_weights(predictions, labels, groups)
        assert np.isfinite(weights).all() and (weights >= 0).all()
        if kind == "copies":  # copies get equal weights
            np.testing.assert_allclose(weights[:3], weights[3:], atol=1e-4)


def test_a_model_that_helps_in_one_row_keeps_its_weight() -> None:
    # The first model is better in all rows but one, to which it gives probability zero.
    labels = np.ones(2000)
    predictions = np.stack([np.full(2000, 0.9), np.full(2000, 0.5)])
    predictions[0, 0] = 0
    weights = fit_probability_weights(predictions, labels)
    assert 2e-4 < weights[1] < 2e-3
    without = mean_log_loss(labels, predictions[0])
    assert mean_log_loss(labels, weights @ predictions) < without - 3e-3


def test_groups_are_kept_whole_and_every_row_is_held_out_once() -> None:
    names = np.array(["b", "a", "c", "a", "b", "d"])
    groups = Groups.from_names(names)
    assert groups.cross_fits is groups.cross_fits  # cached
    for splits in (groups.cross_fits, groups.inner_splits):
        held_out = np.concatenate([split.held_out for split in splits])
        assert sorted(held_out) == list(range(6))
        for split in splits:
            assert not set(names[split.fitted]) & set(names[split.held_out])
            np.testing.assert_array_equal(split.groups.codes, groups.codes[split.fitted])
    assert Groups.from_names(np.array(["a", "a"])).cross_fits == ()


def make_data(n_models: int = 3, n_rows: int = 120, n_groups: int = 30) -> StackingData:
    predictions, labels = make_models(n_models, n_rows)
    rng = np.random.default_rng(1)
    groups = Groups(rng.integers(0, n_groups, n_rows))
    return StackingData(predictions, labels, groups, rng.choice(["KG and 1", "2 and 3"], n_rows))


def make_stack(
    slopes: Sequence[float], n_rows: int = 4000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return models whose log-odds times `slopes` sum to the truth's, and labels drawn with it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (len(slopes), n_rows))
    labels = (rng.random(n_rows) < expit(np.array(slopes) @ logits)).astype(float)
    return expit(logits), labels


@pytest.mark.parametrize("slopes", [(1.0, 0.6, 0.3), (0.5, 0.5), (1.8, 0.0, 0.4), (0.3,)])
def test_logit_weights_recover_the_true_ones(slopes: tuple[float, ...]) -> None:
    predictions, labels = make_stack(slopes)
    weights = fit_logit_weights(predictions, labels, Groups(np.arange(len(labels)) // 10))
    np.testing.assert_allclose(weights, slopes, atol=0.12)


def test_logit_weights_are_non_negative_and_zero_for_a_harmful_model() -> None:
    predictions, labels = make_stack((1.0, -0.8, 0.5))
    groups = Groups(np.arange(len(labels)) // 10)
    weights = fit_logit_weights(predictions, labels, groups)
    assert weights[1] == 0
    np.testing.assert_allclose(weights[[0, 2]], [0.8, 0.4], atol=0.15)
    reversed_weights = fit_logit_weights(1 - predictions[:1], labels, groups)
    assert reversed_weights.tolist() == [0]


def test_with_few_rows_weights_of_equal_models_stay_equal() -> None:
    # Differences of ten noisy copies in 60 rows are chance, and fitting them costs on new rows.
    lost = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, 2060).astype(float)
        logits = 1.2 * (2 * labels - 1) + rng.normal(0, 1, 2060) + rng.normal(0, 0.6, (10, 2060))
        seen, new = np.arange(60), np.arange(60, 2060)
        shrunk = fit_logit_weights(expit(logits[:, seen]), labels[seen], Groups(seen))
        free = fit_logistic(
            logits[:, seen].T, labels[seen], np.full(10, 0.1), np.zeros((10, 10)), lower_bound=0
        )
        losses = [
            mean_log_loss(labels[new], expit(weights @ logits[:, new]))
            for weights in (shrunk, free)
        ]
        lost.append(losses[1] - losses[0])
    assert np.mean(lost) > 0.02


@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("kind", ["none", "isotonic", "platt_by_group"])
def test_scores_equal_scikit_learn(combine: str, kind: str) -> None:
    data = make_data()
    scores = score_ensemble(data, combine, kind)
    predictions, labels = data.predictions, data.labels
    for loss, prediction in (
        *zip(scores.alone, predictions, strict=True),
        (scores.plain_mean, predictions.mean(axis=0)),
        (scores.fitted, scores.ensemble.predict(predictions, data.calibration_groups)),
        (scores.cross_fitted, scores.cross_fitted_predictions),
    ):
        assert loss == pytest.approx(log_loss(labels, prediction))
    assert scores.fitted < scores.cross_fitted
    assert compare_combinations(data)[combine][kind] == scores.cross_fitted


def test_an_ensemble_sums_probabilities_or_log_odds_and_calibrates_the_sum() -> None:
    data = make_data()
    predictions, labels, names = data.predictions, data.labels, data.calibration_groups
    weights = fit_probability_weights(predictions, labels)
    combined = weights @ predictions
    ensemble = fit_ensemble(data, "probabilities", "platt")
    np.testing.assert_array_equal(ensemble.weights, weights)
    expected = fit_calibration("platt", combined, labels, names).apply(combined, names)
    np.testing.assert_array_equal(ensemble.predict(predictions, names), expected)

    weights = np.array([0.5, 0.0, 1.5])
    summed = WeightedEnsemble("logits", weights).predict(predictions, names)
    np.testing.assert_allclose(logit(summed), weights @ logit(predictions))


@pytest.mark.parametrize("n_groups", [2, 5, 30])
@pytest.mark.parametrize("combine", COMBINATIONS)
def test_the_labels_of_a_group_do_not_change_its_cross_fitted_predictions(
    combine: str, n_groups: int
) -> None:
    data = make_data(n_groups=n_groups)
    before = cross_fit(data, combine, KINDS)
    for group in range(0, n_groups, 10):
        own = data.groups.codes == group
        flipped = replace(data, labels=np.where(own, 1 - data.labels, data.labels))
        after = cross_fit(flipped, combine, KINDS)
        for kind in KINDS:
            np.testing.assert_array_equal(after[kind][own], before[kind][own])
            assert (after[kind][~own] != before[kind][~own]).any()


def test_models_that_memorise_one_group_do_not_score_well() -> None:
    n_groups, n_rows = 5, 100
    groups = np.arange(n_rows) % n_groups
    labels = np.arange(n_rows) // n_groups % 2.0
    truth = np.where(groups == np.arange(n_groups)[:, None], 0.99, 0.45)  # (models, rows)
    predictions = np.where(labels > 0.5, truth, 1 - truth)
    data = StackingData(predictions, labels, Groups(groups), np.full(n_rows, "2 and 3"))
    scores = score_ensemble(data, "probabilities", "none")
    np.testing.assert_allclose(scores.ensemble.weights, 1 / n_groups, atol=1e-3)
    # The other groups show nothing of a group: its rows get the predictions of all other models.
    assert scores.cross_fitted == pytest.approx(-np.log(0.45), abs=1e-2)
    assert scores.fitted < -np.log(0.55)


@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_not_better_than_the_base_rate(combine: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    labels = (np.arange(600) % 10 < 3).astype(float)
    noise = expit(rng.normal(0, 2, (4, 600)))
    data = StackingData(
        noise, labels, Groups(np.arange(600) // 4), rng.choice(["KG and 1", ""], 600)
    )
    (cross_fitted,) = cross_fit(data, combine, [kind]).values()
    assert mean_log_loss(labels, cross_fitted) > mean_log_loss(labels, np.full(600, 0.3))


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_noisy_models_beside_a_good_one_do_little_harm(combine: str) -> None:
    predictions, labels = make_stack((1.0,), 800)
    noise = expit(np.random.default_rng(5).normal(0, 2, (2, 800)))
    both = StackingData(
        np.concatenate([noise, predictions]),
        labels,
        Groups(np.arange(800) // 8),
        np.full(800, ""),
    )
    with_noise = score_ensemble(both, combine, "none")
    assert with_noise.ensemble.weights[2] > 0.8
    assert with_noise.ensemble.weights[:2].max() < 0.1
    without = log_loss_without([0, 1], both, combine, "none")
    assert without - 1e-4 <= with_noise.cross_fitted < without + 0.01
    assert log_loss_without([2], both, combine, "none") > without + 0.1
    assert np.isnan(log_loss_without([0, 1, 2], both, combine, "none"))


def test_a_calibration_by_group_lowers_the_cross_fitted_loss() -> None:
    predictions, labels = make_stack((1.0, 0.6), 2000)
    names = np.where(np.arange(2000) % 2, "KG and 1", "2 and 3")
    shifted = np.where(names == "KG and 1", expit(logit(predictions) - 0.8), predictions)
    data = StackingData(shifted, labels, Groups(np.arange(2000) // 8), names)
    losses = compare_combinations(data)["logits"]
    assert losses["platt_by_group"] < min(losses["none"], losses["platt"]) - 0.02


def as_classes(predictions: np.ndarray) -> np.ndarray:
    """Return (models, rows) probabilities of label 1 as (models, rows, 2)."""
    return np.stack([1 - predictions, predictions], axis=2)


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_two_classes_give_the_binary_ensemble(combine: str) -> None:
    data = make_data(3)
    labels = data.labels.astype(int)
    classes = StackingData.of_classes(as_classes(data.predictions), labels, data.groups)
    expected, found = (score_ensemble(x, combine, "none") for x in (data, classes))
    np.testing.assert_allclose(found.ensemble.weights, expected.ensemble.weights, atol=1e-6)
    np.testing.assert_allclose(
        found.cross_fitted_predictions[:, 1], expected.cross_fitted_predictions, atol=1e-6
    )
    for name in ("alone", "plain_mean", "fitted", "cross_fitted"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6)


def make_classes(qualities: Sequence[float], n_rows: int = 400) -> StackingData:
    """Return predictions of 4 classes in 40 groups, a model per quality."""
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=n_rows)
    right = np.eye(4)[labels]
    logits = np.stack([quality * right + rng.normal(0, 1, (n_rows, 4)) for quality in qualities])
    return StackingData.of_classes(softmax(logits, axis=2), labels, Groups(np.arange(n_rows) % 40))


def test_weights_of_classes_equal_another_optimiser() -> None:
    data = make_classes([1.5, 1, 0.5])
    for combine in COMBINATIONS:
        weights = fit_ensemble(data, combine, "none").weights

        def loss(weights: np.ndarray, combine: str = combine) -> float:
            combined = combine_predictions(combine, weights, data.predictions)
            return mean_log_loss(data.labels, combined / combined.sum(axis=1, keepdims=True))

        found = minimize(loss, np.full(3, 1 / 3), method="Nelder-Mead", bounds=[(1e-6, 3)] * 3)
        # A ridge shrinks logit weights slightly towards equal ones.
        assert found.fun - 1e-6 <= loss(weights) <= found.fun + (1e-6, 2e-3)[combine == "logits"]


def test_overconfident_classes_get_a_smaller_weight() -> None:
    data = make_classes([1.5])
    sharpened = data.predictions**3
    sharpened /= sharpened.sum(axis=2, keepdims=True)
    overconfident = StackingData.of_classes(sharpened, data.labels, data.groups)
    (weight,) = fit_ensemble(overconfident, "logits", "none").weights
    (usual,) = fit_ensemble(data, "logits", "none").weights
    assert weight == pytest.approx(usual / 3, rel=0.02)
    scores = score_ensemble(overconfident, "logits", "none")
    assert scores.cross_fitted < scores.alone[0] - 0.1


def test_a_harmful_model_of_classes_has_no_weight() -> None:
    data = make_classes([1.5, -1])
    for combine in COMBINATIONS:
        scores = score_ensemble(data, combine, "none")
        assert scores.ensemble.weights[1] == pytest.approx(0, abs=1e-3)
        np.testing.assert_allclose(scores.cross_fitted_predictions.sum(axis=1), 1)


def test_a_single_group_cannot_be_cross_fitted() -> None:
    data = replace(make_data(), groups=Groups(np.zeros(120, int)))
    with pytest.raises(HearbackError, match="one group"):
        score_ensemble(data, "logits", "none")
