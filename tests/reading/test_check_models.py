"""The tables of check_models.py, and the retraining of outliers, on fabricated folds."""

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from hearback.engine import cli
from hearback.engine.evaluation import check_models as engine_step
from hearback.engine.evaluation.outliers import Outlier
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata, save_fold
from hearback.reading.options import TrainingOptions
from hearback.reading.steps import check_models
from hearback.reading.trained import read_trained
from hearback.reading.training import train_fold
from tests.helpers import run_step
from tests.reading.fabricated_folds import (
    make_causes,
    make_metadata,
    make_predictions,
    write_data,
    write_folds,
)
from train_model3mapd import RECIPE

MODELS = {"model1m": make_predictions(2), "model3mapd": make_predictions(1, seed=1)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models with all their folds."""
    write_data(tmp_path / "data")
    for model, predictions in MODELS.items():
        write_folds(tmp_path / "assets", model, predictions)
    return tmp_path


def shown(folder: Path, capsys: pytest.CaptureFixture[str], models: list[str] | None = None) -> str:
    trained = read_trained(folder / "data", folder / "assets", models)
    check_models.show(trained, folder / "assets")
    return capsys.readouterr().out


def section(output: str, title: str) -> dict[str, list[float]]:
    """Return the numbers of a printed table by the name of the row."""
    _, _, rest = output.partition(f"\n{title}")
    table, _, _ = rest.partition("\n\n")
    rows = [re.split(r"  +", line.strip()) for line in table.splitlines()[1:]]
    # Names may contain single spaces, and so may the space between columns.
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


def test_the_youngest_and_the_calibration_by_grade_are_printed(
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
    # The rows "all" of both models have the same name; the last one is kept.
    n_rows, label, prediction, ece, *_ = table["all"]
    assert (n_rows, label) == (96, pytest.approx(metadata["score"].mean(), abs=1e-4))
    assert prediction == pytest.approx(MODELS["model3mapd"].mean(), abs=1e-4)
    assert np.isnan(ece)  # too few rows
    assert "causes" not in output and "cause" not in output


def test_the_auc_by_cause_is_printed_for_every_model(folder: Path) -> None:
    make_causes().to_csv(folder / "why.csv", index=False)
    status, output, _ = run_step(
        check_models, folder, "--no_page", "--causes", str(folder / "why.csv")
    )
    assert status == 0
    table = section(output, "AUC of correct rows against each cause")
    assert set(table) == {"omit", "substitute", "all"}
    scores = make_metadata()["score"]
    rows = (scores > 0) | (make_causes()["why"] == "omit")
    expected = [roc_auc_score(scores[rows], predictions[rows]) for predictions in MODELS.values()]
    np.testing.assert_allclose(table["omit"][1:], expected, atol=1e-4)


def test_a_model_is_compared_with_another_training_of_it(folder: Path) -> None:
    better = make_predictions(3, seed=2)
    write_folds(folder / "otherwise", "model3mapd", better, [0, 2])
    _, output, _ = run_step(
        check_models, folder, "--no_page", "--against", str(folder / "otherwise")
    )
    _, _, rest = output.partition("\nLog loss compared with ")
    lines = [line.split() for line in rest.partition("\n\n")[0].splitlines()[3:]]
    assert all("model1m" not in line for line in lines)  # not trained there
    assert output.count(f"\nnot in {folder / 'otherwise'}: model1m\n") == 1
    n_rows, here, there, difference, low, high = map(float, lines[-1][-6:])
    metadata = make_metadata()
    both = np.arange(len(metadata)) % 3 != 1
    scores = metadata["score"][both]
    assert n_rows == both.sum()
    assert here == pytest.approx(log_loss(scores, MODELS["model3mapd"][both]), abs=1e-4)
    assert there == pytest.approx(log_loss(scores, better[both]), abs=1e-4)
    assert difference == pytest.approx(here - there, abs=2e-4)
    assert 0 < low < difference < high
    youngest = next(line for line in lines if line[:3] == ["KG", "and", "1"])
    in_both = both & metadata["grade"].isin(["KG", "1"])
    assert int(youngest[3]) == in_both.sum()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_folds": 5}, "model3mapd: the trained folds differ in n folds .3: model3mapd here"),
        ({"group_by": "none"}, "differ in group by .*model3mapd there.; compare trainings"),
    ],
)
def test_trainings_of_other_splits_are_not_compared(
    folder: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    write_folds(folder / "otherwise", "model3mapd", MODELS["model3mapd"], **changes)
    status, _, errors = run_step(
        check_models, folder, "--no_page", "--against", str(folder / "otherwise")
    )
    assert status == 2
    assert re.search(message, errors)


def test_trainings_on_other_recordings_are_compared_with_a_note(folder: Path) -> None:
    write_folds(
        folder / "otherwise", "model3mapd", MODELS["model3mapd"], data_fingerprint="of other data"
    )
    status, output, _ = run_step(
        check_models, folder, "--no_page", "--against", str(folder / "otherwise")
    )
    assert status == 0
    assert f"{folder / 'otherwise'}: the trainings differ in their data" in output
    _, _, rest = output.partition("\nLog loss compared with ")
    assert rest.partition("\n\n")[0].split()[-3:] == ["0.0000"] * 3


def test_rows_in_other_folds_are_not_compared(folder: Path) -> None:
    write_folds(folder / "otherwise", "model3mapd", MODELS["model3mapd"])
    first, second = (folder / "otherwise" / f"model3mapd_{fold}.oof.csv" for fold in (0, 1))
    contents = first.read_bytes(), second.read_bytes()
    for path, content in zip((second, first), contents, strict=True):
        path.write_bytes(content)
        metadata = path.with_name(path.name.replace(".oof.csv", ".json"))
        described = json.loads(metadata.read_text())
        described["sha256"]["oof"] = hashlib.sha256(content).hexdigest()
        metadata.write_text(json.dumps(described))
    status, _, errors = run_step(
        check_models, folder, "--no_page", "--against", str(folder / "otherwise")
    )
    assert status == 2
    assert re.search(r"model3mapd: \d+ of 96 rows, first .*held out in other folds", errors)


def test_the_same_data_need_no_note(folder: Path) -> None:
    _, output, _ = run_step(check_models, folder, "--no_page", "--against", str(folder / "assets"))
    assert "differ in their data" not in output


def test_causes_are_compared_too(folder: Path) -> None:
    make_causes().to_csv(folder / "why.csv", index=False)
    flags = ("--no_page", "--causes", str(folder / "why.csv"))
    _, output, _ = run_step(check_models, folder, *flags, "--against", str(folder / "assets"))
    _, _, rest = output.partition("\nLog loss compared with ")
    compared = [line.split()[-7] for line in rest.partition("\n\n")[0].splitlines()[3:]]
    assert {"omit", "substitute", "all"} <= set(compared)


def test_a_folder_without_the_models_is_an_error_with_those_it_has(folder: Path) -> None:
    write_folds(folder / "otherwise", "model2s", MODELS["model3mapd"])
    status, _, errors = run_step(
        check_models, folder, "--no_page", "--against", str(folder / "otherwise")
    )
    assert status == 2
    assert "the other folder has model2s, but none of model1m, model3mapd" in errors


def test_missing_causes_are_reported(folder: Path) -> None:
    make_causes().iloc[5:].to_csv(folder / "why.csv", index=False)
    status, _, errors = run_step(
        check_models, folder, "--no_page", "--causes", str(folder / "why.csv")
    )
    assert status == 2
    assert "no cause for a recording of score 0" in errors and "why.csv" in errors
    assert "Traceback" not in errors


def command(folder: Path, model: str = "model3mapd", fold: int = 1, *more: str) -> str:
    flags = [f"--{name} {folder / name}" for name in ("data", "assets")]
    return " ".join(
        ["python", f"train_{model}.py", "--fold", str(fold), *flags, "--n_folds 3", *more]
    )


def retrain_arguments(outlier: Outlier, folder: Path) -> list[str]:
    read = check_models.read_command
    return engine_step.retrain_arguments(outlier, folder / "data", folder / "assets", read)


def test_a_variant_of_the_ablation_is_retrained_by_its_module(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = command(folder, "model3mapd", 1, "--attempt 2").split()[2:]
    words = [
        "python",
        "-m",
        "hearback.reading.baselines.ablation",
        "--variants",
        "text_cosine",
        *flags,
    ]
    outlier = Outlier("model_ablation_text_cosine", 1, "", " ".join(words))
    assert retrain_arguments(outlier, folder) == [sys.executable, *words[1:]]
    monkeypatch.chdir(folder)
    find = f"import importlib.util; assert importlib.util.find_spec({check_models.ABLATION!r})"
    assert engine_step.run([sys.executable, "-c", find]) == 0


@pytest.mark.slow
def test_retrain_trains(
    make_corpus: Callable[..., Path], backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_corpus()
    parser = cli.parser(None)
    TrainingOptions.declare(parser)
    names = ("data", "tts_data", "store", "assets", "runs")
    flags = [part for name in names for part in (f"--{name}", str(folder / name))]
    flags += ["--backbone", str(backbone), "--n_folds", "3", "--epochs", "1", "--device", "cpu"]
    options = TrainingOptions.gather(parser.parse_args([*flags, "--set", "batch_size=4"]))
    data = options.load_data()
    fold_metadata = train_fold(RECIPE, 1, options, data)
    for fold in range(3):  # fold 1 with the loss of the base rate
        held_out = data.folds == fold
        scores = data.labels[held_out]
        right = np.where(scores > 0, 0.9, 0.1)
        oof = pd.DataFrame(
            {
                "filename": data.metadata["filename"][held_out],
                "score": scores,
                "pred": 0.5 if fold == 1 else right,
            }
        )
        files = FoldFiles(options.assets, RECIPE.name, fold)
        save_fold(files, {"weight": torch.zeros(1)}, oof, {**fold_metadata, "fold": fold})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    status, _, _ = run_step(check_models, folder, "--no_page", "--retrain")
    assert status == 1  # one epoch is not enough
    again = read_fold_metadata(FoldFiles(options.assets, RECIPE.name, 1))
    assert [(past["attempt"], past["outcome"]) for past in again["attempts"]] == [
        (1, "finished"),
        (2, "finished"),
    ]
    assert again["attempt"] == 2


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


def test_the_script_prints_the_selected_models(folder: Path) -> None:
    status, output, _ = run_step(check_models, folder, "--no_page", "--models", "model1m")
    assert status == 0
    assert list(section(output, "Log loss per fold")) == ["model1m"]


def test_invalid_tables_are_reported_with_all_their_rows(folder: Path) -> None:
    path = folder / "data" / "train_metadata.csv"
    metadata = pd.read_csv(path, dtype=str)
    metadata.loc[[1, 5], "grade"] = "12"
    metadata.to_csv(path, index=False)
    status, _, errors = run_step(check_models, folder, "--no_page")
    assert status == 2
    for part in ("unknown grade '12'", "001.wav", "005.wav"):
        assert part in errors
