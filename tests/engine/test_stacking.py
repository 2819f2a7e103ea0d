"""The weights' search, the cross-fitted score, and the configuration."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, softmax
from sklearn.metrics import log_loss

from hearback.engine.ensemble.calibration import KINDS, Calibration, Line, fit_calibration
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.ensemble.stacking import (
    COMBINATIONS,
    TOLERANCE,
    Evidence,
    Groups,
    Mixture,
    compare_combinations,
    cross_fit,
    cross_fitted_log_loss_without,
    fit_mixture,
    mean_log_loss,
    mix,
    score_ensemble,
    search_logit_weights,
    search_weights,
)
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.logistic import fit_logistic, logit
from hearback.reading.ensemble import EnsembleConfig, Fallback
from hearback.reading.words import WordCalibration


def make_models(n_models: int, n_rows: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, (models, rows), some models better than others, and labels, (rows,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n_rows).astype(float)
    quality = rng.uniform(0.3, 2, (n_models, 1))
    logits = quality * (2 * labels - 1) + rng.normal(0, 1.5, (n_models, n_rows))
    return 1 / (1 + np.exp(-logits)), labels


@pytest.mark.parametrize("seed", range(3))
def test_two_models_weights_are_those_of_a_fine_grid(seed: int) -> None:
    predictions, labels = make_models(2, seed=seed)
    grid = np.linspace(0, 1, 2001)
    losses = [mean_log_loss(labels, w * predictions[0] + (1 - w) * predictions[1]) for w in grid]
    weights = search_weights(predictions, labels)
    assert weights[0] == pytest.approx(grid[np.argmin(losses)], abs=2e-3)
    assert mean_log_loss(labels, weights @ predictions) <= min(losses) + 1e-7


@pytest.mark.parametrize("seed", range(3))
def test_four_models_loss_is_that_of_another_optimiser(seed: int) -> None:
    predictions, labels = make_models(4, seed=seed)
    other = minimize(
        lambda weights: mean_log_loss(labels, weights @ predictions),
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    weights = search_weights(predictions, labels)
    # Weights of nearly the same loss may differ by more than their losses.
    np.testing.assert_allclose(weights, other.x, atol=5e-3)
    assert mean_log_loss(labels, weights @ predictions) == pytest.approx(other.fun, abs=2e-7)


@pytest.mark.parametrize("n_models", [1, 2, 3, 6, 10])
def test_weights_are_shares_and_never_lose_to_the_plain_mean_or_the_best_model(
    n_models: int,
) -> None:
    predictions, labels = make_models(n_models, n_rows=100, seed=n_models)
    weights = search_weights(predictions, labels)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    fitted = mean_log_loss(labels, weights @ predictions)
    alone = [mean_log_loss(labels, model) for model in predictions]
    assert fitted <= min(*alone, mean_log_loss(labels, predictions.mean(axis=0))) + 1e-7


def test_a_model_that_only_hurts_gets_no_weight() -> None:
    (better,), labels = make_models(1)
    worse = np.where(labels > 0.5, 0.8 * better, 1 - 0.8 * (1 - better))  # of every row
    weights = search_weights(np.stack([worse, better]), labels)
    np.testing.assert_allclose(weights, [0, 1], atol=1e-6)


def test_a_confident_mistake_costs_much_and_not_everything() -> None:
    labels = np.array([1.0, 0.0, 1.0, 0.0])
    predictions = np.array([[0.0, 0.0, 1.0, 0.0], [0.6, 0.4, 0.6, 0.4]])
    assert mean_log_loss(labels, predictions[0]) == pytest.approx(-np.log(1e-7) / 4, rel=1e-5)
    weights = search_weights(predictions, labels)
    assert np.isfinite(mean_log_loss(labels, weights @ predictions))
    assert 0 < weights[1] < 1


NASTY = ("plain", "copies", "one far better", "backwards", "constants", "certain", "blind")
GRID = np.linspace(0, 1, 101)


def make_nasty(kind: str, n_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Six models of one kind of trouble, (6, rows), and labels, (rows,); both labels occur."""
    predictions, labels = make_models(6, n_rows, seed)
    labels[:2] = 0, 1
    rng = np.random.default_rng(seed)
    sign = 2 * labels - 1
    if kind == "copies":
        predictions[3:] = predictions[:3]
    elif kind == "one far better":
        predictions[2] = expit(9 * sign + rng.normal(0, 4, n_rows))
    elif kind == "backwards":
        predictions[3:] = 1 - predictions[:3]
    elif kind == "constants":
        predictions[2:] = rng.uniform(0, 1, (4, 1))
        predictions[5] = 0.5
    elif kind == "certain":  # every mistake costs 16 nats
        predictions = np.round(predictions)
    elif kind == "blind":
        predictions = expit(rng.normal(0, 4, predictions.shape))
    return predictions, labels


def search_grid(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The way to beat: one weight after the other over a grid, until no weight gains."""
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
            losses = [mean_log_loss(labels, mixed) for mixed in candidates @ predictions]
            if min(losses) < best:
                best, weights = min(losses), candidates[int(np.argmin(losses))]
    return weights


@pytest.mark.parametrize("kind", NASTY)
@pytest.mark.parametrize("n_rows", [2, 7, 40, 400])
def test_weights_are_never_worse_than_a_grid_s_and_nothing_is_left_to_gain(
    kind: str, n_rows: int
) -> None:
    for seed in range(4):
        predictions, labels = make_nasty(kind, n_rows, seed)
        weights = search_weights(predictions, labels)
        assert (weights >= 0).all() and weights.sum() == pytest.approx(1, abs=1e-12)
        found = mean_log_loss(labels, weights @ predictions)
        by_grid = search_grid(predictions, labels)
        assert found <= mean_log_loss(labels, by_grid @ predictions) + TOLERANCE
        # Lindsay's bound, from the probabilities and not from the search's own numbers.
        clipped = np.clip(predictions, 1e-7, 1 - 1e-7)
        likelihoods = np.where(labels > 0.5, clipped, 1 - clipped)
        ratios = (likelihoods / (weights @ likelihoods)).mean(axis=1)
        assert ratios.max() - 1 < TOLERANCE
        # No mixture at random is better.
        others = np.random.default_rng(seed).dirichlet(np.full(6, 0.3), 50) @ predictions
        assert found <= min(mean_log_loss(labels, other) for other in others) + TOLERANCE


@pytest.mark.parametrize("kind", NASTY)
@pytest.mark.parametrize("n_rows", [2, 7, 40, 400])
def test_weights_on_logits_are_found_whatever_the_models(kind: str, n_rows: int) -> None:
    for seed in range(3):
        predictions, labels = make_nasty(kind, n_rows, seed)
        groups = Groups(np.arange(n_rows) // 2)
        weights = search_logit_weights(predictions, labels, groups)
        assert np.isfinite(weights).all() and (weights >= 0).all()
        if kind == "copies":  # nothing tells them apart
            np.testing.assert_allclose(weights[:3], weights[3:], atol=1e-4)


def test_a_model_that_one_row_needs_keeps_its_weight() -> None:
    # All but one row are predicted better by the first, and that row it holds impossible.
    labels = np.ones(2000)
    predictions = np.stack([np.full(2000, 0.9), np.full(2000, 0.5)])
    predictions[0, 0] = 0
    weights = search_weights(predictions, labels)
    assert 2e-4 < weights[1] < 2e-3
    without = mean_log_loss(labels, predictions[0])
    assert mean_log_loss(labels, weights @ predictions) < without - 3e-3


def test_groups_are_kept_whole_and_every_row_is_held_out_once() -> None:
    names = np.array(["b", "a", "c", "a", "b", "d"])
    groups = Groups.of(names)
    assert groups.cross_fits is groups.cross_fits  # made once
    for splits in (groups.cross_fits, groups.inner_fits):
        held_out = np.concatenate([split.held_out for split in splits])
        assert sorted(held_out) == list(range(6))
        for split in splits:
            assert not set(names[split.rest]) & set(names[split.held_out])
            np.testing.assert_array_equal(split.groups.codes, groups.codes[split.rest])
    assert Groups.of(np.array(["a", "a"])).cross_fits == ()


def make_evidence(n_models: int = 3, n_rows: int = 120, n_groups: int = 30) -> Evidence:
    predictions, labels = make_models(n_models, n_rows)
    rng = np.random.default_rng(1)
    groups = Groups(rng.integers(0, n_groups, n_rows))
    return Evidence(predictions, labels, groups, rng.choice(["KG", "1", "2", "3"], n_rows))


def make_stack(
    slopes: Sequence[float], n_rows: int = 4000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return models whose log-odds times `slopes` sum to the truth's, and labels drawn with it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (len(slopes), n_rows))
    labels = (rng.random(n_rows) < expit(np.array(slopes) @ logits)).astype(float)
    return expit(logits), labels


@pytest.mark.parametrize("slopes", [(1.0, 0.6, 0.3), (0.5, 0.5), (1.8, 0.0, 0.4), (0.3,)])
def test_weights_on_logits_are_those_that_made_the_labels(slopes: tuple[float, ...]) -> None:
    predictions, labels = make_stack(slopes)
    weights = search_logit_weights(predictions, labels, Groups(np.arange(len(labels)) // 10))
    np.testing.assert_allclose(weights, slopes, atol=0.12)


def test_weights_on_logits_are_never_negative_and_a_model_that_hurts_has_none() -> None:
    predictions, labels = make_stack((1.0, -0.8, 0.5))
    groups = Groups(np.arange(len(labels)) // 10)
    weights = search_logit_weights(predictions, labels, groups)
    assert weights[1] == 0
    np.testing.assert_allclose(weights[[0, 2]], [0.8, 0.4], atol=0.15)
    backwards = search_logit_weights(1 - predictions[:1], labels, groups)
    assert backwards.tolist() == [0]


def test_few_rows_choose_little_among_equal_models() -> None:
    # What tells ten noisy copies of one model apart in 60 rows is chance, and costs on new rows.
    lost = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, 2060).astype(float)
        logits = 1.2 * (2 * labels - 1) + rng.normal(0, 1, 2060) + rng.normal(0, 0.6, (10, 2060))
        seen, new = np.arange(60), np.arange(60, 2060)
        drawn = search_logit_weights(expit(logits[:, seen]), labels[seen], Groups(seen))
        freely = fit_logistic(
            logits[:, seen].T, labels[seen], np.full(10, 0.1), np.zeros((10, 10)), at_least=0
        )
        losses = [
            mean_log_loss(labels[new], expit(weights @ logits[:, new]))
            for weights in (drawn, freely)
        ]
        lost.append(losses[1] - losses[0])
    assert np.mean(lost) > 0.02


@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("kind", ["none", "isotonic", "platt_by_group"])
def test_scores_are_log_losses_of_what_they_name(combine: str, kind: str) -> None:
    evidence = make_evidence()
    scores = score_ensemble(evidence, combine, kind)
    predictions, labels = evidence.predictions, evidence.labels
    for loss, prediction in (
        *zip(scores.alone, predictions, strict=True),
        (scores.plain_mean, predictions.mean(axis=0)),
        (scores.fitted, scores.mixture.predict(predictions, evidence.calibration_groups)),
        (scores.cross_fitted, scores.cross_fitted_predictions),
    ):
        assert loss == pytest.approx(log_loss(labels, prediction))
    assert scores.fitted < scores.cross_fitted
    assert compare_combinations(evidence)[combine][kind] == scores.cross_fitted


def test_a_mixture_adds_probabilities_or_log_odds_and_calibrates_the_sum() -> None:
    evidence = make_evidence()
    predictions, labels, grades = evidence.predictions, evidence.labels, evidence.calibration_groups
    weights = search_weights(predictions, labels)
    mixed = weights @ predictions
    mixture = fit_mixture(evidence, "probabilities", "platt")
    np.testing.assert_array_equal(mixture.weights, weights)
    expected = fit_calibration("platt", mixed, labels, grades).apply(mixed, grades)
    np.testing.assert_array_equal(mixture.predict(predictions, grades), expected)

    weights = np.array([0.5, 0.0, 1.5])
    summed = Mixture("logits", weights).predict(predictions, grades)
    np.testing.assert_allclose(logit(summed), weights @ logit(predictions))


@pytest.mark.parametrize("n_groups", [2, 5, 30])
@pytest.mark.parametrize("combine", COMBINATIONS)
def test_a_group_s_own_labels_decide_nothing_about_its_rows(combine: str, n_groups: int) -> None:
    evidence = make_evidence(n_groups=n_groups)
    before = cross_fit(evidence, combine, KINDS)
    for group in range(0, n_groups, 10):
        own = evidence.groups.codes == group
        flipped = replace(evidence, labels=np.where(own, 1 - evidence.labels, evidence.labels))
        after = cross_fit(flipped, combine, KINDS)
        for kind in KINDS:
            np.testing.assert_array_equal(after[kind][own], before[kind][own])
            assert (after[kind][~own] != before[kind][~own]).any()


def test_models_that_each_know_one_group_by_heart_do_not_look_good() -> None:
    n_groups, n_rows = 5, 100
    groups = np.arange(n_rows) % n_groups
    labels = np.arange(n_rows) // n_groups % 2.0
    truth = np.where(groups == np.arange(n_groups)[:, None], 0.99, 0.45)  # (models, rows)
    predictions = np.where(labels > 0.5, truth, 1 - truth)
    evidence = Evidence(predictions, labels, Groups(groups), np.full(n_rows, "3"))
    scores = score_ensemble(evidence, "probabilities", "none")
    np.testing.assert_allclose(scores.mixture.weights, 1 / n_groups, atol=1e-3)
    # Nothing about a group is known from the others: its rows get what all other models say.
    assert scores.cross_fitted == pytest.approx(-np.log(0.45), abs=1e-2)
    assert scores.fitted < -np.log(0.55)


@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_noise_does_not_look_better_than_the_base_rate(combine: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    labels = (np.arange(600) % 10 < 3).astype(float)
    noise = expit(rng.normal(0, 2, (4, 600)))
    evidence = Evidence(noise, labels, Groups(np.arange(600) // 4), rng.choice(["KG", "3"], 600))
    (cross_fitted,) = cross_fit(evidence, combine, [kind]).values()
    assert mean_log_loss(labels, cross_fitted) > mean_log_loss(labels, np.full(600, 0.3))


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_a_noisy_model_beside_a_good_one_does_no_good_and_little_harm(combine: str) -> None:
    predictions, labels = make_stack((1.0,), 800)
    noise = expit(np.random.default_rng(5).normal(0, 2, (2, 800)))
    both = Evidence(
        np.concatenate([noise, predictions]),
        labels,
        Groups(np.arange(800) // 8),
        np.full(800, "2"),
    )
    with_noise = score_ensemble(both, combine, "none")
    assert with_noise.mixture.weights[2] > 0.8
    assert with_noise.mixture.weights[:2].max() < 0.1
    without = cross_fitted_log_loss_without([0, 1], both, combine, "none")
    assert without - 1e-4 <= with_noise.cross_fitted < without + 0.01
    assert cross_fitted_log_loss_without([2], both, combine, "none") > without + 0.1
    assert np.isnan(cross_fitted_log_loss_without([0, 1, 2], both, combine, "none"))


def test_what_the_grades_need_pays_honestly() -> None:
    predictions, labels = make_stack((1.0, 0.6), 2000)
    grades = np.where(np.arange(2000) % 2, "KG", "3")
    misjudged = np.where(grades == "KG", expit(logit(predictions) - 0.8), predictions)
    evidence = Evidence(misjudged, labels, Groups(np.arange(2000) // 8), grades)
    losses = compare_combinations(evidence)["logits"]
    assert losses["platt_by_group"] < min(losses["none"], losses["platt"]) - 0.02


def as_classes(predictions: np.ndarray) -> np.ndarray:
    """Return (models, rows) of probabilities of a 1 as (models, rows, 2)."""
    return np.stack([1 - predictions, predictions], axis=2)


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_two_classes_make_the_ensemble_of_a_0_and_a_1(combine: str) -> None:
    evidence = make_evidence(3)
    labels = evidence.labels.astype(int)
    classes = Evidence.of_classes(as_classes(evidence.predictions), labels, evidence.groups)
    expected, found = (score_ensemble(x, combine, "none") for x in (evidence, classes))
    np.testing.assert_allclose(found.mixture.weights, expected.mixture.weights, atol=1e-6)
    np.testing.assert_allclose(
        found.cross_fitted_predictions[:, 1], expected.cross_fitted_predictions, atol=1e-6
    )
    for name in ("alone", "plain_mean", "fitted", "cross_fitted"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6)


def make_classes(qualities: Sequence[float], n_rows: int = 400) -> Evidence:
    """Return predictions of 4 classes, a model of each quality, of 40 groups."""
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=n_rows)
    right = np.eye(4)[labels]
    logits = np.stack([quality * right + rng.normal(0, 1, (n_rows, 4)) for quality in qualities])
    return Evidence.of_classes(softmax(logits, axis=2), labels, Groups(np.arange(n_rows) % 40))


def test_weights_of_classes_are_those_of_another_optimiser() -> None:
    evidence = make_classes([1.5, 1, 0.5])
    for combine in COMBINATIONS:
        weights = fit_mixture(evidence, combine, "none").weights

        def loss(weights: np.ndarray, combine: str = combine) -> float:
            mixed = mix(combine, weights, evidence.predictions)
            return mean_log_loss(evidence.labels, mixed / mixed.sum(axis=1, keepdims=True))

        found = minimize(loss, np.full(3, 1 / 3), method="Nelder-Mead", bounds=[(1e-6, 3)] * 3)
        # A ridge draws the weights of logits a little towards equal ones.
        assert found.fun - 1e-6 <= loss(weights) <= found.fun + (1e-6, 2e-3)[combine == "logits"]


def test_classes_that_are_predicted_too_surely_are_tempered() -> None:
    evidence = make_classes([1.5])
    surer = evidence.predictions**3
    surer /= surer.sum(axis=2, keepdims=True)
    overconfident = Evidence.of_classes(surer, evidence.labels, evidence.groups)
    (weight,) = fit_mixture(overconfident, "logits", "none").weights
    (usual,) = fit_mixture(evidence, "logits", "none").weights
    assert weight == pytest.approx(usual / 3, rel=0.02)
    scores = score_ensemble(overconfident, "logits", "none")
    assert scores.cross_fitted < scores.alone[0] - 0.1


def test_a_model_of_classes_that_hurts_has_no_weight() -> None:
    evidence = make_classes([1.5, -1])
    for combine in COMBINATIONS:
        scores = score_ensemble(evidence, combine, "none")
        assert scores.mixture.weights[1] == pytest.approx(0, abs=1e-3)
        np.testing.assert_allclose(scores.cross_fitted_predictions.sum(axis=1), 1)


def test_a_single_group_has_no_honest_score() -> None:
    evidence = replace(make_evidence(), groups=Groups(np.zeros(120, int)))
    with pytest.raises(HearbackError, match="one group"):
        score_ensemble(evidence, "logits", "none")


CONFIG = EnsembleConfig(
    models=(ModelConfig("model1m", (0, 1, 2), 0.25), ModelConfig("model2ds", (0, 2), 0.75)),
    voice={"backend": "hibari", "speed": 0.7},
    base_rates={"all": 0.4, "deletion": 0.1},
    log_losses={"cross_fitted": 0.6, "fitted": 0.59, "plain_mean": 0.61},
    n_rows=100,
    combine="probabilities",
    calibration=Calibration("platt", {"everyone": Line(0.8, -0.1)}),
)


WORDS = WordCalibration(("model2ds",), Line(0.5, 0.1), Line(1.0, 0.0))
FALLBACKS = (
    Fallback({"model1m": 1.0}, Calibration(), 0.65),
    Fallback({"model2ds": 1.0}, CONFIG.calibration, 0.62, WORDS),
)


def test_a_configuration_survives_the_disk(tmp_path: Path) -> None:
    timed = (replace(CONFIG.models[0], seconds_per_clip=0.25), CONFIG.models[1])
    for config in (CONFIG, replace(CONFIG, models=timed, fallbacks=FALLBACKS)):
        config.save(tmp_path / "config.json")
        assert EnsembleConfig.load(tmp_path / "config.json") == config


def test_an_older_version_s_configuration_has_no_fallbacks(tmp_path: Path) -> None:
    values = asdict(CONFIG)
    del values["fallbacks"]
    for model in values["models"]:
        del model["seconds_per_clip"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert EnsembleConfig.load(tmp_path / "config.json") == CONFIG


def test_of_the_folds_that_were_run_the_best_fallback_is_made_of_models_run() -> None:
    config = replace(CONFIG, fallbacks=FALLBACKS)
    all_run = config.of_those_run({"model1m": [2, 0], "model2ds": [0]})
    assert all_run is not None and all_run.calibration == CONFIG.calibration
    assert [(m.name, m.folds, m.weight) for m in all_run.models] == [
        ("model1m", (0, 2), 0.25),
        ("model2ds", (0,), 0.75),
    ]
    assert all_run.log_losses == CONFIG.log_losses and not all_run.fallbacks
    one = config.of_those_run({"model1m": [], "model2ds": [2]})
    assert one is not None
    assert one.models == (ModelConfig("model2ds", (2,), 1.0),)
    assert (one.words, one.log_losses) == (WORDS, {"cross_fitted": 0.62})
    assert config.of_those_run({"model1m": [], "model2ds": []}) is None
    assert CONFIG.of_those_run({"model1m": [0]}) is None


def test_of_what_was_run_only_what_was_fitted_together_is_used() -> None:
    third = ModelConfig("model3mb", (0,), 0.5)
    models = tuple(replace(model, weight=model.weight / 2) for model in CONFIG.models)
    config = replace(CONFIG, models=(*models, third), fallbacks=FALLBACKS)
    both = config.of_those_run({"model1m": [0], "model2ds": [0]})
    assert both is not None and [model.name for model in both.models] == ["model2ds"]


@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_back_scores_as_what_was_fitted(
    tmp_path: Path, combine: str, kind: str
) -> None:
    evidence = make_evidence(2)
    mixture = fit_mixture(evidence, combine, kind)
    models = tuple(
        replace(model, weight=float(weight))
        for model, weight in zip(CONFIG.models, mixture.weights, strict=True)
    )
    config = replace(CONFIG, models=models, combine=combine, calibration=mixture.calibration)
    config.save(tmp_path / "config.json")
    after = EnsembleConfig.load(tmp_path / "config.json").predict(
        evidence.predictions, evidence.calibration_groups
    )
    np.testing.assert_array_equal(
        after, mixture.predict(evidence.predictions, evidence.calibration_groups)
    )


def test_models_without_a_weight_are_not_run() -> None:
    idle = (ModelConfig("model3mb", (0,), 0.0), *CONFIG.models)
    config = replace(CONFIG, models=idle)
    assert config.models_to_run == CONFIG.models
    predictions, grades = np.array([[0.2, 0.4], [0.6, 0.8]]), np.array(["KG", "3"])
    expected = expit(0.8 * logit(np.array([0.5, 0.7])) - 0.1)
    np.testing.assert_allclose(config.predict(predictions, grades), expected)


def test_a_task_that_training_did_not_have_gets_the_base_rate_of_all() -> None:
    rates = [CONFIG.base_rate(task) for task in ("deletion", "blending", "", None)]
    assert rates == [0.1, 0.4, 0.4, 0.4]


def test_a_configuration_that_is_not_there_is_an_error_that_says_what_to_run(
    tmp_path: Path,
) -> None:
    with pytest.raises(HearbackError, match=r"not there.*python get_config\.py"):
        EnsembleConfig.load(tmp_path / "config.json")


def as_json(**changes: Any) -> str:
    return json.dumps({**asdict(CONFIG), **changes})


def weighing(*weights: float, **changes: Any) -> str:
    models = [replace(CONFIG.models[0], weight=weight) for weight in weights]
    return as_json(models=[vars(model) for model in models], **changes)


def falling_back_on(**weights: float) -> str:
    return as_json(fallbacks=[asdict(Fallback(weights, Calibration(), 0.6))])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (as_json()[:-20], "not an ensemble's configuration"),
        ("[]", "not an ensemble's configuration"),
        ("{}", "not an ensemble's configuration.*models"),
        (as_json(models=[{"name": "model1m"}]), "not an ensemble's configuration.*folds"),
        (as_json(surplus=1), "not an ensemble's configuration.*surplus"),
        (as_json(models=[]), "not shares of one"),
        (weighing(0.5, 0.4), "not shares of one"),
        (weighing(1.5, -0.5), "not shares of one"),
        (weighing(float("nan")), "not shares of one"),
        (weighing(1.5, -0.5, combine="logits"), "not numbers from zero up"),
        (weighing(float("inf"), combine="logits"), "not numbers from zero up"),
        (as_json(models=[], combine="logits"), "not numbers from zero up"),
        (as_json(combine="guesses"), "unknown combination 'guesses'"),
        (falling_back_on(model3mb=1.0), "a fallback has a weight for model3mb, not among its"),
        (falling_back_on(model1m=0.5), "in a fallback the models' weights are not shares of one"),
        (as_json(fallbacks=[{"weights": {}}]), "not an ensemble's configuration.*calibration"),
        (as_json(fallbacks=3), "not an ensemble's configuration"),
        (as_json(calibration={"kind": "none"}), "not an ensemble's configuration.*lines"),
        (as_json().replace('"combine"', '"compile"'), "not an ensemble's configuration.*combine"),
    ],
)
def test_a_damaged_configuration_is_an_error_that_says_so(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(HearbackError, match=said):
        EnsembleConfig.load(path)
