"""The reading competition's ensemble configuration: fallbacks, files and their errors."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from hearback.engine.ensemble.calibration import KINDS, Calibration, Line
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.ensemble.stacking import COMBINATIONS, Groups, StackingData, fit_ensemble
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.logistic import logit
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading.ensemble import EnsembleConfig, Fallback, training_command
from hearback.reading.inference.folds import EnsembleFold
from hearback.reading.inference.score_sums import ScoreSums
from hearback.reading.tables import GRADES, age_groups
from hearback.reading.word_calibration import WordCalibration

CONFIG = EnsembleConfig(
    models=(ModelConfig("model1m", (0, 1, 2), 0.25), ModelConfig("model2ds", (0, 2), 0.75)),
    voice={"backend": "hibari", "speed": 0.7},
    base_rates={"all": 0.4, "deletion": 0.1},
    log_losses={"cross_fitted": 0.6, "fitted": 0.59, "plain_mean": 0.61},
    n_rows=100,
    combine="probabilities",
    calibration=Calibration("platt", {"all": Line(0.8, -0.1)}),
)


WORDS = WordCalibration(("model2ds",), Line(0.5, 0.1), Line(1.0, 0.0))
FALLBACKS = (
    Fallback({"model1m": 1.0}, Calibration(), 0.65),
    Fallback({"model2ds": 1.0}, CONFIG.calibration, 0.62, WORDS),
)


def test_a_configuration_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    timed = (replace(CONFIG.models[0], seconds_per_clip=0.25), CONFIG.models[1])
    for config in (CONFIG, replace(CONFIG, models=timed, fallbacks=FALLBACKS)):
        config.save(tmp_path / "config.json")
        assert EnsembleConfig.load(tmp_path / "config.json") == config


def test_a_configuration_of_an_older_version_has_no_fallbacks(tmp_path: Path) -> None:
    values = asdict(CONFIG)
    del values["fallbacks"]
    for model in values["models"]:
        del model["seconds_per_clip"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert EnsembleConfig.load(tmp_path / "config.json") == CONFIG


def test_the_best_fallback_of_finished_models_is_used() -> None:
    config = replace(CONFIG, fallbacks=FALLBACKS)
    all_run = config.restrict_to({"model1m": [2, 0], "model2ds": [0]})
    assert all_run is not None and all_run.calibration == CONFIG.calibration
    assert [(m.name, m.folds, m.weight) for m in all_run.models] == [
        ("model1m", (0, 2), 0.25),
        ("model2ds", (0,), 0.75),
    ]
    assert all_run.log_losses == CONFIG.log_losses and not all_run.fallbacks
    one = config.restrict_to({"model1m": [], "model2ds": [2]})
    assert one is not None
    assert one.models == (ModelConfig("model2ds", (2,), 1.0),)
    assert (one.words, one.log_losses) == (WORDS, {"cross_fitted": 0.62})
    assert config.restrict_to({"model1m": [], "model2ds": []}) is None
    assert CONFIG.restrict_to({"model1m": [0]}) is None


def test_finished_models_that_no_fallback_combines_are_not_used() -> None:
    third = ModelConfig("model3mb", (0,), 0.5)
    models = tuple(replace(model, weight=model.weight / 2) for model in CONFIG.models)
    config = replace(CONFIG, models=(*models, third), fallbacks=FALLBACKS)
    both = config.restrict_to({"model1m": [0], "model2ds": [0]})
    assert both is not None and [model.name for model in both.models] == ["model2ds"]


@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_read_back_predicts_the_same(
    tmp_path: Path, combine: str, kind: str
) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120).astype(float)
    predictions = expit(2 * labels - 1 + rng.normal(0, 1.5, (2, 120)))
    grades = rng.choice(GRADES, 120)
    groups = Groups(rng.integers(0, 30, 120))
    data = StackingData(predictions, labels, groups, age_groups(grades))
    ensemble = fit_ensemble(data, combine, kind)
    models = tuple(
        replace(model, weight=float(weight))
        for model, weight in zip(CONFIG.models, ensemble.weights, strict=True)
    )
    config = replace(CONFIG, models=models, combine=combine, calibration=ensemble.calibration)
    config.save(tmp_path / "config.json")
    after = EnsembleConfig.load(tmp_path / "config.json").predict(predictions, grades)
    np.testing.assert_array_equal(after, ensemble.predict(predictions, age_groups(grades)))


def test_models_without_a_weight_are_not_run() -> None:
    idle = (ModelConfig("model3mb", (0,), 0.0), *CONFIG.models)
    config = replace(CONFIG, models=idle)
    assert config.models_to_run == CONFIG.models
    predictions, grades = np.array([[0.2, 0.4], [0.6, 0.8]]), np.array(["KG", "3"])
    expected = expit(0.8 * logit(np.array([0.5, 0.7])) - 0.1)
    np.testing.assert_allclose(config.predict(predictions, grades), expected)


def test_words_are_combined_like_one_more_model(tmp_path: Path) -> None:
    words = WordCalibration(("model1m", "model3mb"), Line(0.5, 0.1), Line(1.0, 0.0), (1.0, 3.0))
    models = (*CONFIG.models, ModelConfig("model3mb", (0,), 0.0))
    config = replace(CONFIG, models=models, combine="logits", words=words, words_weight=0.5)
    assert config.models_to_run == models  # the last one for its words alone
    config.save(tmp_path / "config.json")
    assert EnsembleConfig.load(tmp_path / "config.json") == config
    rng = np.random.default_rng(0)
    predictions, log_odds = rng.uniform(0.1, 0.9, (3, 4)), rng.normal(0, 1, (4, 3, 2))
    log_odds[:, 2, 0] = np.nan
    product = np.nanprod(words.apply(log_odds), axis=(1, 2))
    sums = np.array([0.25, 0.75, 0.0]) @ logit(predictions) + 0.5 * logit(product)
    found = config.predict(predictions, np.full(4, "3"), log_odds)
    np.testing.assert_allclose(found, expit(0.8 * sums - 0.1))


def test_words_have_the_calibration_of_their_letters_and_of_what_is_missing() -> None:
    words = WordCalibration(("model1m",), Line(), Line(), letters=0.5, complete_power=2.0)
    config = replace(CONFIG, combine="logits", words=words, words_weight=0.5)
    sums = ScoreSums(config, ["the elephant"], 3)
    log_odds = np.array([[2.0, 3.0], [1.0, 2.0], [np.nan, 4.0]])
    for number, model in enumerate(config.models):
        for fold in model.folds:
            ensemble_fold = EnsembleFold(number, FoldFiles(Path(), model.name, fold), {})
            sums.add(ensemble_fold, [0], np.array([[0.5, *log_odds.ravel()]]))
            sums.finish([ensemble_fold])
    combined = sums.combine(np.array(["3"]))
    assert combined is not None and combined[1].words is not None
    expected = log_odds + 0.5 * np.log(np.array([[3 / 4, 1], [2, 1], [np.nan, 1]]))
    np.testing.assert_allclose(combined[1].words[0], expected)
    probabilities = expit(expected)
    all_said = np.prod(probabilities[:2, 0]) * np.prod(probabilities[:, 1]) ** 2
    assert config.all_words_said(combined[1].words) == pytest.approx(all_said)


def test_no_clips_have_no_scores() -> None:
    words = replace(WORDS, models=("model1m", "model2ds"))
    config = replace(CONFIG, combine="logits", words=words, words_weight=0.5)
    sums = ScoreSums(config, [], 3)
    sums.finish(
        EnsembleFold(number, FoldFiles(Path(), model.name, fold), {})
        for number, model in enumerate(config.models)
        for fold in model.folds
    )
    combined = sums.combine(np.empty(0, dtype=str))
    assert combined is not None
    assert combined[1].clips.shape == (0,)


def test_a_fallback_combines_clips_only() -> None:
    words = replace(WORDS, models=("model1m", "model2ds"))
    config = replace(CONFIG, fallbacks=FALLBACKS, words=words, words_weight=0.5)
    both = config.restrict_to({"model1m": [0], "model2ds": [0]})
    assert both is not None and both.words_weight == 0.5
    one = config.restrict_to({"model1m": [], "model2ds": [2]})
    assert one is not None and one.words_weight == 0


def test_a_task_without_training_rows_has_the_base_rate_of_all() -> None:
    rates = [CONFIG.base_rate(task) for task in ("deletion", "blending", "", None)]
    assert rates == [0.1, 0.4, 0.4, 0.4]


def as_json(**changes: Any) -> str:
    return json.dumps({**asdict(CONFIG), **changes})


def with_fallback(**weights: float) -> str:
    return as_json(fallbacks=[asdict(Fallback(weights, Calibration(), 0.6))])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (as_json()[:-20], r"not an ensemble's configuration \(no JSON: [A-Z]"),
        ("{}", r"not an ensemble's configuration \(no field [a-z]+\)"),
        (with_fallback(model3mb=1.0), "a fallback has a weight for model3mb, not among its"),
        (
            with_fallback(model1m=0.5),
            "in a fallback the models' weights must be non-negative and sum to one",
        ),
        (as_json(fallbacks=[{"weights": {}}]), "not an ensemble's configuration.*calibration"),
        (as_json(words_weight=0.1), "sum to one"),
        (as_json(words_weight=0.1, combine="logits"), "its words have a weight, but no"),
        (as_json(words=asdict(replace(WORDS, models=("x",)))), "its words are of x, not among"),
        (as_json(fallbacks=3), "not an ensemble's configuration"),
        (as_json(calibration={"kind": "none"}), "not an ensemble's configuration.*lines"),
        (as_json().replace('"combine"', '"compile"'), "not an ensemble's configuration.*combine"),
    ],
)
def test_an_invalid_configuration_is_an_error_with_the_cause(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(HearbackError, match=message):
        EnsembleConfig.load(path)


@pytest.mark.parametrize(
    ("model", "command"),
    [
        ("modeltok", "python train_modeltok.py --fold 2"),
        ("modeltok_s8", "python train_modeltok.py --fold 2 --seed 8"),
        (
            "model_ablation_joined",
            "python -m hearback.reading.baselines.ablation --variants joined --folds 2",
        ),
    ],
)
def test_the_command_that_trains_a_fold_can_be_run(model: str, command: str) -> None:
    assert training_command(FoldFiles(Path("assets"), model, 2)) == command
