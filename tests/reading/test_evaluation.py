"""Out-of-fold tables, and the fabricated folds that other tests read as well."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import bootstrap, metrics
from hearback.engine.evaluation import oof as oof_module
from hearback.engine.evaluation import outliers as fold_outliers
from hearback.engine.evaluation.oof import OutOfFold
from hearback.engine.training.fold_files import FoldFiles, save_fold
from hearback.reading import evaluation
from hearback.reading.tables import GRADES, TASKS

N_ROWS, N_FOLDS = 96, 3
VOICE = {"backend": "tones", "speed": 0.7}
BASE_RATE = 0.6


def make_metadata() -> pd.DataFrame:
    """Return 96 rows with their score; row `i` belongs to fold `i % 3`."""
    numbers = np.arange(N_ROWS)
    return pd.DataFrame(
        {
            "filename": [f"{number:03}.wav" for number in numbers],
            "task": [TASKS[number // 3 % 4] for number in numbers],
            "expected_text": [f"text {number // 3 % 12}" for number in numbers],
            "grade": [GRADES[number // 24] for number in numbers],
            "speaker": [f"s{number % 24}" for number in numbers],
            "score": (numbers * 7 % 5 < 3).astype(float),
        }
    )


def make_predictions(quality: float, seed: int = 0) -> np.ndarray:
    """Return (96,) probabilities; quality 0 is noise."""
    sign = 2 * make_metadata()["score"].to_numpy() - 1
    logits = quality * sign + np.random.default_rng(seed).normal(0, 1, N_ROWS)
    return 1 / (1 + np.exp(-logits))


def write_data(data: Path, table: pd.DataFrame | None = None) -> None:
    """Write the training tables, without recordings, to the folder `data`."""
    table = make_metadata() if table is None else table
    data.mkdir(parents=True)
    table.drop(columns="score").to_csv(data / "train_metadata.csv", index=False)
    table[["filename", "score"]][::-1].to_csv(data / "train_labels.csv", index=False)


def write_folds(
    assets: Path,
    model: str,
    predictions: np.ndarray,
    folds: Sequence[int] = range(N_FOLDS),
    words: pd.DataFrame | None = None,
    **changes: Any,
) -> None:
    """Write finished folds of `model`, their metadata as a training has them but for `changes`.

    `words` is the table of the word scores of all rows, for a model that has them.
    """
    table = make_metadata()[["filename", "score"]].assign(pred=predictions)
    for fold in folds:
        rows = table[table.index % N_FOLDS == fold]
        fold_metadata = {
            "recipe": {"pair": "joined"},
            "recipe_fingerprint": "recipe",
            "data_fingerprint": "data",
            **{"n_folds": N_FOLDS, "group_by": None, "limit": None},
            **{"base_rate": BASE_RATE, "voice": VOICE, "n_validation": len(rows), "seconds": 30.0},
            "epochs": [{"epoch": 1, "validation_log_loss": log_loss(rows["score"], rows["pred"])}],
            "retrain_command": f"python train_{model}.py --fold {fold} --n_folds 3 --attempt 2",
            **changes,
        }
        of_fold = None if words is None else words[words["filename"].isin(rows["filename"])]
        files = FoldFiles(assets, model, fold)
        save_fold(files, {"weight": torch.zeros(1)}, rows, fold_metadata, of_fold)


def test_row_log_loss_by_hand() -> None:
    scores, predictions = pd.Series([1.0, 0, 1, 0]), pd.Series([0.8, 0.8, 0.5, 0.1])
    expected = [-np.log(0.8), -np.log(0.2), np.log(2), -np.log(0.9)]
    np.testing.assert_allclose(metrics.row_log_loss(scores, predictions), expected)


def test_a_certain_mistake_has_a_finite_loss() -> None:
    scores, predictions = pd.Series([1.0, 0, 1, 0]), pd.Series([0.0, 1, 1, 0])
    losses = metrics.row_log_loss(scores, predictions)
    np.testing.assert_allclose(losses, [-np.log(1e-7)] * 2 + [0, 0], atol=2e-7)


def out_of_fold(*losses: float, base: float = 0.5) -> OutOfFold:
    """Return folds of two rows with these log losses, where the base rate's is -log(`base`)."""
    folds = np.repeat(np.arange(len(losses)), 2)
    pred = np.exp(-np.array(losses))[folds]
    rows = pd.DataFrame({"score": 1.0, "pred": pred, "fold": folds, "base": base})
    return OutOfFold("model1m", len(losses), rows, {})


@pytest.mark.parametrize(
    ("losses", "outliers"),
    [
        # The example of the rule: siblings at 0.22 to 0.24, above 0.28 stands out.
        ((0.22, 0.225, 0.23, 0.285, 0.235, 0.24), [3]),
        ((0.22, 0.225, 0.23, 0.26, 0.235, 0.24), []),
        ((0.22, 0.23, 0.69, 0.24, 0.23, 0.69), [2, 5]),
        ((0.22, 0.23, 0.15, 0.24, 0.23, 0.225), []),  # better than its siblings
        # A small corpus: siblings gain little on the base rate of 0.693, one fold nothing.
        ((0.61, 0.625, 0.62, 0.63, 0.693, 0.615), [4]),
        ((0.61, 0.625, 0.62, 0.63, 0.635, 0.615), []),
        # Folds that differ much by nature: no worse than usual.
        ((0.50, 0.56, 0.62, 0.53, 0.64, 0.59), []),
        ((0.62, 0.61, 0.69), [2]),
        ((0.22, 0.69), []),  # which of two is usual cannot be told
        ((0.22,), []),
    ],
)
def test_folds_that_learned_less_than_their_siblings_stand_out(
    losses: tuple[float, ...], outliers: list[int]
) -> None:
    assert list(fold_outliers.folds_that_stand_out(out_of_fold(*losses))) == outliers


def test_the_gain_counts_and_not_the_loss() -> None:
    # A fold of a harder mix of labels: its loss is higher, and so is the base rate's.
    table = out_of_fold(0.22, 0.23, 0.30, 0.24)
    assert list(fold_outliers.folds_that_stand_out(table)) == [2]
    table.rows.loc[table.rows["fold"] == 2, "base"] = 0.5 * np.exp(-0.07)
    assert not fold_outliers.folds_that_stand_out(table)


def test_the_reason_gives_the_numbers() -> None:
    reason = fold_outliers.folds_that_stand_out(out_of_fold(0.22, 0.23, 0.30, 0.24))[2]
    gain, median = np.log(2) - 0.30, np.log(2) - 0.23
    for number in (0.30, 0.23, gain, median):
        assert f"{number:.4f}" in reason


def story_with(norm: float, loss: float) -> dict[str, Any]:
    """Return what is read of a metadata, of an epoch that went like this at each of 100 steps."""
    return {
        "epochs": [{"epoch": 1, "losses": [loss] * 100, "gradient_norms": [norm] * 100}],
        "retrain_command": "again",
    }


@pytest.mark.parametrize(
    ("last", "stalled"),
    [
        ((0.01, 0.69), True),
        ((0.01, 0.3), False),  # little is left to learn
        ((0.8, 0.69), False),
    ],
)
def test_a_fold_that_stalled_before_its_siblings_were_there_stands_out(
    last: tuple[float, float], stalled: bool
) -> None:
    metadata_by_fold = {0: story_with(*last), 1: story_with(1.0, 0.3), 2: story_with(2.0, 0.35)}
    table = replace(out_of_fold(0.3, 0.3, 0.3), metadata_by_fold=metadata_by_fold)
    found = fold_outliers.folds_that_stand_out(table)
    assert list(found) == ([0] if stalled else [])
    if stalled:
        assert found[0].startswith("epoch 1, step 60: gradient norm 0.01 and loss 0.690, other ")


def test_a_fold_that_stalled_and_learned_less_says_both() -> None:
    metadata_by_fold = {
        0: story_with(0.01, 0.69),
        1: story_with(1.0, 0.3),
        2: story_with(2.0, 0.35),
    }
    table = replace(out_of_fold(0.69, 0.3, 0.3), metadata_by_fold=metadata_by_fold)
    (reason,) = fold_outliers.folds_that_stand_out(table).values()
    assert reason.startswith("log loss 0.6900") and "; epoch 1, step 60: gradient norm" in reason


@pytest.mark.parametrize("decimals", [1, 8])
def test_area_under_curve_is_scikit_learn_s(decimals: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 2, 200)
    predictions = (scores + rng.normal(0, 1, 200)).round(decimals)  # with one decimal, ties
    area = metrics.area_under_curve(scores, predictions)
    assert area == pytest.approx(roc_auc_score(scores, predictions))


@pytest.mark.parametrize("score", [0, 1])
def test_one_class_has_no_area_under_the_curve(score: int) -> None:
    assert np.isnan(metrics.area_under_curve(np.full(3, score), np.array([0.1, 0.2, 0.3])))


def standard_error(values: np.ndarray, groups: np.ndarray) -> float:
    return bootstrap.bootstrap_standard_error(values, groups, np.random.default_rng(0))


def test_the_bootstrap_of_independent_rows_is_the_analytic_error() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    analytic = values.std(ddof=1) / np.sqrt(len(values))
    assert standard_error(values, np.arange(400)) == pytest.approx(analytic, rel=0.1)


def test_rows_that_go_together_tell_less() -> None:
    values = np.random.default_rng(1).normal(3, 2, 100)
    copies, names = np.repeat(values, 4), np.repeat([f"s{number}" for number in range(100)], 4)
    by_speaker = standard_error(copies, names)
    # Four copies of a row are one row: independent, they would seem to have half the error.
    assert by_speaker == pytest.approx(standard_error(values, np.arange(100)), rel=0.1)
    assert standard_error(copies, np.arange(400)) == pytest.approx(by_speaker / 2, rel=0.1)


def test_equal_rows_have_no_error_however_large_their_groups() -> None:
    groups = np.array([0, 1, 1, 2, 2, 2, 2])
    assert standard_error(np.full(7, 0.3), groups) == pytest.approx(0, abs=1e-12)


def test_a_bootstrap_draws_whole_groups_of_any_totals() -> None:
    rng = np.random.default_rng(0)
    values, groups = rng.normal(5, 1, 60), np.arange(60) // 3
    totals = np.stack([np.bincount(groups, values), np.bincount(groups)], axis=1)
    # The same as pairs of pairs, for a statistic that is not the plain mean of a vector.
    squares = totals.reshape(20, 1, 2)
    draws = bootstrap.bootstrap(squares, lambda t: t[0, 0] / t[0, 1], np.random.default_rng(1))
    interval = bootstrap.bootstrap_interval(values, groups, np.random.default_rng(1))
    assert bootstrap.percentile_interval(draws) == pytest.approx(interval)
    of_groups = values.reshape(20, 3).mean(axis=1)
    assert draws.std() == pytest.approx(of_groups.std() / np.sqrt(20), rel=0.1)
    constant = bootstrap.bootstrap(squares, lambda t: t[0, 1], np.random.default_rng(1))
    assert set(constant) == {60.0}


def with_curves(curves: Sequence[Sequence[float]], n_rows: Sequence[int]) -> OutOfFold:
    metadata_by_fold = {
        fold: {"epochs": [{"validation_log_loss": loss} for loss in curve], "n_validation": n}
        for fold, (curve, n) in enumerate(zip(curves, n_rows, strict=True))
    }
    return OutOfFold("model1m", len(curves), pd.DataFrame(), metadata_by_fold)


def test_a_blind_epoch_is_the_one_that_the_other_folds_would_choose() -> None:
    table = with_curves([[0.60, 0.50, 0.70], [0.60, 0.65, 0.55], [0.6, 0.58, 0.56]], [1, 1, 2])
    # The mean of folds 1 and 2 is lowest in epoch 3, that of 0 and 2 in 2, that of 0 and 1 in 2.
    assert table.blind_epoch_log_loss() == pytest.approx((0.70 + 0.65 + 2 * 0.58) / 4)


@pytest.mark.parametrize("curves", [[[0.6, 0.5]], [[0.6, 0.5], [0.6]]])
def test_curves_that_cannot_be_compared_have_no_blind_epoch(curves: list[list[float]]) -> None:
    assert np.isnan(with_curves(curves, [1] * len(curves)).blind_epoch_log_loss())


def test_folds_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    predictions = make_predictions(2)
    write_folds(tmp_path, "model1m", predictions)
    write_folds(tmp_path, "model2ds", make_predictions(1), folds=[2, 0])
    (tmp_path / "model3mb_0.partial").touch()  # under way
    (tmp_path / "model3mb_0.oof.csv").touch()
    first, second = evaluation.read_out_of_fold(tmp_path)
    assert (first.model, list(first.metadata_by_fold), first.missing_folds) == (
        "model1m",
        [0, 1, 2],
        [],
    )
    assert (second.model, list(second.metadata_by_fold), second.missing_folds) == (
        "model2ds",
        [0, 2],
        [1],
    )
    rows = first.rows.set_index("filename").sort_index()
    np.testing.assert_array_equal(rows["pred"], predictions)
    np.testing.assert_array_equal(rows["fold"], np.arange(N_ROWS) % N_FOLDS)
    assert set(rows["base"]) == {BASE_RATE}
    (chosen,) = evaluation.read_out_of_fold(tmp_path, ["model2ds"])
    assert chosen.model == "model2ds"


@pytest.mark.parametrize("models", [None, ["model1m"]])
def test_no_finished_fold_is_an_error_that_says_what_to_run(
    tmp_path: Path, models: list[str] | None
) -> None:
    with pytest.raises(HearbackError, match=r"no finished fold.*(train\.py|there are none)"):
        evaluation.read_out_of_fold(tmp_path, models)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recipe_fingerprint", "another"),
        ("n_folds", 4),
        ("group_by", "expected_text"),
        ("limit", 50),
        ("data_fingerprint", "another"),
    ],
)
def test_folds_of_different_trainings_do_not_mix(tmp_path: Path, field: str, value: Any) -> None:
    write_folds(tmp_path, "model1m", make_predictions(2), folds=[0, 1])
    write_folds(tmp_path, "model1m", make_predictions(2), folds=[2], **{field: value})
    said = f"folds differ in {field.replace('_', ' ')}.*{value}: model1m fold 2.*train.py"
    with pytest.raises(HearbackError, match=said):
        evaluation.read_out_of_fold(tmp_path)


def test_models_of_different_data_do_not_mix(tmp_path: Path) -> None:
    write_folds(tmp_path, "model1m", make_predictions(2))
    write_folds(tmp_path, "model2ds", make_predictions(1), data_fingerprint="another")
    with pytest.raises(HearbackError, match="differ in data fingerprint"):
        evaluation.read_out_of_fold(tmp_path)
    assert len(evaluation.read_out_of_fold(tmp_path, ["model2ds"])) == 1


def test_a_changed_table_of_predictions_is_refused_with_the_command(tmp_path: Path) -> None:
    write_folds(tmp_path, "model1m", make_predictions(2))
    oof = FoldFiles(tmp_path, "model1m", 1).oof
    oof.write_text(oof.read_text().replace("001.wav,1.0", "001.wav,0.0"))
    with pytest.raises(HearbackError, match=r"(?s)model1m_1\.oof\.csv.*train_model1m\.py --fold 1"):
        evaluation.read_out_of_fold(tmp_path)


@pytest.fixture
def tables(tmp_path: Path) -> list[OutOfFold]:
    """All folds of a good model, and two of a weaker one."""
    write_folds(tmp_path, "model1m", make_predictions(2))
    write_folds(tmp_path, "model2ds", make_predictions(1, seed=1), folds=[0, 2])
    return evaluation.read_out_of_fold(tmp_path)


def test_the_summary_has_what_scikit_learn_computes(tables: list[OutOfFold]) -> None:
    metadata = make_metadata().drop(columns="score")
    summary = evaluation.summary(tables, metadata)
    scores, predictions = make_metadata()["score"], make_predictions(2)
    row = summary.loc["model1m"]
    loss = log_loss(scores, predictions)
    base_loss = log_loss(scores, np.full(N_ROWS, BASE_RATE))
    assert row["rows"] == N_ROWS
    assert row["log loss"] == pytest.approx(loss)
    assert row["below base rate"] == pytest.approx(base_loss - loss)
    assert row["AUC"] == pytest.approx(roc_auc_score(scores, predictions))
    assert row["minutes"] == pytest.approx(1.5)
    assert 0 < row["± (by speaker)"] < row["below base rate"]
    assert summary.loc["model2ds", "rows"] == N_ROWS * 2 / 3
    assert "± (by filename)" in evaluation.summary(tables, metadata.drop(columns="speaker"))


def test_the_mean_over_texts_counts_each_text_once(tmp_path: Path) -> None:
    # One text of 64 rows that is known, and one of 32 that is not.
    metadata = make_metadata().assign(expected_text=["known", "known", "unknown"] * 32)
    scores = metadata.pop("score")
    right = np.where(metadata["expected_text"] == "known", 0.9, 0.5)
    write_folds(tmp_path, "model1m", np.where(scores > 0, right, 1 - right))
    summary = evaluation.summary(evaluation.read_out_of_fold(tmp_path), metadata)
    expected = (-np.log(0.9) - np.log(0.5)) / 2
    assert summary.loc["model1m", "mean over texts"] == pytest.approx(expected)


def test_log_loss_by_fold_leaves_a_gap_where_none_is_trained(tables: list[OutOfFold]) -> None:
    frame = oof_module.by_fold(tables)
    assert list(frame.columns) == ["fold 0", "fold 1", "fold 2"]
    assert frame.isna().to_numpy().tolist() == [[False] * 3, [False, True, False]]
    scores, predictions = make_metadata()["score"][2::3], make_predictions(2)[2::3]
    assert frame.loc["model1m", "fold 2"] == pytest.approx(log_loss(scores, predictions))


@pytest.mark.parametrize("column", ["task", "grade"])
def test_log_loss_by_column(tables: list[OutOfFold], column: str) -> None:
    metadata = make_metadata()
    frame = evaluation.by_column(tables, metadata.drop(columns="score"), column)
    assert list(frame.columns) == ["rows", "base rate", "model1m", "model2ds"]
    assert list(frame.index[:4]) == list(TASKS if column == "task" else GRADES)
    assert frame["rows"][:4].sum() == N_ROWS
    for value, rows in metadata.assign(pred=make_predictions(2)).groupby(column):
        assert frame.loc[value, "rows"] == len(rows)
        assert frame.loc[value, "model1m"] == pytest.approx(log_loss(rows["score"], rows["pred"]))
        base = np.full(len(rows), BASE_RATE)
        assert frame.loc[value, "base rate"] == pytest.approx(log_loss(rows["score"], base))


def test_the_youngest_are_shown_together(tables: list[OutOfFold]) -> None:
    frame = evaluation.by_column(tables, make_metadata(), "grade")
    assert list(frame.index) == [*GRADES, "KG and 1"]
    youngest = make_metadata()["grade"].isin(["KG", "1"])
    row = frame.loc["KG and 1"]
    assert row["rows"] == 48
    scores, predictions = make_metadata()["score"][youngest], make_predictions(2)[youngest]
    assert row["model1m"] == pytest.approx(log_loss(scores, predictions))
    # A table without them has no such line.
    rows = tables[0].rows
    older = [OutOfFold("model1m", 3, rows[rows["filename"] >= "072.wav"], {})]
    assert list(evaluation.by_column(older, make_metadata(), "grade").index) == ["3"]


def test_auc_by_grade(tables: list[OutOfFold]) -> None:
    metadata = make_metadata().assign(pred=make_predictions(2))
    frame = evaluation.areas_by_grade(tables, make_metadata())
    assert list(frame.index) == [*GRADES, "KG and 1"]
    youngest = metadata[metadata["grade"].isin(["KG", "1"])]
    for grade, rows in [*metadata.groupby("grade"), ("KG and 1", youngest)]:
        area = roc_auc_score(rows["score"], rows["pred"])
        assert frame.loc[grade, "model1m"] == pytest.approx(area)


def test_the_bootstrap_interval_of_independent_rows_is_the_analytic_one() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = bootstrap.bootstrap_interval(values, np.arange(400), np.random.default_rng(0))
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_the_log_loss_has_an_interval_by_speaker() -> None:
    rows = make_metadata()
    loss, (low, high) = evaluation.log_loss_with_interval(rows, make_predictions(1))
    assert loss == pytest.approx(log_loss(rows["score"], make_predictions(1)))
    assert low < loss < high
    alone = rows.assign(speaker="s0")  # nothing is known of how speakers differ
    _, (low, high) = evaluation.log_loss_with_interval(alone, make_predictions(1))
    assert low == pytest.approx(loss) == high


def make_calibrated(n_rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, (rows,), and labels drawn with them."""
    rng = np.random.default_rng(0)
    predictions = 1 / (1 + np.exp(-rng.normal(0, 1.5, n_rows)))
    return predictions, (rng.random(n_rows) < predictions).astype(float)


def test_the_expected_calibration_error_by_hand() -> None:
    predictions, labels = make_calibrated()
    error = metrics.expected_calibration_error
    assert error(labels, predictions) < 0.015
    assert error(labels, np.clip(predictions - 0.2, 0, 1)) == pytest.approx(0.18, abs=0.03)
    assert error(labels, np.full(len(labels), 0.8)) == pytest.approx(0.8 - labels.mean())
    # Ten bins, each off by its own distance, one way or the other: they do not cancel.
    steps = np.repeat(np.arange(10) / 10, 40)
    halves = np.tile([0.0, 1.0], 200)
    assert error(halves, steps) == pytest.approx(np.abs(np.arange(10) / 10 - 0.5).mean())
    shuffled = np.random.default_rng(0).permutation(400)
    assert error(halves[shuffled], steps[shuffled]) == pytest.approx(error(halves, steps))
    assert np.isnan(error(halves[:99], steps[:99]))


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, 0.0), (1.6, 0.7)])
def test_the_calibration_line_is_what_was_done_to_the_log_odds(
    slope: float, intercept: float
) -> None:
    truth, labels = make_calibrated()
    logits = np.log(truth / (1 - truth))
    predictions = 1 / (1 + np.exp(-(logits - intercept) / slope))
    found = metrics.calibration_line(labels, predictions)
    np.testing.assert_allclose(found, (slope, intercept), atol=0.06)


@pytest.mark.parametrize("labels", [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0]])
def test_labels_that_have_no_line_show_none(labels: list[int]) -> None:
    predictions = np.array([0.1, 0.2, 0.3, 0.9])
    assert np.isnan(metrics.calibration_line(np.array(labels), predictions)).all()


def test_calibration_by_grade_has_every_model_and_grade(tables: list[OutOfFold]) -> None:
    frame = evaluation.calibration_by_grade(tables, make_metadata())
    wanted = [(m, g) for m in ("model1m", "model2ds") for g in (*GRADES, "KG and 1", "all")]
    assert list(frame.index) == wanted
    of_it = make_metadata()["grade"] == "1"
    row = frame.loc[("model1m", "1")]
    assert row["rows"] == 24
    assert row["mean label"] == pytest.approx(make_metadata()["score"][of_it].mean())
    assert row["mean prediction"] == pytest.approx(make_predictions(2)[of_it].mean())
    everyone = frame.loc[("model2ds", "all")]
    assert everyone["rows"] == 64
    rows = make_metadata().assign(pred=make_predictions(1, seed=1))[lambda x: x.index % 3 != 1]
    line = metrics.calibration_line(rows["score"].to_numpy(), rows["pred"].to_numpy())
    np.testing.assert_allclose(everyone[["slope", "intercept"]].astype(float), line)


def make_causes() -> pd.DataFrame:
    """Return why each row has its score: correct, or by turns omit and substitute."""
    metadata = make_metadata()
    wrong = np.where(np.arange(N_ROWS) % 2, "omit", "substitute")
    why = np.where(metadata["score"] > 0, "correct", wrong)
    return pd.DataFrame({"filename": metadata["filename"], "age": "7", "why": why})


def read_causes(path: Path) -> tuple[pd.Series, Report]:
    report = Report()
    return evaluation.read_causes(path, make_metadata(), report), report


def test_causes_are_joined_on_the_filename(tmp_path: Path) -> None:
    causes = make_causes()
    surplus = pd.DataFrame({"filename": ["test.wav"], "age": ["6"], "why": ["omit"]})
    pd.concat([surplus, causes[::-1]]).to_csv(tmp_path / "why.csv", index=False)
    found, report = read_causes(tmp_path / "why.csv")
    assert not report.problems
    assert found.tolist() == causes["why"].tolist()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"", "cannot be read: No columns"),
        (b"filename,why\n\xff\xfe,omit\n", "cannot be read.*UTF-8"),
        (b"filename,why\n000.wav,omit\n001.wav,omit,again\n", "cannot be read.*line 3"),
        (b"filename;why\n", "'filename' is missing.*'filename;why'"),
        (b"filename,cause\n000.wav,omit\n", "'why' is missing.*'filename', 'cause'"),
    ],
)
def test_a_bad_file_of_causes_is_one_clear_problem(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "why.csv"
    if content is not None:
        path.write_bytes(content)
    _, report = read_causes(path)
    assert re.search(said, str(report), re.DOTALL), report
    assert str(path) in str(report)
    assert "no cause" not in str(report)  # the one fault


def test_rows_that_lack_a_cause_or_have_two_are_named(tmp_path: Path) -> None:
    causes = make_causes()
    wrong = causes["filename"][causes["why"] != "correct"].tolist()
    right = causes["filename"][causes["why"] == "correct"].tolist()
    causes.loc[causes["filename"] == wrong[0], "why"] = "  "
    kept = causes[~causes["filename"].isin([wrong[1], right[0]])]
    twice = pd.concat([kept, kept[kept["filename"] == wrong[2]]])
    twice.to_csv(tmp_path / "why.csv", index=False)
    _, report = read_causes(tmp_path / "why.csv")
    named = {(problem.what, problem.filename) for problem in report.errors}
    assert named == {
        ("no cause for a recording of score 0", wrong[0]),
        ("no cause for a recording of score 0", wrong[1]),
        ("duplicated filename", wrong[2]),
    }


def test_a_cause_s_area_is_of_all_correct_rows_against_its_own(tables: list[OutOfFold]) -> None:
    causes = make_causes()["why"]
    frame = evaluation.by_cause(tables, make_metadata(), causes)
    assert list(frame.index) == ["omit", "substitute"]
    scores, predictions = make_metadata()["score"], make_predictions(2)
    for cause in frame.index:
        rows = (scores > 0) | (causes == cause)
        expected = roc_auc_score(scores[rows], predictions[rows])
        assert frame.loc[cause, "model1m"] == pytest.approx(expected)
        assert frame.loc[cause, "rows"] == (causes == cause).sum()
    assert frame.loc["omit", "model2ds"] != frame.loc["omit", "model1m"]


@pytest.mark.parametrize(
    ("metadata", "family"),
    [
        ({"recipe": {"pair": "joined"}}, "comparison"),
        ({"recipe": {"pair": "tokens"}}, "token scorer"),
        ({"recipe": {"pair": "aligned"}}, "aligned comparison"),
        ({"baseline": {}}, "baseline"),
    ],
)
def test_a_model_s_family_is_how_learner_and_text_meet(
    tmp_path: Path, fold_metadata: dict[str, Any], family: str
) -> None:
    write_folds(tmp_path, "modelany", make_predictions(0), **fold_metadata)
    assert evaluation.read_out_of_fold(tmp_path)[0].family == family


def test_a_table_that_changed_since_the_training_is_refused(tables: list[OutOfFold]) -> None:
    metadata = make_metadata()
    evaluation.summary(tables, metadata)
    relabelled = metadata.assign(score=metadata["score"].where(metadata.index != 7, 0.5))
    for changed in (relabelled, metadata.drop(index=7)):
        with pytest.raises(HearbackError, match=rf"{metadata['filename'][7]}.*train\.py"):
            evaluation.summary(tables, changed)


def test_rows_that_not_every_model_predicted_are_left_out_of_the_ensemble(
    tables: list[OutOfFold],
) -> None:
    shuffled = make_metadata().drop(columns="score").sample(frac=1, random_state=0)
    joined = evaluation.join(tables, shuffled)
    expected = shuffled[shuffled.index % N_FOLDS != 1]
    assert joined["filename"].tolist() == expected["filename"].tolist()
    np.testing.assert_array_equal(joined["model1m"], make_predictions(2)[expected.index])
    np.testing.assert_array_equal(joined["model2ds"], make_predictions(1, seed=1)[expected.index])
    np.testing.assert_array_equal(joined["score"], make_metadata()["score"][expected.index])


def test_models_without_a_common_row_cannot_be_joined(tmp_path: Path) -> None:
    write_folds(tmp_path, "model1m", make_predictions(2), folds=[0])
    write_folds(tmp_path, "model2ds", make_predictions(1), folds=[1])
    tables = evaluation.read_out_of_fold(tmp_path)
    with pytest.raises(HearbackError, match="no row was predicted out of fold by every model"):
        evaluation.join(tables, make_metadata().drop(columns="score"))
