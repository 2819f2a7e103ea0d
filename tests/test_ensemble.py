"""The weights' search, the honest score, and the configuration."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.metrics import log_loss

from hearback.ensemble import (
    EnsembleConfig,
    ModelConfig,
    mean_log_loss,
    score_ensemble,
    search_weights,
)
from hearback.errors import HearbackError


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


def test_scores_are_log_losses_of_what_they_name() -> None:
    predictions, labels = make_models(3, n_rows=120)
    scores = score_ensemble(predictions, labels, np.arange(120) // 4)
    for loss, prediction in (
        *zip(scores.alone, predictions, strict=True),
        (scores.plain_mean, predictions.mean(axis=0)),
        (scores.fitted, search_weights(predictions, labels) @ predictions),
        (scores.honest, scores.honest_predictions),
    ):
        assert loss == pytest.approx(log_loss(labels, prediction))
    np.testing.assert_array_equal(scores.weights, search_weights(predictions, labels))


@pytest.mark.parametrize("n_groups", [2, 5, 30])
def test_a_group_s_own_labels_do_not_weigh_its_rows(n_groups: int) -> None:
    predictions, labels = make_models(3, n_rows=120)
    groups = np.random.default_rng(1).integers(0, n_groups, 120)
    before = score_ensemble(predictions, labels, groups).honest_predictions
    for group in range(0, n_groups, 4):
        own = groups == group
        flipped = np.where(own, 1 - labels, labels)
        after = score_ensemble(predictions, flipped, groups).honest_predictions
        np.testing.assert_array_equal(after[own], before[own])
        assert (after[~own] != before[~own]).any()


def test_models_that_each_know_one_group_by_heart_do_not_look_good() -> None:
    n_groups, n_rows = 5, 100
    groups = np.arange(n_rows) % n_groups
    labels = np.arange(n_rows) // n_groups % 2.0
    truth = np.where(groups == np.arange(n_groups)[:, None], 0.99, 0.45)  # (models, rows)
    predictions = np.where(labels > 0.5, truth, 1 - truth)
    scores = score_ensemble(predictions, labels, groups)
    np.testing.assert_allclose(scores.weights, 1 / n_groups, atol=1e-3)
    # Nothing about a group is known from the others: its rows get what all other models say.
    assert scores.honest == pytest.approx(-np.log(0.45), abs=1e-2)
    assert scores.fitted < -np.log(0.55)


def test_a_single_group_has_no_honest_score() -> None:
    predictions, labels = make_models(2, n_rows=10)
    with pytest.raises(HearbackError, match="one group"):
        score_ensemble(predictions, labels, np.zeros(10))


CONFIG = EnsembleConfig(
    models=(ModelConfig("model1m", (0, 1, 2), 0.25), ModelConfig("model2ds", (0, 2), 0.75)),
    voice={"backend": "hibari", "speed": 0.7},
    base_rates={"all": 0.4, "deletion": 0.1},
    log_losses={"honest": 0.6, "fitted": 0.59, "plain_mean": 0.61},
    n_rows=100,
)


def test_a_configuration_survives_the_disk(tmp_path: Path) -> None:
    CONFIG.save(tmp_path / "config.json")
    assert EnsembleConfig.load(tmp_path / "config.json") == CONFIG


def test_a_task_that_training_did_not_have_gets_the_base_rate_of_all() -> None:
    rates = [CONFIG.base_rate(task) for task in ("deletion", "blending", "", None)]
    assert rates == [0.1, 0.4, 0.4, 0.4]


def test_a_configuration_that_is_not_there_is_an_error_that_says_what_to_run(
    tmp_path: Path,
) -> None:
    with pytest.raises(HearbackError, match=r"not there.*python get_config\.py"):
        EnsembleConfig.load(tmp_path / "config.json")


def as_json(**changes: Any) -> str:
    values = {name: value for name, value in vars(CONFIG).items() if name != "models"}
    models = [vars(model) for model in CONFIG.models]
    return json.dumps({**values, "models": models, **changes})


def weighing(*weights: float) -> str:
    models = [replace(CONFIG.models[0], weight=weight) for weight in weights]
    return as_json(models=[vars(model) for model in models])


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
    ],
)
def test_a_damaged_configuration_is_an_error_that_says_so(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(HearbackError, match=said):
        EnsembleConfig.load(path)
