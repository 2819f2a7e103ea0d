"""A third competition runs all its steps on the engine alone."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from hearback.engine.project import ROOT
from tests.engine.toy_data import write_points


def run(folder: Path, step: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a step of the toy competition in `folder`; its folders are those below it."""
    command = [sys.executable, "-m", "tests.engine.toy_competition", step, *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_toy_competition_trains_checks_combines_and_infers(tmp_path: Path) -> None:
    write_points(tmp_path / "data" / "train.csv", 200, seed=0)
    inside = write_points(tmp_path / "data" / "test.csv", 100, seed=1)

    trained = run(tmp_path, "train", "--n_folds", "2", "--device", "cpu", "--jobs", "2")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    for name in ("small_0", "small_1", "large_0", "large_1"):
        assert (tmp_path / "assets" / f"{name}.safetensors").exists()
    again = run(tmp_path, "train", "--n_folds", "2", "--device", "cpu")
    assert again.stdout.count(": done") == 4

    checked = run(tmp_path, "check_models")
    assert checked.returncode in (0, 1), checked.stderr
    assert "Log loss per fold" in checked.stdout

    config = run(tmp_path, "get_config")
    assert config.returncode == 0, config.stderr
    assert "weighted ensemble: log loss 0." in config.stdout

    inferred = run(tmp_path, "infer")
    assert inferred.returncode == 0, inferred.stderr
    submission = pd.read_csv(tmp_path / "data" / "submission.csv")
    assert ((submission["pred"] > 0.5) == inside).mean() > 0.8


def test_a_bad_row_is_reported_with_file_and_line(tmp_path: Path) -> None:
    write_points(tmp_path / "data" / "train.csv", 20, seed=0)
    with (tmp_path / "data" / "train.csv").open("a") as file:
        file.write("train3.txt,0,0,1\n")
    done = run(tmp_path, "train", "--n_folds", "2", "--device", "cpu")
    assert done.returncode == 2
    assert "train.csv" in done.stderr and "line 22" in done.stderr
