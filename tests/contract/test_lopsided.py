"""Labels that a model cannot learn from, in every competition: said before training."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hearback.engine import cli
from hearback.engine.data.problems import BadInputError
from hearback.engine.ensemble import fitting
from hearback.engine.errors import HearbackError
from hearback.engine.io import sha256_of
from hearback.engine.training.fold_files import FoldFiles
from hearback.engine.training.options import N_FOLDS, FoldOptions
from hearback.reading.options import TrainingOptions
from hearback.reading.steps import preprocess as reading_preprocess
from hearback.songs.steps import preprocess as songs_preprocess
from tests.contract.fabricated import READING, SONGS, Fabricated, name_of
from tests.helpers import run_step
from tests.songs.songs_data import read_options, training_flags, write_songs


@dataclass(frozen=True)
class Labelled:
    """A competition's labelled table.

    Attributes:
        options: of a training on it; `load_data` reads it.
        write_labels: writes other labels, one for each row.
        labels: those of the rows.
        names: of the two first labels in messages.
        preprocess: the step's module.
        group_by: the column by which rows are grouped.
        write_groups: writes another group for each row, by number.
    """

    options: FoldOptions
    write_labels: Callable[[Sequence[int]], object]
    labels: list[int]
    names: tuple[str, str]
    preprocess: ModuleType
    group_by: str
    write_groups: Callable[[Sequence[int]], object]


@pytest.fixture
def reading(options: TrainingOptions) -> Labelled:
    """The reading competition's table, of 36 rows."""
    path, metadata = options.data / "train_labels.csv", options.data / "train_metadata.csv"
    table = pd.read_csv(path)

    def write_groups(groups: Sequence[int]) -> None:
        rows = pd.read_csv(metadata)
        rows.assign(speaker=[f"s{group}" for group in groups]).to_csv(metadata, index=False)

    return Labelled(
        options=options,
        write_labels=lambda labels: table.assign(score=labels).to_csv(path, index=False),
        labels=table["score"].astype(int).tolist(),
        names=("0", "1"),
        preprocess=reading_preprocess,
        group_by="speaker",
        write_groups=write_groups,
    )


@pytest.fixture
def songs(tmp_path: Path) -> Labelled:
    """The songs competition's table."""
    data = write_songs(tmp_path / "data")
    path, manifest = data / "train_label.txt", data / "manifest.csv"
    table = pd.read_csv(path, names=["filename", "label"])

    def write_groups(groups: Sequence[int]) -> None:
        rows = pd.read_csv(manifest)
        rows.assign(singers=[f"s{group}" for group in groups]).to_csv(manifest, index=False)

    return Labelled(
        options=read_options(*training_flags(tmp_path, tmp_path)),
        write_labels=lambda labels: table.assign(label=labels).to_csv(
            path, index=False, header=False
        ),
        labels=table["label"].tolist(),
        names=("0 (no voice)", "1 (male)"),
        preprocess=songs_preprocess,
        group_by="singer",
        write_groups=write_groups,
    )


@pytest.fixture(params=["reading", "songs"])
def labelled(request: pytest.FixtureRequest) -> Labelled:
    """Each competition's."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Labelled)
    return found


def load(labelled: Labelled, **changes: Any) -> Any:
    values = {**vars(labelled.options), **changes}
    return type(labelled.options)(**values).load_data()


def preprocess(labelled: Labelled, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the step preprocess; return its exit status."""
    options = labelled.options
    folders = [
        part
        for name in ("data", "store", "tts_data")
        if hasattr(options, name)
        for part in (f"--{name}", str(getattr(options, name)))
    ]
    monkeypatch.setattr(sys, "argv", ["preprocess.py", *folders])
    with pytest.raises(SystemExit) as stopped:
        cli.run(labelled.preprocess.main)
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("label", [0, 1])
def test_rows_of_one_label_are_refused_before_anything_is_decoded(
    labelled: Labelled,
    label: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    n_rows = len(labelled.labels)
    labelled.write_labels([label] * n_rows)
    what = f"all {n_rows} rows have the label {labelled.names[label]}, so a model cannot learn"
    with pytest.raises(BadInputError) as refused:
        load(labelled)
    assert what in str(refused.value) and "-> add rows with another label" in str(refused.value)

    assert preprocess(labelled, monkeypatch) == 2
    assert what in capsys.readouterr().err
    assert not labelled.options.store.exists()


def test_a_label_that_a_folds_training_rows_lack_is_said_before_training(
    labelled: Labelled, capsys: pytest.CaptureFixture[str]
) -> None:
    if len(set(labelled.labels)) == 2:
        return  # then its training rows have one label, which is another message
    groups = [0 if label == 1 else 1 + row % 5 for row, label in enumerate(labelled.labels)]
    labelled.write_groups(groups)
    load(labelled)
    assert ": no training row of 1 (male); they never predict it" in capsys.readouterr().out


def test_a_limit_that_leaves_one_label_is_refused_with_the_flag(labelled: Labelled) -> None:
    labelled.write_labels([1] * 4 + labelled.labels[4:])
    with pytest.raises(BadInputError) as refused:
        load(labelled, limit=4)
    assert "all 4 rows have the label" in str(refused.value)
    assert "raise --limit 4 until rows of another label are used" in str(refused.value)


def test_a_label_of_one_row_is_warned_of_with_the_folds_that_lack_it(
    labelled: Labelled, capsys: pytest.CaptureFixture[str]
) -> None:
    n_rows = len(labelled.labels)
    labelled.write_groups(range(n_rows))
    labelled.write_labels([0] + [1] * (n_rows - 1))
    data = load(labelled, group_by="none")
    printed = capsys.readouterr().out
    assert f"only 1 row has the label {labelled.names[0]}, for 3 folds" in printed
    lone = int(data.folds[data.labels == 0][0])
    others = ", ".join(str(fold) for fold in range(3) if fold != lone)
    assert f"fold {lone}: all training rows have one label; its model learns nothing" in printed
    assert f"folds {others}: all validation rows have one label" in printed


@pytest.mark.parametrize("n_rare", [1, 3])
def test_a_rare_label_is_said_by_preprocess_too(
    labelled: Labelled,
    n_rare: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    n_rows = len(labelled.labels)
    labelled.write_labels([0] * n_rare + [1] * (n_rows - n_rare))
    preprocess(labelled, monkeypatch)
    said = capsys.readouterr().err
    have = "1 row has" if n_rare == 1 else f"{n_rare} rows have"
    assert f"warning: only {have} the label {labelled.names[0]}, for {N_FOLDS} folds" in said
    cure = "-> add rows with it" + (", or use at most 3 folds with --n_folds" * (n_rare > 1))
    assert f"{cure}\n" in said


def test_of_invalid_labels_preprocess_says_that_alone(
    labelled: Labelled, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled.write_labels([0, 7] + [1] * (len(labelled.labels) - 2))
    assert preprocess(labelled, monkeypatch) == 2
    said = capsys.readouterr().err
    assert "'7'" in said and "for 6 folds" not in said


def test_balanced_labels_are_not_warned_of(
    labelled: Labelled, capsys: pytest.CaptureFixture[str]
) -> None:
    load(labelled, group_by="none")
    printed = capsys.readouterr().out
    assert "label" not in printed.replace("train_label", "")


@pytest.mark.parametrize(("n_groups", "cure"), [(1, ""), (2, "choose 2 with --n_folds or ")])
def test_too_few_groups_name_the_other_ways_to_group(
    labelled: Labelled, n_groups: int, cure: str
) -> None:
    labelled.write_groups([row % n_groups for row in range(len(labelled.labels))])
    with pytest.raises(HearbackError) as refused:
        load(labelled)
    column = labelled.group_by
    counted = f"1 {column}" if n_groups == 1 else f"{n_groups} {column}s"
    message = str(refused.value)
    assert message.startswith(f"{counted} cannot make 3 folds: {cure}--group_by ")
    assert "--group_by none (" in message
    assert ("--group_by expected_text" in message) == (column == "speaker")


@pytest.mark.parametrize("each", [READING, SONGS], ids=name_of)
def test_get_config_writes_no_configuration_without_a_model(
    each: Fabricated, tmp_path: Path
) -> None:
    each.write_data(tmp_path / "data")
    wrong = each.steady[:, ::-1] if each.steady.ndim > 1 else 1 - each.steady
    each.write_alone(tmp_path, wrong)
    path = tmp_path / "model_configs.json"
    path.write_text("former")
    status, _, errors = run_step(each.get_config, tmp_path, "--config", str(path))
    assert status == 2
    assert "no configuration is written: no model has a weight" in errors
    assert "Traceback" not in errors
    assert path.read_text() == "former"


@pytest.mark.parametrize("combine", ["logits", "probabilities"])
@pytest.mark.parametrize("each", [READING, SONGS], ids=name_of)
def test_get_config_refuses_rows_of_one_label(
    each: Fabricated, combine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each.write_models(tmp_path)

    def one_label(*arguments: Any, **settings: Any) -> Any:
        data = arguments[0]
        return fit(replace(data, labels=np.ones_like(data.labels)), *arguments[1:], **settings)

    fit = fitting.fit
    monkeypatch.setattr(fitting, "fit", one_label)
    path = tmp_path / "model_configs.json"
    flags = ["--config", str(path), "--combine", combine]
    status, _, errors = run_step(each.get_config, tmp_path, *flags)
    assert status == 2
    assert f"all {each.n_rows} rows that every model predicted have the label 1" in errors
    assert "Traceback" not in errors and not path.exists()


@pytest.mark.parametrize("each", [READING, SONGS], ids=name_of)
def test_get_config_of_a_single_fold_is_written(each: Fabricated, tmp_path: Path) -> None:
    each.write_data(tmp_path / "data")
    each.write_folds(tmp_path / "assets", each.model, each.steady, folds=[1])
    path = tmp_path / "model_configs.json"
    status, _, errors = run_step(each.get_config, tmp_path, "--config", str(path))
    assert status is None, errors
    assert [model.folds for model in each.config_type.load(path).models] == [(1,)]


@pytest.mark.parametrize("each", [READING, SONGS], ids=name_of)
def test_predictions_that_are_not_finite_are_refused_with_the_file(
    each: Fabricated, tmp_path: Path
) -> None:
    each.write_data(tmp_path / "data")
    each.write_alone(tmp_path, each.steady)
    files = FoldFiles(tmp_path / "assets", each.model, 0)
    rows = pd.read_csv(files.oof)
    rows.loc[1, rows.columns[-1]] = np.nan
    rows.to_csv(files.oof, index=False)
    metadata = json.loads(files.metadata.read_text())
    metadata["sha256"]["oof"] = sha256_of(files.oof)
    files.metadata.write_text(json.dumps(metadata))
    for step in (each.check_models, each.get_config):
        flags = ["--config", str(tmp_path / "c.json")] if step is each.get_config else []
        status, _, errors = run_step(step, tmp_path, *flags)
        assert status == 2
        assert f"{files.oof}: cannot be read (" in errors and "Traceback" not in errors
        assert "; train the fold again" in errors
