"""The real get_config.py, on fabricated folds."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss
from test_evaluation import (
    VOICE,
    make_metadata,
    make_predictions,
    write_data,
    write_folds,
)

import get_config
from hearback.ensemble import EnsembleConfig, score_ensemble

NAMES = ("model1m", "model2dm", "model2m", "model3mapd")
MODELS = {name: make_predictions(0.5, seed) for seed, name in enumerate(NAMES)}
PREDICTIONS = np.stack(list(MODELS.values()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four models with all their folds."""
    write_data(tmp_path / "data")
    for model, predictions in MODELS.items():
        write_folds(tmp_path / "assets", model, predictions)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Any:
    """Run the script as the command line does; return its status, output and errors."""

    def run_script(*flags: str) -> tuple[Any, str, str]:
        folders = ["--data", str(folder / "data"), "--assets", str(folder / "assets")]
        config = ["--config", str(folder / "model_configs.json")]
        monkeypatch.setattr(sys, "argv", ["get_config.py", *folders, *config, *flags])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(Path(get_config.__file__)), run_name="__main__")
        output = capsys.readouterr()
        return ended.value.code, output.out, output.err

    return run_script


def printed_loss(output: str, name: str) -> float:
    match = re.search(rf"^{name} +log loss (\d\.\d+)", output, re.MULTILINE)
    assert match is not None, f"no {name!r} in:\n{output}"
    return float(match[1])


def load(folder: Path) -> EnsembleConfig:
    return EnsembleConfig.load(folder / "model_configs.json")


def test_each_model_the_plain_mean_and_the_ensemble_are_scored(folder: Path, run: Any) -> None:
    status, output, _ = run()
    assert status is None
    assert output.startswith("96 rows that every model predicted out of fold, of 96\n")
    metadata = make_metadata()
    scores = metadata["score"].to_numpy()
    for model, predictions in MODELS.items():
        assert printed_loss(output, model) == pytest.approx(log_loss(scores, predictions), abs=1e-4)
    expected = score_ensemble(PREDICTIONS, scores, metadata["speaker"].to_numpy())
    assert printed_loss(output, "plain mean") == pytest.approx(expected.plain_mean, abs=1e-4)
    assert printed_loss(output, "weighted ensemble") == pytest.approx(expected.honest, abs=1e-4)
    assert printed_loss(output, "on its own rows") == pytest.approx(expected.fitted, abs=1e-4)
    assert "searched without the speakers that they are scored on" in output
    assert expected.honest > expected.fitted + 1e-3  # else the lines above could be swapped


def test_the_configuration_is_what_was_found(folder: Path, run: Any) -> None:
    run()
    config, metadata = load(folder), make_metadata()
    scores = metadata["score"].to_numpy()
    found = score_ensemble(PREDICTIONS, scores, metadata["speaker"].to_numpy())
    assert [model.name for model in config.models] == list(NAMES)
    assert {model.folds for model in config.models} == {(0, 1, 2)}
    np.testing.assert_allclose([model.weight for model in config.models], found.weights)
    assert config.voice == VOICE
    assert config.n_rows == 96
    assert config.log_losses == pytest.approx(
        {"honest": found.honest, "fitted": found.fitted, "plain_mean": found.plain_mean}
    )
    by_task = metadata.groupby("task")["score"].mean()
    assert config.base_rates == pytest.approx({"all": scores.mean(), **by_task}, rel=1e-6)


def test_without_speakers_rows_are_held_out_one_by_one(tmp_path: Path, run: Any) -> None:
    (tmp_path / "data" / "train_metadata.csv").unlink()
    (tmp_path / "data" / "train_labels.csv").unlink()
    (tmp_path / "data").rmdir()
    write_data(tmp_path / "data", make_metadata().drop(columns="speaker"))
    status, output, _ = run()
    assert status is None
    assert "searched without the filenames that they are scored on" in output


def test_only_rows_that_every_model_predicted_count(folder: Path, run: Any) -> None:
    write_folds(folder / "assets", "model2ds", make_predictions(1, seed=9), folds=[0, 2])
    _, output, _ = run()
    assert output.startswith("64 rows that every model predicted out of fold, of 96\n")
    config = load(folder)
    assert {model.name: model.folds for model in config.models}["model2ds"] == (0, 2)
    assert config.n_rows == 64


def test_a_chosen_model_alone_has_all_the_weight(folder: Path, run: Any) -> None:
    run("--models", "model3mapd")
    assert [(model.name, model.weight) for model in load(folder).models] == [("model3mapd", 1)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"voice": {"backend": "melo"}}, "different voices"),
        ({"data_fingerprint": "another"}, "differ in data fingerprint"),
    ],
)
def test_what_cannot_be_averaged_is_refused_and_the_former_file_kept(
    folder: Path, run: Any, changes: dict[str, Any], said: str
) -> None:
    config = folder / "model_configs.json"
    config.write_text("former")
    write_folds(folder / "assets", "model2ds", make_predictions(1, seed=9), **changes)
    status, _, errors = run()
    assert status == 2
    assert said in errors
    assert "Traceback" not in errors
    assert config.read_text() == "former"


def test_without_folds_there_is_nothing_to_weigh(tmp_path: Path, run: Any) -> None:
    for file in (tmp_path / "assets").iterdir():
        file.unlink()
    status, _, errors = run()
    assert status == 2
    assert "python train.py" in errors
    assert not (tmp_path / "model_configs.json").exists()
