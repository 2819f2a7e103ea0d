"""The scripts as people run them: in order, each in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from hearback.reading.hard_negatives import HardNegative, write_hard_negatives
from tests.conftest import TEXTS

PROJECT = Path(__file__).parents[2]
MODELS = ("model2ds", "modelali", "modeltok")  # one of each family


def run(script: object, *flags: object, folder: Path, status: int = 0) -> str:
    """Run a script of the project in `folder` and return what it printed."""
    done = subprocess.run(
        [sys.executable, str(PROJECT / str(script)), *map(str, flags)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, f"{script} {flags}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def training_flags(backbone: Path) -> list[object]:
    settings = ["--set", "learning_rate=0.01", "--set", "batch_size=4"]
    return ["--n_folds", 3, "--backbone", backbone, "--epochs", 1, "--preset", "small", *settings]


@pytest.mark.slow
def test_the_five_steps_in_order(make_corpus: Callable[..., Path], backbone: Path) -> None:
    folder = make_corpus()
    flags = training_flags(backbone)
    # Another known text is rendered already: as good a hard negative as any here.
    near = {
        text: (HardNegative(other, "neighbour", (0,)),)
        for text, other in zip(TEXTS, [*TEXTS[1:], TEXTS[0]], strict=True)
    }
    write_hard_negatives(near, folder / "tts_data")

    printed = run("train.py", "--models", *MODELS, "--jobs", 2, *flags, folder=folder)
    for model in MODELS:
        for fold in range(3):
            assert f"{model} fold {fold}: not trained" in printed
            for suffix in (".safetensors", ".json", ".oof.csv"):
                assert (folder / "assets" / f"{model}_{fold}{suffix}").exists()
    assert "Log loss per fold" in printed

    again = run("train.py", "--models", *MODELS, *flags, folder=folder)
    assert again.count(": done") == 9
    changed = run(
        *("train.py", "--models", MODELS[0], "--folds", 0, *flags, "--set", "dropout=0.3"),
        folder=folder,
        status=2,  # the table refuses folds of different recipes
    )
    assert "its recipe changed since (dropout)" in changed
    assert "differ in recipe fingerprint" in changed
    run("train.py", "--models", MODELS[0], *flags, folder=folder)

    printed = run("check_models.py", folder=folder)
    for told in ("Log loss per task", "Log loss per grade", "nonword_repetition", "KG", *MODELS):
        assert told in printed

    printed = run("get_config.py", folder=folder)
    assert "weighted ensemble" in printed and "plain mean" in printed
    config = json.loads((folder / "model_configs.json").read_text())
    assert [model["name"] for model in config["models"]] == list(MODELS)
    weights = [model["weight"] for model in config["models"]]
    assert min(weights) >= 0 and max(weights) > 0

    run("infer.py", "--words", "--divergences", folder=folder)
    submission = pd.read_csv(folder / "submission.csv")
    expected = pd.read_csv(folder / "data" / "submission_format.csv")
    assert list(submission["filename"]) == list(expected["filename"])
    assert submission["score"].between(0, 1).all()
    words = pd.read_csv(folder / "word_scores.csv")
    assert set(words["filename"]) == set(expected["filename"])
    assert words["score"].between(0, 1).all()
    divergences = pd.read_csv(folder / "divergences.csv")
    assert list(divergences["word"]) == list(words["word"])

    # The same commands give the same bytes.
    made = [folder / name for name in ("assets/modeltok_0.oof.csv", "submission.csv")]
    first = [path.read_bytes() for path in made]
    for path in made:
        path.unlink()
    run("train_modeltok.py", "--fold", 0, *flags, folder=folder)
    run("infer.py", "--words", folder=folder)
    assert [path.read_bytes() for path in made] == first


@pytest.mark.slow
def test_a_failing_training_is_named_and_the_others_go_on(
    make_corpus: Callable[..., Path], backbone: Path
) -> None:
    folder = make_corpus()
    flags = training_flags(backbone)
    (folder / "runs").mkdir()
    # Where fold 1 wants its folder of curves there is a file.
    (folder / "runs" / "model3mapd_1").write_text("in the way")
    printed = run(
        *("train.py", "--models", "model3mapd", "--jobs", 2, *flags), folder=folder, status=1
    )
    assert "FAILED: model3mapd fold 1, see runs/model3mapd_1.log" in printed
    assert (folder / "assets" / "model3mapd_0.json").exists()
    assert (folder / "assets" / "model3mapd_2.json").exists()


STEPS = ("preprocess.py", "train.py", "check_models.py", "get_config.py", "infer.py")


@pytest.mark.slow
@pytest.mark.parametrize("script", [*STEPS, "train_model3mapd.py"])
def test_a_script_has_help_and_refuses_unknown_flags(script: str, tmp_path: Path) -> None:
    assert "usage:" in run(script, "--help", folder=tmp_path)
    needed = ["--fold", 0] if script.startswith("train_model") else []
    printed = run(script, *needed, "--no_such_flag", 1, folder=tmp_path, status=2)
    assert "unrecognized arguments: --no_such_flag" in printed


@pytest.mark.slow
def test_dashes_work_in_place_of_underscores(
    make_corpus: Callable[..., Path], backbone: Path
) -> None:
    folder = make_corpus()
    flags = [str(flag).replace("_", "-") for flag in training_flags(backbone)[:2]]
    assert flags[0] == "--n-folds"
    run("train_model2ds.py", "--fold", 0, *flags, *training_flags(backbone)[2:], folder=folder)
    assert (folder / "assets" / "model2ds_0.json").exists()
