"""The step get_config on fabricated folds."""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from hearback.engine.ensemble.calibration import KINDS
from hearback.engine.ensemble.stacking import (
    COMBINATIONS,
    EnsembleScores,
    Groups,
    StackingData,
    cross_fit,
    mean_log_loss,
    score_ensemble,
)
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading import word_calibration, words
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.steps import get_config
from hearback.reading.tables import age_groups
from hearback.reading.word_calibration import fit_to_clips
from tests.helpers import run_step
from tests.reading.fabricated_folds import (
    VOICE,
    make_causes,
    make_metadata,
    make_predictions,
    write_data,
    write_folds,
)

NAMES = ("model1m", "model2m", "model3mapd")
MODELS = {name: make_predictions(0.5, seed) for seed, name in enumerate(NAMES)}
PREDICTIONS = np.stack(list(MODELS.values()))


def make_folder(folder: Path) -> Path:
    """Write three models with all their folds."""
    write_data(folder / "data")
    for model, predictions in MODELS.items():
        write_folds(folder / "assets", model, predictions)
    return folder


def run_get_config(folder: Path, *flags: str) -> tuple[Any, str, str]:
    config = ["--config", str(folder / "model_configs.json")]
    return run_step(get_config, folder, *config, *flags)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


@pytest.fixture
def run(folder: Path) -> Any:
    """Run the step in the test's folder."""
    return functools.partial(run_get_config, folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder where the script has run without flags, and what it printed."""
    folder = make_folder(tmp_path_factory.mktemp("finished"))
    status, output, _ = run_get_config(folder)
    assert status is None
    return folder, output


def stacking_data(predictions: np.ndarray) -> StackingData:
    """Return (models, 96) predictions as the data that get_config should fit to."""
    metadata = make_metadata()
    speakers, grades = (metadata[name].to_numpy(dtype=str) for name in ("speaker", "grade"))
    groups, labels = Groups.from_names(speakers), metadata["score"].to_numpy()
    return StackingData(predictions, labels, groups, age_groups(grades))


def make_data() -> StackingData:
    return stacking_data(PREDICTIONS)


@functools.cache
def scores_of(combine: str = "logits", kind: str = "platt_by_group") -> EnsembleScores:
    return score_ensemble(make_data(), combine, kind)


def section(output: str, title: str) -> dict[str, list[float]]:
    """Return the numbers of a printed table by the name of the row."""
    assert f"\n{title}" in output
    table = output.partition(f"\n{title}")[2].partition("\n\n")[0]
    rows = [line.split() for line in table.splitlines()[1:]]
    numbers = re.compile(r"[-–]?\d*\.?\d*$")
    return {
        name: [float(cell) if cell != "–" else np.nan for cell in cells]
        for name, *cells in rows
        if cells and all(numbers.match(cell) for cell in cells)
    }


def printed_loss(output: str, name: str) -> float:
    match = re.search(rf"^{name} +log loss (\d\.\d+)", output, re.MULTILINE)
    assert match is not None, f"no {name!r} in:\n{output}"
    return float(match[1])


def load(folder: Path) -> EnsembleConfig:
    return EnsembleConfig.load(folder / "model_configs.json")


def test_each_model_the_plain_mean_and_the_ensemble_are_scored(finished: tuple[Path, str]) -> None:
    _, output = finished
    assert output.startswith("96 rows that every model predicted out of fold, of 96\n")
    expected = scores_of()
    models = section(output, "Models (weights of their logits)")
    for name, alone, weight in zip(NAMES, expected.alone, expected.ensemble.weights, strict=True):
        assert models[name][:2] == pytest.approx([alone, weight], abs=1e-4)
    for place, name in enumerate(NAMES):
        rest = make_data().without([place])
        (cross_fitted,) = cross_fit(rest, "logits", ["platt_by_group"]).values()
        assert models[name][2] == pytest.approx(mean_log_loss(rest.labels, cross_fitted), abs=1e-4)
    assert printed_loss(output, "plain mean") == pytest.approx(expected.plain_mean, abs=1e-4)
    assert printed_loss(output, "weighted ensemble") == pytest.approx(
        expected.cross_fitted, abs=1e-4
    )
    assert printed_loss(output, "in-sample") == pytest.approx(expected.fitted, abs=1e-4)
    assert "cross-fitted over speakers" in output
    assert expected.cross_fitted > expected.fitted + 1e-3  # else they could be swapped


def test_the_cross_fitted_log_loss_has_an_interval(finished: tuple[Path, str]) -> None:
    _, output = finished
    match = re.search(r"log loss (\d\.\d{4}) \[(\d\.\d{4}), (\d\.\d{4})\]", output)
    assert match is not None
    loss, low, high = map(float, match.groups())
    assert low < loss < high


def test_every_combination_is_printed_with_every_calibration(finished: tuple[Path, str]) -> None:
    _, output = finished
    table = section(output, "Cross-fitted log loss by combination and calibration")
    assert set(table) == set(COMBINATIONS)
    for combine, losses in table.items():
        expected = [scores_of(combine, kind).cross_fitted for kind in KINDS]
        np.testing.assert_allclose(losses, expected, atol=1e-4)


def test_the_cross_fitted_ensemble_is_analysed_by_grade_and_cause(
    folder: Path, run: Any, finished: tuple[Path, str]
) -> None:
    make_causes().to_csv(folder / "why.csv", index=False)
    _, output, _ = run("--causes", str(folder / "why.csv"))
    cross_fitted, metadata = scores_of().cross_fitted_predictions, make_metadata()
    grade = metadata["grade"] == "KG"
    n_rows, _, loss = section(output, "Log loss per grade")["KG"]
    assert n_rows == 24
    assert loss == pytest.approx(log_loss(metadata["score"][grade], cross_fitted[grade]), abs=1e-4)
    rows = (metadata["score"] > 0) | (make_causes()["why"] == "omit")
    area = section(output, "AUC of correct rows against each cause")["omit"][-1]
    parts = section(output, "Log loss of the ensemble")
    n_rows, loss, low, high = parts["omit"]
    assert n_rows > 0 and low <= loss <= high
    assert {"KG", "1", "correct", "omit"} <= parts.keys()
    assert area == pytest.approx(
        roc_auc_score(metadata["score"][rows], cross_fitted[rows]), abs=1e-4
    )
    assert section(output, "Calibration per grade (ECE: 10 bins of equal mass;")["all"][0] == 96
    (area,) = section(output, "AUC per grade")["KG"]
    assert area == pytest.approx(
        roc_auc_score(metadata["score"][grade], cross_fitted[grade]), abs=1e-4
    )
    assert "against each cause" not in finished[1]


def test_bad_causes_are_refused(folder: Path, run: Any) -> None:
    status, _, errors = run("--causes", str(folder / "nowhere.csv"))
    assert status == 2
    assert "nowhere.csv" in errors and "no such file" in errors
    assert not (folder / "model_configs.json").exists()


def test_a_family_of_several_models_has_a_line(
    folder: Path, run: Any, finished: tuple[Path, str]
) -> None:
    assert "without the comparison" not in finished[1]  # no model would be left
    predictions = make_predictions(2, seed=9)
    write_folds(folder / "assets", "modeltok", predictions, recipe={"pair": "tokens"})
    _, output, _ = run()
    match = re.search(r"^without the comparison models \((.*)\): (\d\.\d+)$", output, re.MULTILINE)
    assert match is not None and match[1] == ", ".join(NAMES)
    alone = stacking_data(make_predictions(2, seed=9)[None])
    expected = score_ensemble(alone, "logits", "platt_by_group").cross_fitted
    assert float(match[2]) == pytest.approx(expected, abs=1e-4)
    assert "without the token scorer" not in output  # a single model has its row


@pytest.mark.parametrize(
    ("combine", "kind"),
    [("probabilities", "none"), ("probabilities", "isotonic"), ("logits", "temperature")],
)
def test_combination_and_calibration_are_used_and_written(
    folder: Path, run: Any, combine: str, kind: str
) -> None:
    _, output, _ = run("--combine", combine, "--calibration", kind)
    config, data = load(folder), make_data()
    expected = scores_of(combine, kind)
    assert (config.combine, config.calibration) == (combine, expected.ensemble.calibration)
    weights = [model.weight for model in config.models]
    np.testing.assert_array_equal(weights, expected.ensemble.weights)
    used = PREDICTIONS[np.array(weights) > 0]
    predictions = config.predict(used, make_metadata()["grade"].to_numpy(dtype=str))
    assert mean_log_loss(data.labels, predictions) == pytest.approx(expected.fitted)
    assert printed_loss(output, "in-sample") == pytest.approx(expected.fitted, abs=1e-4)


def test_the_configuration_has_the_fitted_values(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    config, metadata = load(folder), make_metadata()
    scores = metadata["score"].to_numpy()
    found = scores_of()
    assert [model.name for model in config.models] == list(NAMES)
    assert {model.folds for model in config.models} == {(0, 1, 2)}
    np.testing.assert_allclose([model.weight for model in config.models], found.ensemble.weights)
    assert config.voice == VOICE
    assert config.n_rows == 96
    assert config.log_losses == pytest.approx(
        {"cross_fitted": found.cross_fitted, "fitted": found.fitted, "plain_mean": found.plain_mean}
    )
    by_task = metadata.groupby("task")["score"].mean()
    assert config.base_rates == pytest.approx({"all": scores.mean(), **by_task}, rel=1e-6)


def test_without_speakers_single_rows_are_held_out(tmp_path: Path, run: Any) -> None:
    (tmp_path / "data" / "train_metadata.csv").unlink()
    (tmp_path / "data" / "train_labels.csv").unlink()
    (tmp_path / "data").rmdir()
    write_data(tmp_path / "data", make_metadata().drop(columns="speaker"))
    status, output, _ = run()
    assert status is None
    assert "cross-fitted over filenames" in output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"voice": {"backend": "melo"}}, "different voices"),
        ({"data_fingerprint": "another"}, "differ in data fingerprint"),
    ],
)
def test_incompatible_folds_are_refused_and_the_former_file_kept(
    folder: Path, run: Any, changes: dict[str, Any], message: str
) -> None:
    config = folder / "model_configs.json"
    config.write_text("former")
    write_folds(folder / "assets", "model2ds", make_predictions(1, seed=9), **changes)
    status, _, errors = run()
    assert status == 2
    assert message in errors
    assert "Traceback" not in errors
    assert config.read_text() == "former"


def make_words(quality: float, seed: int) -> np.ndarray:
    """Return log-odds of words, (96, 3, 2), that agree with the row's score."""
    sign = 2 * make_metadata()["score"].to_numpy() - 1
    noise = np.random.default_rng(seed).normal(0, 1, (len(sign), 3, 2))
    log_odds = 2 + quality * sign[:, None, None] + noise
    log_odds[:, 2, words.SAID] = np.nan  # the ends of texts of two words
    return log_odds


def write_token_scorer(
    folder: Path,
    name: str,
    quality: float,
    seed: int,
    clips: np.ndarray | None = None,
    **fold_metadata: Any,
) -> np.ndarray:
    """Write a model that scores words; return its log-odds, (96, 3, 2)."""
    log_odds, metadata = make_words(quality, seed), make_metadata()
    table = words.to_table(
        metadata["filename"].tolist(), metadata["expected_text"].tolist(), log_odds
    )
    predictions = make_predictions(quality, seed) if clips is None else clips
    write_folds(folder / "assets", name, predictions, words=table, **fold_metadata)
    return log_odds


def test_words_are_calibrated_on_the_models_with_a_weight_that_score_them(
    folder: Path, run: Any
) -> None:
    both = [
        write_token_scorer(folder, "modeltok", 1.5, seed=5),
        write_token_scorer(folder, "modeltokb", 1.0, seed=6),
    ]
    _, output, _ = run()
    config, metadata = load(folder), make_metadata()
    weights = {model.name: model.weight for model in config.models}
    assert weights["modeltok"] > 0 and weights["modeltokb"] > 0
    assert config.words is not None and config.words.models == ("modeltok", "modeltokb")
    of_words = config.words.weight_of
    averaged = np.average(both, axis=0, weights=list(of_words.values()))
    labels, speakers = metadata["score"].to_numpy(), metadata["speaker"].to_numpy()
    expected = fit_to_clips(averaged, labels)
    for found, line in (
        (config.words.said, expected.said),
        (config.words.complete, expected.complete),
    ):
        assert found.slope == pytest.approx(line.slope, rel=1e-3)
        assert found.intercept == pytest.approx(line.intercept, abs=1e-3)
    by_model = dict(zip(("modeltok", "modeltokb"), both, strict=True))
    n_letters = words.count_letters(metadata["expected_text"].tolist(), both[0].shape[1])
    examples = word_calibration.WordExamples(by_model, n_letters, of_words, labels)
    all_said = word_calibration.cross_fit(examples, speakers).all_said
    cross_fitted = mean_log_loss(labels, all_said)
    assert config.log_losses["words"] == pytest.approx(cross_fitted, abs=1e-3)
    assert printed_loss(output, "all words said") == pytest.approx(
        config.log_losses["words"], abs=1e-4
    )
    assert f"the ensemble's: {config.log_losses['cross_fitted']:.4f}" in output


def test_the_words_of_two_models_are_one_more_member(folder: Path, run: Any) -> None:
    # Their clips are noise, so that only the words tell.
    for name, seed in (("modeltok", 5), ("modeltokb", 6)):
        write_token_scorer(folder, name, 1.5, seed=seed, clips=make_predictions(0.3, seed))
    _, output, _ = run()
    config = load(folder)
    assert config.words is not None and config.words_weight > 0
    table = section(output, "Models")
    assert table["words"][1] == pytest.approx(config.words_weight, abs=1e-3)
    assert config.words.models == ("modeltok", "modeltokb")
    assert {"modeltok", "modeltokb"} <= {model.name for model in config.models_to_run}
    assert all(fallback.words is None for fallback in config.fallbacks if not fallback.weights)


def test_the_ensemble_without_a_model_is_without_its_words(folder: Path, run: Any) -> None:
    for name, seed in (("modeltok", 5), ("modeltokb", 6)):
        write_token_scorer(folder, name, 1.5, seed=seed, clips=make_predictions(0.3, seed))
    _, output, _ = run()
    of_all = section(output, "Models")
    _, output, _ = run("--models", *NAMES, "modeltokb")
    alone = printed_loss(output, "weighted ensemble")
    assert of_all["modeltok"][2] == pytest.approx(alone, abs=1e-4)


def test_the_models_without_their_words_are_a_fallback(folder: Path, run: Any) -> None:
    write_timed_folds(folder)
    epoch = {"epoch": 1, "validation_seconds": 1.0}
    for name, seed in (("modeltok", 5), ("modeltokb", 6)):
        clips = make_predictions(0.3, seed)
        write_token_scorer(folder, name, 1.5, seed=seed, clips=clips, epochs=[epoch])
    _, output, _ = run()
    config = load(folder)
    assert config.words_weight > 0
    weighted = {model.name for model in config.models if model.weight}
    assert set(config.fallbacks[-1].weights) == weighted
    assert f"{config.fallbacks[-1].log_loss:.4f}  " in output and ", without their words" in output


def test_labels_of_words_need_no_model_that_scores_them(folder: Path, run: Any) -> None:
    write_labels_of_words(folder)
    status, output, _ = run()
    assert status is None
    assert load(folder).words is None
    assert "No model of the ensemble scores words" in output


def test_one_model_s_words_are_no_member(folder: Path, run: Any) -> None:
    write_token_scorer(folder, "modeltok", 1.5, seed=5)
    _, output, _ = run()
    assert load(folder).words_weight == 0
    assert "words" not in section(output, "Models")


def write_labels_of_words(folder: Path) -> None:
    """Write a table in which the first word of a row is right if the row is."""
    metadata = make_metadata()
    rows = [
        (name, position, word, float(score) if position == 0 else 1.0)
        for name, text, score in metadata[["filename", "expected_text", "score"]].to_numpy()
        for position, word in enumerate(text.split())
    ]
    labels = pd.DataFrame(rows, columns=["filename", "position", "word", "share"])
    labels.to_csv(folder / "data" / "train_words.csv", index=False)


def test_labels_of_words_are_learned_from(folder: Path, run: Any) -> None:
    write_labels_of_words(folder)
    write_token_scorer(folder, "modeltok", 1.5, seed=5)
    write_token_scorer(folder, "modeltokb", 0.2, seed=6)
    run()
    words_of = load(folder).words
    assert words_of is not None
    assert words_of.weight_of["modeltok"] > 0.6
    (folder / "data" / "train_words.csv").write_text("filename,position,word,share\nx,0,a,2\n")
    status, _, errors = run()
    assert status in (None, 2)
    assert "Traceback" not in errors


def test_a_model_without_weight_scores_no_words(folder: Path, run: Any) -> None:
    write_token_scorer(folder, "modeltok", 3.0, seed=5)
    write_token_scorer(folder, "modeltokb", -3.0, seed=6)
    run()
    config = load(folder)
    assert config.words is not None and config.words.models == ("modeltok",)


def test_without_a_model_that_scores_words_there_is_no_calibration_of_words(
    finished: tuple[Path, str],
) -> None:
    folder, output = finished
    assert load(folder).words is None
    assert "words" not in load(folder).log_losses
    assert "No model of the ensemble scores words" in output


def test_changed_or_missing_word_scores_are_refused(folder: Path, run: Any) -> None:
    write_token_scorer(folder, "modeltok", 3.0, seed=5)
    file = FoldFiles(folder / "assets", "modeltok", 1).table("words")
    file.write_text(file.read_text().replace("text", "test"))
    status, _, errors = run()
    assert status == 2
    assert "modeltok_1.words.csv" in errors and "python train_modeltok.py --fold 1" in errors
    write_token_scorer(folder, "modeltok", 3.0, seed=5)
    write_folds(folder / "assets", "modeltok", make_predictions(3.0, 5), folds=[1])
    status, _, errors = run()
    assert status == 2
    assert "modeltok: folds [1] lack word scores; train them again" in errors


def write_timed_folds(folder: Path) -> None:
    """Write the three models again, with folds that take 1, 10 and 100 s."""
    for place, (model, predictions) in enumerate(MODELS.items()):
        epoch = {"epoch": 1, "validation_seconds": 10.0**place / 3}  # a fold holds out a third
        write_folds(folder / "assets", model, predictions, epochs=[epoch])


def test_a_time_limit_chooses_models_and_folds(folder: Path, run: Any) -> None:
    write_timed_folds(folder)
    status, output, _ = run("--time-limit", "50s")
    assert status is None
    config, plan = load(folder), section(output, "Within 0:00:50, 96 clips")
    assert {m.name: m.folds for m in config.models} == {"model1m": (0, 1, 2), "model2m": (0, 1, 2)}
    full, kept = scores_of().cross_fitted, stacking_data(PREDICTIONS[:2])
    cross_fitted = score_ensemble(kept, "logits", "platt_by_group").cross_fitted
    assert config.log_losses["cross_fitted"] == pytest.approx(cross_fitted)
    assert not plan  # its cells are durations, checked below
    for name, duration, loss in (
        ("full ensemble", "0:05:33", full),
        ("half of every model's folds", "0:03:42", full),
        ("within the limit", "0:00:33", cross_fitted),
    ):
        assert re.search(rf"^{name} +{duration} +{loss:.4f}$", output, re.MULTILINE), output
    assert "cannot show" in output


def test_fallbacks_are_written_with_their_cross_fitted_log_loss(folder: Path, run: Any) -> None:
    write_timed_folds(folder)
    _, output, _ = run()
    config = load(folder)
    assert [model.seconds_per_clip for model in config.models] == pytest.approx(
        [1 / 96, 10 / 96, 100 / 96], rel=0.05
    )
    names = [list(fallback.weights) for fallback in config.fallbacks]
    assert sorted(of_it for of_it in names if len(of_it) == 1) == [[name] for name in NAMES]
    assert any(len(of_it) == 2 for of_it in names)
    losses = [fallback.log_loss for fallback in config.fallbacks]
    assert losses == sorted(losses, reverse=True)
    for fallback in config.fallbacks:
        of_it = [MODELS[name] for name in fallback.weights]
        expected = score_ensemble(stacking_data(np.stack(of_it)), "logits", "platt_by_group")
        assert fallback.log_loss == pytest.approx(expected.cross_fitted)
        assert fallback.calibration == expected.ensemble.calibration
        np.testing.assert_allclose(list(fallback.weights.values()), expected.ensemble.weights)
        assert f"{fallback.log_loss:.4f}  {', '.join(fallback.weights)}\n" in output
        assert fallback.words is None


def test_words_are_calibrated_for_each_fallback(folder: Path, run: Any) -> None:
    write_timed_folds(folder)
    epoch = {"epoch": 1, "validation_seconds": 1.0}
    log_odds = write_token_scorer(folder, "modeltok", 1.5, seed=5, epochs=[epoch])
    run()
    config, labels = load(folder), make_metadata()["score"].to_numpy()
    expected = fit_to_clips(log_odds, labels)
    scoring = [fallback for fallback in config.fallbacks if "modeltok" in fallback.weights]
    assert scoring and len(scoring) < len(config.fallbacks)
    for fallback in config.fallbacks:
        assert (fallback.words is not None) == (fallback in scoring)
        if fallback.words is not None:
            assert fallback.words.said.slope == pytest.approx(expected.said.slope, rel=1e-3)


def test_without_times_there_are_no_fallbacks(finished: tuple[Path, str]) -> None:
    folder, output = finished
    assert "infer cannot use --time_limit" in output
    assert load(folder).fallbacks == ()


def test_times_are_of_the_rows_to_score(folder: Path, run: Any) -> None:
    write_timed_folds(folder)
    _, output, _ = run("--time-limit", "50s", "--rows", "48")  # half as many clips
    assert "Within 0:00:50, 48 clips" in output
    assert re.search(r"^full ensemble +0:02:46 ", output, re.MULTILINE)
    run("--time-limit", "11s", "--rows", "96")
    folds = {model.name: len(model.folds) for model in load(folder).models}
    assert sum(folds.values()) < 6 and "model3mapd" not in folds


def test_a_limit_too_short_for_every_model_is_refused(folder: Path, run: Any) -> None:
    status, _, errors = run("--time-limit", "2h")
    assert status == 2 and "lacks the validation times" in errors
    write_timed_folds(folder)
    status, _, errors = run("--time-limit", "0.5s")
    assert status == 2 and "the fastest fold alone takes 0:00:01" in errors
    for flags in (["--time-limit", "soon"], ["--rows", "9"], ["--time-limit", "2h", "--rows", "0"]):
        status, _, _ = run(*flags)
        assert status == 2
    assert not (folder / "model_configs.json").exists()


def compared(output: str) -> dict[str, list[float]]:
    return section(output, "Log loss here, of ")


def test_an_ensemble_is_compared_with_one_of_fewer_models(folder: Path, run: Any) -> None:
    assets = str(folder / "assets")
    _, output, _ = run("--compare_with", assets, "--compare_models", "model1m", "model2m")
    assert f"The other ensemble, of {assets}: model1m, model2m" in output
    n_rows, here, there, difference, low, high = compared(output)["all"]
    kind = "platt_by_group"
    others = cross_fit(stacking_data(PREDICTIONS[:2]), "logits", [kind])[kind]
    assert n_rows == len(others)
    assert here == pytest.approx(printed_loss(output, "weighted ensemble"), abs=1e-4)
    assert there == pytest.approx(mean_log_loss(make_data().labels, others), abs=1e-4)
    assert difference == pytest.approx(here - there, abs=2e-4)
    assert low < difference < high


def test_ensembles_are_compared_by_cause(folder: Path, run: Any) -> None:
    make_causes().to_csv(folder / "why.csv", index=False)
    flags = ("--causes", str(folder / "why.csv"), "--compare_with", str(folder / "assets"))
    _, output, _ = run(*flags)
    for part in ("omit", "substitute", "all"):
        assert compared(output)[part][3:] == [0, 0, 0]


def test_ensembles_of_other_rows_are_not_compared(folder: Path, run: Any) -> None:
    write_folds(folder / "otherwise", "model1m", MODELS["model1m"], [0, 2])
    status, _, errors = run("--compare_with", str(folder / "otherwise"))
    assert status == 2
    assert "the ensembles do not predict the same rows: 32 rows" in errors


def test_models_to_compare_with_need_their_folder(run: Any) -> None:
    status, _, errors = run("--compare_models", "model1m")
    assert status == 2
    assert "--compare_models needs --compare_with" in errors
