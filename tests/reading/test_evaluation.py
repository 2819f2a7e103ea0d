"""Out-of-fold predictions of reading, and the tables that evaluate them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import metrics
from hearback.engine.evaluation.fold_tables import log_loss_by_fold
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading import evaluation
from hearback.reading.evaluation import ReadingOutOfFold
from hearback.reading.tables import GRADES, TASKS
from tests.reading.fabricated_folds import (
    BASE_RATE,
    N_FOLDS,
    N_ROWS,
    make_causes,
    make_metadata,
    make_predictions,
    write_folds,
)


def test_folds_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    predictions = make_predictions(2)
    write_folds(tmp_path, "model1m", predictions)
    write_folds(tmp_path, "model2ds", make_predictions(1), folds=[2, 0])
    (tmp_path / "model3mb_0.checkpoint").touch()  # under way
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
def test_no_finished_fold_is_an_error_with_the_command(
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


def test_changed_predictions_are_refused_with_the_command(tmp_path: Path) -> None:
    write_folds(tmp_path, "model1m", make_predictions(2))
    oof = FoldFiles(tmp_path, "model1m", 1).oof
    oof.write_text(oof.read_text().replace("001.wav,1.0", "001.wav,0.0"))
    with pytest.raises(HearbackError, match=r"(?s)model1m_1\.oof\.csv.*train_model1m\.py --fold 1"):
        evaluation.read_out_of_fold(tmp_path)


@pytest.fixture
def tables(tmp_path: Path) -> list[ReadingOutOfFold]:
    """All folds of a good model, and two of a weaker one."""
    write_folds(tmp_path, "model1m", make_predictions(2))
    write_folds(tmp_path, "model2ds", make_predictions(1, seed=1), folds=[0, 2])
    return evaluation.read_out_of_fold(tmp_path)


def test_the_summary_equals_scikit_learn(tables: list[ReadingOutOfFold]) -> None:
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
    # A text with 64 good predictions, and one with 32 of probability 0.5.
    metadata = make_metadata().assign(expected_text=["known", "known", "unknown"] * 32)
    scores = metadata.pop("score")
    right = np.where(metadata["expected_text"] == "known", 0.9, 0.5)
    write_folds(tmp_path, "model1m", np.where(scores > 0, right, 1 - right))
    summary = evaluation.summary(evaluation.read_out_of_fold(tmp_path), metadata)
    expected = (-np.log(0.9) - np.log(0.5)) / 2
    assert summary.loc["model1m", "mean over texts"] == pytest.approx(expected)


def test_log_loss_by_fold_is_nan_where_no_fold_is_trained(tables: list[ReadingOutOfFold]) -> None:
    frame = log_loss_by_fold(tables)
    assert list(frame.columns) == ["fold 0", "fold 1", "fold 2"]
    assert frame.isna().to_numpy().tolist() == [[False] * 3, [False, True, False]]
    scores, predictions = make_metadata()["score"][2::3], make_predictions(2)[2::3]
    assert frame.loc["model1m", "fold 2"] == pytest.approx(log_loss(scores, predictions))


@pytest.mark.parametrize("column", ["task", "grade"])
def test_log_loss_by_column(tables: list[ReadingOutOfFold], column: str) -> None:
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


def test_the_youngest_have_a_row(tables: list[ReadingOutOfFold]) -> None:
    frame = evaluation.by_column(tables, make_metadata(), "grade")
    assert list(frame.index) == [*GRADES, "KG and 1"]
    youngest = make_metadata()["grade"].isin(["KG", "1"])
    row = frame.loc["KG and 1"]
    assert row["rows"] == 48
    scores, predictions = make_metadata()["score"][youngest], make_predictions(2)[youngest]
    assert row["model1m"] == pytest.approx(log_loss(scores, predictions))
    # A table without them has no such row.
    rows = tables[0].rows
    older = [ReadingOutOfFold("model1m", 3, rows[rows["filename"] >= "072.wav"], {})]
    assert list(evaluation.by_column(older, make_metadata(), "grade").index) == ["3"]


def test_auc_by_grade(tables: list[ReadingOutOfFold]) -> None:
    metadata = make_metadata().assign(pred=make_predictions(2))
    frame = evaluation.auc_by_grade(tables, make_metadata())
    assert list(frame.index) == [*GRADES, "KG and 1", "all"]
    youngest = metadata[metadata["grade"].isin(["KG", "1"])]
    for grade, rows in [*metadata.groupby("grade"), ("KG and 1", youngest), ("all", metadata)]:
        area = roc_auc_score(rows["score"], rows["pred"])
        assert frame.loc[grade, "model1m"] == pytest.approx(area)


def test_the_log_loss_has_an_interval_by_speaker() -> None:
    rows = make_metadata()
    loss, (low, high) = evaluation.log_loss_with_interval(rows, make_predictions(1))
    assert loss == pytest.approx(log_loss(rows["score"], make_predictions(1)))
    assert low < loss < high
    alone = rows.assign(speaker="s0")  # a single group has no spread
    _, (low, high) = evaluation.log_loss_with_interval(alone, make_predictions(1))
    assert np.isnan([low, high]).all()


def test_calibration_by_grade_has_every_model_and_grade(tables: list[ReadingOutOfFold]) -> None:
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
def test_an_invalid_file_of_causes_is_one_problem(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "why.csv"
    if content is not None:
        path.write_bytes(content)
    _, report = read_causes(path)
    assert re.search(said, str(report), re.DOTALL), report
    assert str(path) in str(report)
    assert "no cause" not in str(report)  # no further problem


def test_rows_without_a_cause_or_with_two_are_reported(tmp_path: Path) -> None:
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


def test_the_auc_of_a_cause_is_of_all_correct_rows_against_its_own(
    tables: list[ReadingOutOfFold],
) -> None:
    causes = make_causes()["why"]
    frame = evaluation.by_cause(tables, make_metadata(), causes)
    assert list(frame.index) == ["omit", "substitute", "all"]
    scores, predictions = make_metadata()["score"], make_predictions(2)
    assert frame.loc["all", "model1m"] == pytest.approx(roc_auc_score(scores, predictions))
    assert frame.loc["all", "rows"] == (scores == 0).sum()
    for cause in ("omit", "substitute"):
        rows = (scores > 0) | (causes == cause)
        expected = roc_auc_score(scores[rows], predictions[rows])
        assert frame.loc[cause, "model1m"] == pytest.approx(expected)
        assert frame.loc[cause, "rows"] == (causes == cause).sum()
    assert frame.loc["omit", "model2ds"] != frame.loc["omit", "model1m"]


@pytest.mark.parametrize(
    ("fold_metadata", "family"),
    [
        ({"recipe": {"pair": "joined"}}, "comparison"),
        ({"recipe": {"pair": "tokens"}}, "token scorer"),
        ({"recipe": {"pair": "phones"}}, "phone scorer"),
        ({"recipe": {"pair": "aligned"}}, "aligned comparison"),
        ({"baseline": {}}, "baseline"),
    ],
)
def test_the_family_of_a_model(tmp_path: Path, fold_metadata: dict[str, Any], family: str) -> None:
    write_folds(tmp_path, "modelany", make_predictions(0), **fold_metadata)
    assert evaluation.read_out_of_fold(tmp_path)[0].family == family


def test_a_table_changed_since_the_training_is_refused(tables: list[ReadingOutOfFold]) -> None:
    metadata = make_metadata()
    evaluation.summary(tables, metadata)
    relabelled = metadata.assign(score=metadata["score"].where(metadata.index != 7, 0.5))
    for changed in (relabelled, metadata.drop(index=7)):
        with pytest.raises(HearbackError, match=rf"{metadata['filename'][7]}.*train\.py"):
            evaluation.summary(tables, changed)


def test_only_rows_that_every_model_predicted_are_joined(
    tables: list[ReadingOutOfFold],
) -> None:
    shuffled = make_metadata().drop(columns="score").sample(frac=1, random_state=0)
    joined = evaluation.join(tables, shuffled)
    expected = shuffled[shuffled.index % N_FOLDS != 1]
    assert joined["filename"].tolist() == expected["filename"].tolist()
    np.testing.assert_array_equal(joined["model1m"], make_predictions(2)[expected.index])
    np.testing.assert_array_equal(joined["model2ds"], make_predictions(1, seed=1)[expected.index])
    np.testing.assert_array_equal(joined["score"], make_metadata()["score"][expected.index])


def test_models_without_common_rows_cannot_be_joined(tmp_path: Path) -> None:
    write_folds(tmp_path, "model1m", make_predictions(2), folds=[0])
    write_folds(tmp_path, "model2ds", make_predictions(1), folds=[1])
    tables = evaluation.read_out_of_fold(tmp_path)
    with pytest.raises(HearbackError, match="the models have no row in common"):
        evaluation.join(tables, make_metadata().drop(columns="score"))
