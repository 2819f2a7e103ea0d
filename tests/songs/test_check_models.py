"""The tables of the step check_models, and the retraining of outliers, on fabricated folds."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import check_models as engine_step
from hearback.engine.evaluation.outliers import Outlier
from hearback.songs.steps import check_models
from tests.songs.fabricated_folds import make_probabilities, make_snippets, write_data, write_folds

GOOD = np.full((192, 4), 0.1) + 0.6 * np.eye(4)[make_snippets()["label"]]
STALLED = np.where((make_snippets()["fold"] == 1).to_numpy()[:, None], 0.25, GOOD)
MODELS = {
    model: make_probabilities(1, seed)
    for seed, model in enumerate(["cnn4", "resnet34", "resnet34_s2", "resnet34_repet"])
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data(tmp_path / "data")
    for model, probabilities in MODELS.items():
        write_folds(tmp_path / "assets", model, probabilities)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *flags: str) -> int | str | None:
    """Run the step as the command line does and return its status."""
    folders = ["--data", str(folder / "data"), "--assets", str(folder / "assets")]
    monkeypatch.setattr(sys, "argv", ["check_models.py", *folders, *flags])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(check_models.__file__, run_name="__main__")
    return ended.value.code


def section(output: str, title: str) -> list[str]:
    """Return the lines of a printed table, without its title and header."""
    assert f"\n{title}" in output
    return output.partition(f"\n{title}")[2].partition("\n\n")[0].splitlines()[2:]


def line_of(output: str, title: str, name: str) -> list[str]:
    (line,) = (line for line in section(output, title) if line.startswith(f"{name} "))
    return line.removeprefix(name).split()


def test_every_model_and_ensemble_is_scored(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, folder)
    output = capsys.readouterr().out
    labels, folds = make_snippets()["label"], make_snippets()["fold"]
    mean = (MODELS["resnet34"] + MODELS["resnet34_s2"]) / 2
    for name, probabilities in {**MODELS, "system 1: resnet34 × 2": mean}.items():
        predicted = probabilities.argmax(axis=1)
        rows, accuracy, *_ = line_of(output, "Out of fold", name)
        assert rows == "192"
        assert float(accuracy) == pytest.approx(accuracy_score(labels, predicted), abs=1e-4)
        per_fold = [float(x) for x in line_of(output, "Accuracy per fold", name)]
        expected = [
            accuracy_score(labels[folds == fold], predicted[folds == fold]) for fold in range(3)
        ]
        np.testing.assert_allclose(per_fold, expected, atol=1e-4)
        assert f"\nConfusion matrix of {name}\n" in output
    assert line_of(output, "Out of fold", "majority class")[:2] == ["192", "0.2500"]
    assert section(output, "Recall of several singers")
    assert line_of(output, "Differences", "resnet34_repet - resnet34")[0] == "192"


def test_the_status_is_1_if_a_fold_stands_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folds(folder / "assets", "cnn4", STALLED)
    assert run(monkeypatch, folder, "--models", "cnn4") == 1
    output = capsys.readouterr().out
    assert "cnn4 fold 1 stands out: log loss " in output
    assert "  python -m hearback.songs.recipes.cnn4 --fold 1" in output
    write_folds(folder / "assets", "cnn4", GOOD)
    assert run(monkeypatch, folder, "--models", "cnn4") == 0
    assert capsys.readouterr().out.endswith("\nNo fold stands out.\n")


def test_folds_that_are_not_trained_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folds(folder / "assets", "cnn4_s3", GOOD, folds=[1])
    run(monkeypatch, folder)
    assert "cnn4_s3: folds [0, 2] are not trained; python -m hearback.songs train\n" in (
        capsys.readouterr().out
    )


def flags_of(folder: Path, *more: str) -> list[str]:
    folders = [part for x in ("data", "assets") for part in (f"--{x}", str(folder / x))]
    return ["--fold", "1", *folders, "--n_folds", "3", "--attempt", "2", *more]


def retrain_arguments(model: str, said: str, folder: Path) -> list[str]:
    outlier = Outlier(model, 1, "", said)
    read = check_models.read_command
    return engine_step.retrain_arguments(outlier, folder / "data", folder / "assets", read)


@pytest.mark.parametrize(
    ("model", "program", "flags"),
    [
        ("resnet34", "hearback.songs.recipes.resnet34", ""),
        ("resnet34_s2", "hearback.songs.recipes.resnet34", "--seed 2"),
        (
            "resnet34_small_stem_repet_s3",
            "hearback.songs.recipes.resnet34_small_stem",
            "--separate repet --seed 3",
        ),
    ],
)
def test_retrain_runs_a_training_of_that_model_and_fold(
    tmp_path: Path, model: str, program: str, flags: str
) -> None:
    words = ["python", "-m", program, *flags_of(tmp_path), *flags.split()]
    assert retrain_arguments(model, " ".join(words), tmp_path) == [sys.executable, *words[1:]]


@pytest.mark.parametrize(
    ("retrain_command", "reason"),
    [
        ("rm -rf {home}", "not python -m hearback.songs.recipes.cnn4"),
        ("python songs/train_cnn4.py {flags}", "not python -m hearback.songs.recipes.cnn4"),
        (
            "python -m hearback.songs.recipes.resnet34 {flags}",
            "not python -m hearback.songs.recipes.cnn4",
        ),
        (
            "python -m hearback.songs infer {flags}",
            "not python -m hearback.songs.recipes.cnn4",
        ),
        ("python -m pip install evil", "not python -m hearback.songs.recipes.cnn4"),
        ("python -m hearback.songs.recipes.cnn4 {flags} && rm -rf /", "unrecognized arguments"),
        (
            "python -m hearback.songs.recipes.cnn4 {flags} --evil yes",
            "unrecognized arguments: --evil",
        ),
        ("python -m hearback.songs.recipes.cnn4 {flags} --fold 0", "it trains fold 0"),
        ("python -m hearback.songs.recipes.cnn4 {flags} --seed 2", "it trains cnn4_s2"),
        ("python -m hearback.songs.recipes.cnn4 {flags} --separate repet", "it trains cnn4_repet"),
        (
            "python -m hearback.songs.recipes.cnn4 {flags} --assets /else",
            "its --assets, relative to this folder, is not",
        ),
        (
            "python -m hearback.songs.recipes.cnn4 {flags} --data /else",
            "its --data, relative to this folder, is not",
        ),
        ("python -m hearback.songs.recipes.cnn4 '{flags}", "No closing quotation"),
    ],
)
def test_retrain_runs_nothing_else(tmp_path: Path, retrain_command: str, reason: str) -> None:
    command = retrain_command.format(home=tmp_path, flags=" ".join(flags_of(tmp_path)))
    with pytest.raises(HearbackError, match=f"cnn4_1.json: --retrain does not run.*{reason}"):
        retrain_arguments("cnn4", command, tmp_path)


def test_a_model_without_a_recipe_is_not_retrained(tmp_path: Path) -> None:
    for model in ("evil", "../evil"):
        command = " ".join(["python", "-m", f"hearback.songs.recipes.{model}", *flags_of(tmp_path)])
        with pytest.raises(HearbackError, match="does not run its command"):
            retrain_arguments(model, command, tmp_path)


def test_retrain_runs_the_command_and_prints_the_tables_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["python", "-m", "hearback.songs.recipes.cnn4", *flags_of(folder)]
    write_folds(folder / "assets", "cnn4", STALLED, retrain_command=" ".join(words))
    commands = []

    def train_well(command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        write_folds(folder / "assets", "cnn4", GOOD)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", train_well)
    assert run(monkeypatch, folder, "--models", "cnn4", "--retrain") == 0
    assert commands == [[sys.executable, *words[1:]]]
    assert capsys.readouterr().out.count("Accuracy per fold") == 2


def test_the_confusion_matrices_are_drawn(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    path = folder / "docs" / "confusion.png"
    run(monkeypatch, folder, "--picture", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert f"wrote {path}" in capsys.readouterr().out
    other = folder / "confusion.doc"
    assert run(monkeypatch, folder, "--picture", str(other)) == 2
    assert "unknown picture format; use one of" in capsys.readouterr().err
    assert not other.exists()


def test_only_a_picture_needs_matplotlib(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    assert run(monkeypatch, folder, "--models", "cnn4") in (0, 1)
    assert run(monkeypatch, folder, "--picture", str(folder / "confusion.png")) == 2
    assert "pip install matplotlib" in capsys.readouterr().err
