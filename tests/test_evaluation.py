"""Out-of-fold tables, and the fabricated folds that other tests read as well."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from hearback import evaluation
from hearback.checkpoint import FoldFiles, save_fold
from hearback.errors import HearbackError
from hearback.evaluation import OutOfFold
from hearback.tables import GRADES, TASKS

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
    **changes: Any,
) -> None:
    """Write finished folds of `model`, their stories as a training has them but for `changes`."""
    table = make_metadata()[["filename", "score"]].assign(pred=predictions)
    for fold in folds:
        rows = table[table.index % N_FOLDS == fold]
        story = {
            "recipe_fingerprint": "recipe",
            "data_fingerprint": "data",
            **{"n_folds": N_FOLDS, "group_by": None, "limit": None},
            **{"base_rate": BASE_RATE, "voice": VOICE, "n_validation": len(rows), "seconds": 30.0},
            "epochs": [{"epoch": 1, "validation_log_loss": log_loss(rows["score"], rows["pred"])}],
            "command_again": f"python train_{model}.py --fold {fold} --n_folds 3 --attempt 2",
            **changes,
        }
        save_fold(FoldFiles(assets, model, fold), {"weight": torch.zeros(1)}, rows, story)


def test_row_log_loss_by_hand() -> None:
    scores, predictions = pd.Series([1.0, 0, 1, 0]), pd.Series([0.8, 0.8, 0.5, 0.1])
    expected = [-np.log(0.8), -np.log(0.2), np.log(2), -np.log(0.9)]
    np.testing.assert_allclose(evaluation.row_log_loss(scores, predictions), expected)


def test_a_certain_mistake_has_a_finite_loss() -> None:
    scores, predictions = pd.Series([1.0, 0, 1, 0]), pd.Series([0.0, 1, 1, 0])
    losses = evaluation.row_log_loss(scores, predictions)
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
    assert list(evaluation.folds_that_stand_out(out_of_fold(*losses))) == outliers


def test_the_gain_counts_and_not_the_loss() -> None:
    # A fold of a harder mix of labels: its loss is higher, and so is the base rate's.
    table = out_of_fold(0.22, 0.23, 0.30, 0.24)
    assert list(evaluation.folds_that_stand_out(table)) == [2]
    table.rows.loc[table.rows["fold"] == 2, "base"] = 0.5 * np.exp(-0.07)
    assert not evaluation.folds_that_stand_out(table)


def test_the_reason_gives_the_numbers() -> None:
    reason = evaluation.folds_that_stand_out(out_of_fold(0.22, 0.23, 0.30, 0.24))[2]
    gain, median = np.log(2) - 0.30, np.log(2) - 0.23
    for number in (0.30, 0.23, gain, median):
        assert f"{number:.4f}" in reason


@pytest.mark.parametrize("decimals", [1, 8])
def test_area_under_curve_is_scikit_learn_s(decimals: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 2, 200)
    predictions = (scores + rng.normal(0, 1, 200)).round(decimals)  # with one decimal, ties
    area = evaluation.area_under_curve(scores, predictions)
    assert area == pytest.approx(roc_auc_score(scores, predictions))


@pytest.mark.parametrize("score", [0, 1])
def test_one_class_has_no_area_under_the_curve(score: int) -> None:
    assert np.isnan(evaluation.area_under_curve(np.full(3, score), np.array([0.1, 0.2, 0.3])))


def standard_error(values: np.ndarray, groups: np.ndarray) -> float:
    return evaluation.bootstrap_standard_error(values, groups, np.random.default_rng(0))


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


def with_curves(curves: Sequence[Sequence[float]], n_rows: Sequence[int]) -> OutOfFold:
    stories = {
        fold: {"epochs": [{"validation_log_loss": loss} for loss in curve], "n_validation": n}
        for fold, (curve, n) in enumerate(zip(curves, n_rows, strict=True))
    }
    return OutOfFold("model1m", len(curves), pd.DataFrame(), stories)


def test_a_blind_epoch_is_the_one_that_the_other_folds_would_choose() -> None:
    table = with_curves([[0.60, 0.50, 0.70], [0.60, 0.65, 0.55], [0.6, 0.58, 0.56]], [1, 1, 2])
    # The mean of folds 1 and 2 is lowest in epoch 3, that of 0 and 2 in 2, that of 0 and 1 in 2.
    assert table.log_loss_at_a_blind_epoch() == pytest.approx((0.70 + 0.65 + 2 * 0.58) / 4)


@pytest.mark.parametrize("curves", [[[0.6, 0.5]], [[0.6, 0.5], [0.6]]])
def test_curves_that_cannot_be_compared_have_no_blind_epoch(curves: list[list[float]]) -> None:
    assert np.isnan(with_curves(curves, [1] * len(curves)).log_loss_at_a_blind_epoch())


def test_folds_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    predictions = make_predictions(2)
    write_folds(tmp_path, "model1m", predictions)
    write_folds(tmp_path, "model2ds", make_predictions(1), folds=[2, 0])
    (tmp_path / "model3mb_0.partial").touch()  # under way
    (tmp_path / "model3mb_0.oof.csv").touch()
    first, second = evaluation.read_out_of_fold(tmp_path)
    assert (first.model, list(first.stories), first.missing_folds) == ("model1m", [0, 1, 2], [])
    assert (second.model, list(second.stories), second.missing_folds) == ("model2ds", [0, 2], [1])
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
    frame = evaluation.by_fold(tables)
    assert list(frame.columns) == ["fold 0", "fold 1", "fold 2"]
    assert frame.isna().to_numpy().tolist() == [[False] * 3, [False, True, False]]
    scores, predictions = make_metadata()["score"][2::3], make_predictions(2)[2::3]
    assert frame.loc["model1m", "fold 2"] == pytest.approx(log_loss(scores, predictions))


@pytest.mark.parametrize("column", ["task", "grade"])
def test_log_loss_by_column(tables: list[OutOfFold], column: str) -> None:
    metadata = make_metadata()
    frame = evaluation.by_column(tables, metadata.drop(columns="score"), column)
    assert list(frame.columns) == ["rows", "base rate", "model1m", "model2ds"]
    assert frame["rows"].sum() == N_ROWS
    for value, rows in metadata.assign(pred=make_predictions(2)).groupby(column):
        assert frame.loc[value, "rows"] == len(rows)
        assert frame.loc[value, "model1m"] == pytest.approx(log_loss(rows["score"], rows["pred"]))
        base = np.full(len(rows), BASE_RATE)
        assert frame.loc[value, "base rate"] == pytest.approx(log_loss(rows["score"], base))


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
