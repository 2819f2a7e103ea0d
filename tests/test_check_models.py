"""The tables that check_models.py prints, on fabricated folds."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from test_evaluation import (
    BASE_RATE,
    make_causes,
    make_metadata,
    make_predictions,
    write_data,
    write_folds,
)

import check_models

MODELS = {"model1m": make_predictions(2), "model3mapd": make_predictions(1, seed=1)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models with all their folds."""
    write_data(tmp_path / "data")
    for model, predictions in MODELS.items():
        write_folds(tmp_path / "assets", model, predictions)
    return tmp_path


def shown(folder: Path, capsys: pytest.CaptureFixture[str], models: list[str] | None = None) -> str:
    check_models.show(folder / "data", folder / "assets", models)
    return capsys.readouterr().out


def section(output: str, title: str) -> dict[str, list[float]]:
    """Return a printed table: a row's name to its numbers."""
    _, _, rest = output.partition(f"\n{title}")
    table, _, _ = rest.partition("\n\n")
    rows = [re.split(r"  +", line.strip()) for line in table.splitlines()[1:]]
    # A name may have one space in it, between columns there may be one as well.
    rows = [[name, *" ".join(cells).split()] for name, *cells in rows]
    return {
        name: [float(cell) if cell != "–" else np.nan for cell in cells]
        for name, *cells in rows
        if cells and all(cell.lstrip("-")[0].isdigit() or cell == "–" for cell in cells)
    }


def test_every_model_has_a_row_with_its_log_loss(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = section(shown(folder, capsys), "Out of fold")
    assert list(table) == list(MODELS)
    for model, predictions in MODELS.items():
        n_rows, loss, *_ = table[model]
        assert n_rows == 96
        assert loss == pytest.approx(log_loss(make_metadata()["score"], predictions), abs=1e-4)


def test_log_loss_per_fold(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = section(shown(folder, capsys), "Log loss per fold")
    scores = make_metadata()["score"]
    for model, predictions in MODELS.items():
        expected = [log_loss(scores[fold::3], predictions[fold::3]) for fold in range(3)]
        np.testing.assert_allclose(table[model], expected, atol=1e-4)


@pytest.mark.parametrize("column", ["task", "grade"])
def test_log_loss_per_task_and_grade_with_the_number_of_rows(
    folder: Path, capsys: pytest.CaptureFixture[str], column: str
) -> None:
    table = section(shown(folder, capsys), f"Log loss per {column}")
    metadata = make_metadata().assign(**MODELS)
    assert set(table) == set(metadata[column]) | ({"KG and 1"} if column == "grade" else set())
    for value, rows in metadata.groupby(column):
        expected = [log_loss(rows["score"], rows[model]) for model in MODELS]
        n_rows, _, *losses = table[str(value)]
        assert n_rows == len(rows)
        np.testing.assert_allclose(losses, expected, atol=1e-4)


def test_the_youngest_are_shown_together_and_so_is_every_model_s_calibration(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = shown(folder, capsys)
    metadata = make_metadata()
    youngest = metadata["grade"].isin(["KG", "1"])
    n_rows, _, *losses = section(output, "Log loss per grade")["KG and 1"]
    assert n_rows == 48
    expected = [log_loss(metadata["score"][youngest], p[youngest]) for p in MODELS.values()]
    np.testing.assert_allclose(losses, expected, atol=1e-4)

    table = section(output, "Calibration per grade (ECE: 10 bins of equal mass;")
    # Both models' lines of all rows have the same name; the last one's is left.
    n_rows, label, prediction, ece, *_ = table["all"]
    assert (n_rows, label) == (96, pytest.approx(metadata["score"].mean(), abs=1e-4))
    assert prediction == pytest.approx(MODELS["model3mapd"].mean(), abs=1e-4)
    assert np.isnan(ece)  # too few rows
    assert "causes" not in output and "cause" not in output


def test_causes_show_the_area_for_every_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_causes().to_csv(folder / "why.csv", index=False)
    assert run(monkeypatch, folder, "--causes", str(folder / "why.csv")) is None
    table = section(capsys.readouterr().out, "AUC of the correct against each cause")
    assert set(table) == {"omit", "substitute"}
    scores = make_metadata()["score"]
    rows = (scores > 0) | (make_causes()["why"] == "omit")
    expected = [roc_auc_score(scores[rows], predictions[rows]) for predictions in MODELS.values()]
    np.testing.assert_allclose(table["omit"][1:], expected, atol=1e-4)


def test_bad_causes_are_reported_with_the_tables_faults(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_causes().iloc[5:].to_csv(folder / "why.csv", index=False)
    assert run(monkeypatch, folder, "--causes", str(folder / "why.csv")) == 2
    error = capsys.readouterr().err
    assert "no cause for a recording of score 0" in error and "why.csv" in error
    assert "Traceback" not in error


def test_good_folds_do_not_stand_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steady = np.where(make_metadata()["score"] > 0, 0.8, 0.2)
    for model in MODELS:
        write_folds(folder / "assets", model, steady)
    assert shown(folder, capsys).endswith("\nNo fold stands out.\n")


def test_a_stalled_fold_is_named_with_the_command_that_trains_it_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steady = np.where(make_metadata()["score"] > 0, 0.8, 0.2)
    stalled = np.where(np.arange(len(steady)) % 3 == 1, BASE_RATE, steady)
    write_folds(folder / "assets", "model1m", steady)
    write_folds(folder / "assets", "model3mapd", stalled)
    lines = shown(folder, capsys).splitlines()
    named = [place for place, line in enumerate(lines) if "stands out" in line]
    assert len(named) == 1
    assert lines[named[0]].startswith("model3mapd fold 1 stands out: log loss ")
    command = "python train_model3mapd.py --fold 1 --n_folds 3 --attempt 2"
    assert lines[named[0] + 1].strip() == command


def test_folds_that_are_not_trained_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folds(folder / "assets", "model2ds", make_predictions(1.5, seed=2), folds=[1])
    output = shown(folder, capsys)
    assert "model2ds: folds [0, 2] are not trained" in output
    assert np.isnan(section(output, "Log loss per fold")["model2ds"]).tolist() == [
        True,
        False,
        True,
    ]


def test_only_the_models_asked_for_are_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = shown(folder, capsys, ["model3mapd"])
    assert list(section(output, "Out of fold")) == ["model3mapd"]
    assert "model1m" not in output


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *flags: str) -> int | str | None:
    """Run the script as the command line does and return its status."""
    folders = ["--data", str(folder / "data"), "--assets", str(folder / "assets")]
    monkeypatch.setattr(sys, "argv", ["check_models.py", *folders, *flags])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(Path(check_models.__file__)), run_name="__main__")
    return ended.value.code


def test_the_script_shows_what_it_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, folder, "--models", "model1m") is None
    assert list(section(capsys.readouterr().out, "Log loss per fold")) == ["model1m"]


def test_a_model_that_is_not_there_is_an_error_that_says_which_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, folder, "--models", "model2s") == 2
    assert "no finished fold of model2s; there are model1m, model3mapd" in capsys.readouterr().err


def test_bad_tables_are_reported_with_all_their_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "data" / "train_metadata.csv"
    metadata = pd.read_csv(path, dtype=str)
    metadata.loc[[1, 5], "grade"] = "12"
    metadata.to_csv(path, index=False)
    assert run(monkeypatch, folder) == 2
    error = capsys.readouterr().err
    for told in ("unknown grade '12'", "001.wav", "005.wav"):
        assert told in error
