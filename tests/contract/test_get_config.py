"""The step get_config in every competition, and the configuration that it writes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hearback.engine.errors import HearbackError
from tests.contract.fabricated import READING, SONGS, Fabricated, name_of
from tests.helpers import run_step


@pytest.fixture(params=[READING, SONGS], ids=name_of)
def each(request: pytest.FixtureRequest) -> Fabricated:
    """Each competition."""
    found: Fabricated = request.param
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """By get_config's module: a folder where it has run, and what it printed."""
    folders = {}
    for each in (READING, SONGS):
        folder = tmp_path_factory.mktemp("finished")
        each.write_models(folder)
        status, output, errors = get_config(each, folder)
        assert status is None, errors
        folders[each.get_config.__name__] = folder, output
    return folders


@pytest.fixture
def folder(each: Fabricated, finished: dict[str, tuple[Path, str]]) -> Path:
    """A folder where the step has run."""
    return finished[each.get_config.__name__][0]


def get_config(each: Fabricated, folder: Path, *flags: str) -> tuple[Any, str, str]:
    config = ["--config", str(folder / "model_configs.json")]
    return run_step(each.get_config, folder, *config, *flags)


def load(each: Fabricated, folder: Path) -> Any:
    return each.config_type.load(folder / "model_configs.json")


def test_the_configuration_has_the_models_and_their_log_losses(
    each: Fabricated, finished: dict[str, tuple[Path, str]]
) -> None:
    folder, output = finished[each.get_config.__name__]
    rows = f"{each.n_rows} rows that every model predicted out of fold, of {each.n_rows}\n"
    assert output.startswith(rows)
    assert output.endswith(f"\nwrote {folder / 'model_configs.json'}\n")
    config = load(each, folder)
    assert [model.name for model in config.models] == sorted(each.models)
    assert {model.folds for model in config.models} == {(0, 1, 2)}
    assert config.n_rows == each.n_rows
    losses = config.log_losses
    assert losses["fitted"] < losses["cross_fitted"] and losses["fitted"] < losses["plain_mean"]
    assert f"{losses['cross_fitted']:.4f}" in output


def test_only_rows_that_every_model_predicted_are_used(each: Fabricated, tmp_path: Path) -> None:
    each.write_models(tmp_path)
    partial = f"{each.model}_s2"
    predictions = each.models[each.model]
    each.write_folds(tmp_path / "assets", partial, predictions[::-1], folds=[0, 2])
    status, output, errors = get_config(each, tmp_path)
    assert status is None, errors
    common = each.n_rows * 2 // 3
    rows = f"{common} rows that every model predicted out of fold, of {each.n_rows}\n"
    assert output.startswith(rows)
    config = load(each, tmp_path)
    folds = {model.name: model.folds for model in config.models}
    assert folds == {**dict.fromkeys(each.models, (0, 1, 2)), partial: (0, 2)}
    assert config.n_rows == common


def test_a_chosen_model_alone_has_all_the_weight(each: Fabricated, tmp_path: Path) -> None:
    each.write_models(tmp_path)
    flags = ["--models", each.model, "--combine", "probabilities"]
    status, _, errors = get_config(each, tmp_path, *flags)
    assert status is None, errors
    models = load(each, tmp_path).models
    assert [(model.name, model.weight) for model in models] == [(each.model, 1)]


def test_without_folds_the_error_has_the_command(each: Fabricated, tmp_path: Path) -> None:
    each.write_data(tmp_path / "data")
    (tmp_path / "assets").mkdir()
    status, _, errors = get_config(each, tmp_path)
    assert status == 2
    assert f"no finished fold; train some with {each.train_command}" in errors
    assert not (tmp_path / "model_configs.json").exists()


def test_incompatible_folds_are_refused_and_the_former_file_kept(
    each: Fabricated, tmp_path: Path
) -> None:
    each.write_models(tmp_path)
    (tmp_path / "model_configs.json").write_text("former")
    each.write_alone(tmp_path, each.steady, data_fingerprint="another")
    status, _, errors = get_config(each, tmp_path)
    assert status == 2
    assert "differ in data fingerprint" in errors and "Traceback" not in errors
    assert (tmp_path / "model_configs.json").read_text() == "former"


def test_a_configuration_is_read_back_as_it_was_written(
    each: Fabricated, folder: Path, tmp_path: Path
) -> None:
    config = load(each, folder)
    timed = (replace(config.models[0], seconds_per_clip=0.25), *config.models[1:])
    for changed in (config, replace(config, models=timed)):
        changed.save(tmp_path / "model_configs.json")
        assert load(each, tmp_path) == changed


def test_models_without_a_weight_are_not_run(each: Fabricated, folder: Path) -> None:
    config = load(each, folder)
    idle, *rest = config.models
    changed = replace(config, models=(replace(idle, weight=0.0), *rest))
    assert changed.models_to_run == tuple(rest)


def test_a_missing_configuration_is_an_error_with_the_command(
    each: Fabricated, tmp_path: Path
) -> None:
    command = each.config_command
    with pytest.raises(HearbackError, match=f"no such file; write it with {re.escape(command)}"):
        load(each, tmp_path)


def models_of(*weights: float, name: str = "x", folds: object = (0,)) -> list[dict[str, Any]]:
    return [{"name": name, "folds": folds, "weight": weight} for weight in weights]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surplus": 1}, "not an ensemble's configuration.*surplus"),
        ({"models": []}, "finite and non-negative"),
        ({"models": 3}, "not an ensemble's configuration"),
        ({"models": [{"name": "x"}]}, "not an ensemble's configuration.*folds"),
        ({"models": models_of(1, name="../x")}, "invalid model name"),
        ({"models": models_of(1, folds=[-1])}, "invalid folds of x"),
        ({"models": models_of(1.5, -0.5)}, "finite and non-negative"),
        ({"models": models_of(float("inf"))}, "finite and non-negative"),
        ({"combine": "guesses"}, "unknown combination 'guesses'"),
        ({"combine": "probabilities", "models": []}, "and sum to one"),
        (
            {"combine": "probabilities", "models": models_of(0.5, 0.4)},
            "non-negative and sum to one",
        ),
        (
            {"combine": "probabilities", "models": models_of(1.5, -0.5)},
            "non-negative and sum to one",
        ),
        (
            {"combine": "probabilities", "models": models_of(np.nan)},
            "and sum to one",
        ),
    ],
)
def test_an_invalid_configuration_is_an_error_with_the_cause(
    each: Fabricated, folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    values = json.loads((folder / "model_configs.json").read_text())
    assert values["combine"] == "logits"
    (tmp_path / "model_configs.json").write_text(json.dumps({**values, **changes}))
    with pytest.raises(HearbackError, match=f"{message}.*get_config"):
        load(each, tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"models": ['])
def test_a_file_that_is_no_configuration_is_an_error(
    each: Fabricated, tmp_path: Path, text: str
) -> None:
    (tmp_path / "model_configs.json").write_text(text)
    with pytest.raises(HearbackError, match=r"not an ensemble's configuration.*get_config"):
        load(each, tmp_path)
