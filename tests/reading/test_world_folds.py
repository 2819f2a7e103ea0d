"""Folds, labels and scripts on tables as the world has them; see `test_world_input`."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.steps import check_models, get_config
from tests import world_inputs as world
from tests.helpers import run_script
from tests.reading import fabricated_folds
from tests.reading.random_models import BASE_RATES
from tests.reading.world_steps import (
    TABLES,
    flags,
    put_recording,
    run_infer,
    run_preprocess,
    run_training,
    write_text,
)
from tests.world_inputs import (
    Finished,
    check_no_traceback,
    check_says,
    run_step,
)


@pytest.fixture
def fabricated(tmp_path: Path) -> Path:
    """A folder with tables, and fabricated folds of two models."""
    folder = tmp_path / "fabricated"
    fabricated_folds.write_data(folder / "data")
    for number, model in enumerate(("model1m", "model2ds")):
        predictions = fabricated_folds.make_predictions(1.5, seed=number)
        fabricated_folds.write_folds(folder / "assets", model, predictions)
    return folder


def run_on_folds(folder: Path) -> tuple[Finished, Finished]:
    """Run check_models.py and get_config.py."""
    checked = run_step(check_models.main, *flags(folder, "data", "assets"))
    config = ("--config", folder / "model_configs.json")
    chosen = run_step(get_config.main, *flags(folder, "data", "assets"), *config)
    for finished in (checked, chosen):
        check_no_traceback(finished)
    return checked, chosen


@pytest.mark.parametrize("name", world.TABLES)
def test_folds_are_evaluated_on_a_table_as_meant(name: str, fabricated: Path) -> None:
    for table in TABLES[:2]:
        path = fabricated / "data" / table
        path.write_bytes(world.TABLES[name](path.read_text()))
    for finished in run_on_folds(fabricated):
        # The folds list other filenames, and there are no recordings that tell which is meant.
        refused = name in world.FILENAMES
        assert finished.status == (2 if refused else 0), finished.printed[-3000:]


@pytest.mark.parametrize("name", world.BROKEN_TABLES)
@pytest.mark.parametrize("table", TABLES[:2])
def test_folds_are_not_evaluated_on_a_broken_table(name: str, table: str, fabricated: Path) -> None:
    change, says = world.BROKEN_TABLES[name]
    path = fabricated / "data" / table
    path.write_bytes(change(path.read_text()))
    for finished in run_on_folds(fabricated):
        assert finished.status == 2
        check_says(says, finished.printed)


def make_labels(folder: Path, ones: Callable[[int], bool]) -> None:
    path = folder / "data" / "train_labels.csv"
    table = pd.read_csv(path)
    table["score"] = [float(ones(number)) for number in range(len(table))]
    table.to_csv(path, index=False)


LOPSIDED: dict[str, Callable[[int], bool]] = {
    "all 1": lambda _: True,
    "all 0": lambda _: False,
    "one 0": lambda number: number > 0,
    "one 1": lambda number: number == 4,
}


@pytest.mark.parametrize("name", LOPSIDED)
def test_lopsided_labels_never_lose_the_submission(name: str, folder: Path, backbone: Path) -> None:
    make_labels(folder, LOPSIDED[name])
    config = folder / "model_configs.json"
    config.unlink()
    shutil.rmtree(folder / "assets")
    run_preprocess(folder)
    statuses = [run_training(folder, backbone, "--fold", fold).status for fold in range(3)]
    assert all(status in (0, 2) for status in statuses)
    checked = run_step(check_models.main, *flags(folder, "data", "assets"))
    check_no_traceback(checked)
    chosen = run_step(get_config.main, *flags(folder, "data", "assets"), "--config", config)
    check_no_traceback(chosen)
    if chosen.status == 0:
        run_infer(folder)
    else:
        assert not config.exists()


@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.0, 1.0)])
def test_models_without_weight_never_lose_the_submission(
    weights: tuple[float, float], folder: Path
) -> None:
    path = folder / "model_configs.json"
    config = EnsembleConfig.load(path)
    models = [replace(model, weight=w) for model, w in zip(config.models, weights, strict=True)]
    replace(config, models=tuple(models), combine="logits").save(path)
    scores = run_infer(folder)[2]
    assert (set(scores) <= set(BASE_RATES.values())) == (weights == (0.0, 0.0))


def test_words_and_divergences_that_no_model_has_never_lose_the_submission(folder: Path) -> None:
    run_infer(folder, "--words", "--divergences")


# Each script in a process of its own, where imports, streams and signals are the real ones.


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["texts", "recordings", "tables"])
def test_no_script_ends_with_a_traceback(kind: str, folder: Path, backbone: Path) -> None:
    if kind == "texts":
        write_text(folder, world.UNSPEAKABLE_TEXTS["markup"][0])
    elif kind == "recordings":
        put_recording(folder, world.RECORDINGS["html"].content())
    else:
        for table in TABLES:
            path = folder / "data" / table
            path.write_bytes(world.TABLES["semicolons"](path.read_text()))
    refused = 0 if kind == "tables" else 2
    training_flags = ("--n_folds", 3, "--backbone", backbone, "--epochs", 1, "--device", "cpu")
    commands: list[tuple[tuple[object, ...], int]] = [
        (("train.py", "--models", "model2ds", *training_flags), refused),
        (("train_model2ds.py", "--fold", 0, *training_flags), refused),
        (("check_models.py",), 2),  # of the ensemble's folds, which have no predictions
        (("get_config.py", "--config", "other.json"), 2),
        (("infer.py", "--device", "cpu"), 0),
    ]
    if kind == "tables":
        commands[2:4] = [(("check_models.py",), 0), (("get_config.py", "--config", "o.json"), 0)]
        shutil.rmtree(folder / "assets")
        commands.pop()
    for command, status in commands:
        printed = run_script(*command, folder=folder, status=status)
        assert "Traceback" not in printed
