"""The tables of the step check_models, and the retraining of outliers, on fabricated folds."""

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from hearback.engine.evaluation import check_models as engine_step
from hearback.engine.evaluation.outliers import Outlier
from hearback.songs.steps import check_models
from tests.helpers import run_step
from tests.songs.fabricated_folds import make_probabilities, make_snippets, write_data, write_folds

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


def section(output: str, title: str) -> list[str]:
    """Return the lines of a printed table, without its title and header."""
    assert f"\n{title}" in output
    return output.partition(f"\n{title}")[2].partition("\n\n")[0].splitlines()[2:]


def line_of(output: str, title: str, name: str) -> list[str]:
    (line,) = (line for line in section(output, title) if line.startswith(f"{name} "))
    return line.removeprefix(name).split()


def test_every_model_and_ensemble_is_scored(folder: Path) -> None:
    _, output, _ = run_step(check_models, folder)
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


def test_the_confusion_matrices_are_drawn(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    path = folder / "docs" / "confusion.png"
    _, output, errors = run_step(check_models, folder, "--picture", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert f"wrote {path}" in output
    other = folder / "confusion.doc"
    status, output, errors = run_step(check_models, folder, "--picture", str(other))
    assert status == 2
    assert "unknown picture format; use one of" in errors
    assert not other.exists()


def test_only_a_picture_needs_matplotlib(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    status, _, errors = run_step(check_models, folder, "--models", "cnn4")
    assert status in (0, 1)
    status, _, errors = run_step(check_models, folder, "--picture", str(folder / "confusion.png"))
    assert status == 2
    assert "pip install matplotlib" in errors
