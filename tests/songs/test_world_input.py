"""Every step of the songs, on recordings and tables as the world has them."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from hearback.engine.data.problems import Problem, Report
from hearback.engine.ensemble.config import ModelConfig
from hearback.songs.steps import check_models, get_config, infer, preprocess
from hearback.songs.tables import read_snippets
from tests import world_inputs as world
from tests.helpers import environment_of_scripts
from tests.songs import fabricated_folds
from tests.songs.inference_data import write_config
from tests.songs.songs_data import write_songs
from tests.world_inputs import (
    Finished,
    check_no_traceback,
    check_says,
    listed_twice,
    read_problems,
    run_step,
)

FEW = range(0, 40, 5)  # snippets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a few good snippets, labels and a manifest."""
    write_songs(tmp_path / "data", numbers=FEW)
    return tmp_path


def write_files(folder: Path, names: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in names.items():
        (folder / name).write_bytes(content)


def run_infer(folder: Path, data: Path, trained: Path) -> tuple[pd.DataFrame, list[Problem]]:
    """Run the step infer; return the submission and its problems."""
    config = write_config(folder, [ModelConfig("cnn4", (0,), 1.0)])
    submission = folder / "submission.csv"
    places = ("--data", data, "--store", folder / "store", "--assets", trained / "assets")
    files = ("--config", config, "--submission", submission)
    finished = run_step(infer.main, *places, *files, "--device", "cpu", "--precision", "float32")
    check_no_traceback(finished)
    assert finished.status == 0, finished.printed[-3000:]
    return pd.read_csv(submission), read_problems(folder / "submission_problems.csv")


def test_every_recording_of_a_folder_has_a_row(tmp_path: Path, trained: Path) -> None:
    contents = {kind.replace(" ", "_"): read.content() for kind, read in world.RECORDINGS.items()}
    contents |= {f"{name}.wav": content for name, content in contents.items()}
    containers = {suffix: make() for suffix, make in world.CONTAINERS.items()}
    contents |= {f"clip_{suffix}.{suffix}": content for suffix, content in containers.items()}
    contents |= {f"upper_{suffix}.{suffix.upper()}": each for suffix, each in containers.items()}
    # What no one takes for a recording is not listed.
    others = {"notes.txt": b"a note", ".DS_Store": b"\0" * 9, "cover.jpg": b"\xff\xd8\xff\xe0"}
    write_files(tmp_path / "unseen", {**contents, **others})
    submission, problems = run_infer(tmp_path, tmp_path / "unseen", trained)
    # Without a suffix, a file is a recording if it begins like one.
    certain = {name for name in contents if "." in name}
    certain |= {"wav", "two_vorbis", "mp3,_variable", "two_mp3"}
    listed = set(submission["filename"])
    assert not certain - listed
    assert not set(others) & listed
    assert submission["label"].isin(range(4)).all()
    assert not listed_twice(problem for problem in problems if problem.filename)
    said = {problem.filename: problem.what + problem.cure for problem in problems}
    for kind, recording in world.RECORDINGS.items():
        name = f"{kind.replace(' ', '_')}.wav"
        if recording.says is not None:
            check_says(recording.says, f"{name}: {said.get(name)}")
        else:
            assert "breaks off" not in said.get(name, ""), f"{name}: {said[name]}"


@pytest.mark.parametrize("name", world.FORMATS)
def test_labels_and_manifest_are_read_as_meant(name: str, folder: Path) -> None:
    before = read_snippets(folder / "data", Report())
    for table in ("train_label.txt", "manifest.csv"):
        path = folder / "data" / table
        path.write_bytes(world.FORMATS[name](path.read_text()))
    report = Report()
    after = read_snippets(folder / "data", report)
    assert not report.errors, str(report)
    assert not listed_twice(report.problems), str(report)
    columns = ["filename", "label", "singers", "group"]
    pd.testing.assert_frame_equal(after[columns], before[columns])


def run_on_folds(folder: Path) -> list[Finished]:
    places = ("--data", folder / "data", "--assets", folder / "assets")
    steps = [run_step(check_models.main, *places), run_step(get_config.main, *places)]
    for finished in steps:
        check_no_traceback(finished)
    return steps


@pytest.mark.parametrize("name", world.FORMATS)
def test_folds_are_evaluated_on_tables_as_meant(name: str, tmp_path: Path) -> None:
    fabricated_folds.write_data(tmp_path / "data")
    predictions = fabricated_folds.make_probabilities(1.5)
    fabricated_folds.write_folds(tmp_path / "assets", "cnn4", predictions)
    for table in ("train_label.txt", "manifest.csv"):
        path = tmp_path / "data" / table
        path.write_bytes(world.FORMATS[name](path.read_text()))
    for finished in run_on_folds(tmp_path):
        assert finished.status == 0, finished.printed[-3000:]


@pytest.mark.parametrize("name", [name for name in world.BROKEN_TABLES if "column" not in name])
@pytest.mark.parametrize("table", ["train_label.txt", "manifest.csv"])
def test_a_broken_table_is_refused_with_its_kind(name: str, table: str, folder: Path) -> None:
    change, says = world.BROKEN_TABLES[name]
    path = folder / "data" / table
    path.write_bytes(change(path.read_text()))
    places = ("--data", folder / "data", "--store", folder / "store")
    finished = run_step(preprocess.main, *places, "--features", "log_mel_40")
    check_no_traceback(finished)
    if (name, table) != ("header only", "train_label.txt"):  # it has no header
        assert finished.status == 2
        check_says(says, finished.printed)


@pytest.mark.parametrize("name", ["html", "git lfs pointer", "zip", "two vorbis", "wav of size 0"])
def test_a_training_snippet_is_read_or_named(name: str, folder: Path) -> None:
    recording = world.RECORDINGS[name]
    (folder / "data" / "train" / "05.wav").write_bytes(recording.content())
    places = ("--data", folder / "data", "--store", folder / "store")
    finished = run_step(preprocess.main, *places, "--features", "log_mel_40")
    check_no_traceback(finished)
    assert finished.status == (0 if recording.is_read else 2), finished.printed
    if recording.says is not None:
        check_says(recording.says, finished.printed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["html", "wav of size 0"])
def test_no_step_ends_with_a_traceback(name: str, trained: Path, tmp_path: Path) -> None:
    write_songs(tmp_path / "data" / "songs", numbers=FEW)
    songs = tmp_path / "data" / "songs"
    (songs / "train" / "05.wav").write_bytes(world.RECORDINGS[name].content())
    shutil.copytree(songs / "train", songs / "test")
    places = {"assets": tmp_path / "assets" / "songs"}
    shutil.copytree(trained / "assets", places["assets"])
    write_config(places["assets"], [ModelConfig("cnn4", (0,), 1.0)])
    refused = 0 if world.RECORDINGS[name].is_read else 2
    train = ("train", "--models", "cnn4", "--n_folds", 2, "--epochs", 1, "--device", "cpu")
    commands: list[tuple[tuple[object, ...], tuple[int, ...]]] = [
        (("preprocess", "--features", "log_mel_40"), (refused,)),
        (train, (0, 1, 2)),  # so few snippets may be too few
        (("check_models",), (0, 2)),
        (("get_config", "--config", tmp_path / "other.json"), (0, 2)),
        (("infer", "--device", "cpu"), (0,)),
    ]
    for command, statuses in commands:
        done = subprocess.run(
            [sys.executable, "-m", "hearback.songs", *map(str, command)],
            cwd=tmp_path,
            env=environment_of_scripts(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode in statuses, done.stdout[-3000:]
        assert "Traceback" not in done.stdout, done.stdout[-3000:]
