"""Malicious and damaged model files: none runs code, each is read or refused with its path."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.oof import trained_folds
from hearback.engine.io import read_json, write_json
from hearback.engine.project import ROOT
from hearback.engine.training import fold_files
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.models import load
from tests.soak.fuzz import model_files, try_family


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one valid file of each kind that belongs to a model."""
    for name in ("data", "store", "assets"):
        (tmp_path / name).mkdir()
    model_files.make_assets(tmp_path)
    return tmp_path


@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32))
def test_a_poisoned_file_runs_no_code(tmp_path: Path, seed: int) -> None:
    try_family(model_files.try_model, np.random.default_rng(seed), tmp_path / "input")


@pytest.mark.parametrize("target", model_files.FILES)
def test_valid_files_are_read(folder: Path, target: str) -> None:
    model_files.read_model(target, folder)


@pytest.mark.parametrize("target", model_files.FILES)
@pytest.mark.parametrize("kind", ["pickle", "torch.save", "pipe", "folder"])
def test_a_pickle_in_a_file_s_place_is_refused(folder: Path, target: str, kind: str) -> None:
    path = folder / model_files.FILES[target]
    path.unlink()
    model_files.POISONS[kind](path, b"", np.random.default_rng(0))
    model_files.Poison.executed = False
    with pytest.raises(HearbackError):
        model_files.read_model(target, folder)
    assert not model_files.Poison.executed


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "..", "", "a/b", "a\nb", 3, None, ["x"]])
def test_a_model_name_is_no_path(folder: Path, name: Any) -> None:
    path = folder / "model_configs.json"
    config = read_json(path)
    config["models"][0]["name"] = name
    write_json(path, config)
    with pytest.raises(HearbackError, match="invalid model name"):
        EnsembleConfig.load(path)


@pytest.mark.parametrize("folds", [[], ["../../x"], [-1], [True], [0.5], "01"])
def test_folds_are_numbers(folder: Path, folds: Any) -> None:
    path = folder / "model_configs.json"
    config = read_json(path)
    config["models"][0]["folds"] = folds
    write_json(path, config)
    with pytest.raises(HearbackError, match="folds of modelx"):
        EnsembleConfig.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer": {"file": "../x.json", "sha256": "0"}},
        {"tokenizer": {"file": "tokenizer.json"}},
        {"text_embedder": {"directory": "..", "sha256": "0"}},
        {"recipe": [1]},
        {"shape": "x"},
        {"sha256": {"../x": "0"}},
    ],
)
def test_metadata_names_only_files_in_its_own_folder(folder: Path, change: dict[str, Any]) -> None:
    files = FoldFiles(folder / "assets", "modelx", 0)
    write_json(files.metadata, read_json(files.metadata) | change)
    with pytest.raises(HearbackError, match=r"modelx_0\.json: .*; delete it and train"):
        fold_files.read_fold_metadata(files)


def test_false_sizes_in_metadata_allocate_no_memory(folder: Path) -> None:
    files = FoldFiles(folder / "assets", "modelx", 0)
    fold_metadata = read_json(files.metadata)
    fold_metadata["shape"]["encoder_ffn_dim"] = 10**9
    with pytest.raises(HearbackError, match="too few"):
        load.load_scorer(files, fold_metadata)


def test_a_superscript_digit_is_no_fold(folder: Path) -> None:
    for suffix in (".oof.csv", ".json"):
        (folder / "assets" / f"modelx_²{suffix}").touch()
    assert trained_folds(folder / "assets") == {"modelx": [0]}


def test_a_valid_configuration_is_read_back(folder: Path) -> None:
    config = EnsembleConfig.load(folder / "model_configs.json")
    assert config.models == (ModelConfig("modelx", (0,), 1.0),)
    replace(config, models=(ModelConfig("model3m-b.2", (0, 5), 1.0),)).save(folder / "c.json")
    assert EnsembleConfig.load(folder / "c.json").models[0].name == "model3m-b.2"


def test_unprintable_characters_are_escaped() -> None:
    program = "from hearback.engine import cli\ncli.run(lambda: print('zoë 👶'))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"zo\\xeb \\U0001f476\n")
