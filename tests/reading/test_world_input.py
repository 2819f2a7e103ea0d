"""Every step of the reading competition, on recordings, texts and tables as the world has them.

No step may end with a traceback, infer.py must score every row, nothing may be lost without a word,
and no report may list a row twice for one fault.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hearback.engine.audio.store import FileStore
from hearback.engine.data.problems import Problem
from hearback.reading.steps import infer
from tests import world_inputs as world
from tests.engine import recording_corpus as corpus
from tests.reading.random_models import BASE_RATES
from tests.reading.world_steps import (
    CHANGED,
    FOLDERS,
    TABLES,
    flags,
    put_recording,
    run_infer,
    run_preprocess,
    run_training,
    said,
    write_text,
)
from tests.world_inputs import (
    check_no_traceback,
    check_says,
    listed_twice,
    run_step,
)


@pytest.fixture(scope="module")
def plain(good: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.Series:
    """The scores with the plain text in the changed row."""
    folder = shutil.copytree(good, tmp_path_factory.mktemp("plain") / "world")
    write_text(folder, world.PLAIN_TEXT)
    finished, problems, scores = run_infer(folder)
    assert not problems, finished.printed
    return scores


@pytest.mark.parametrize("name", world.TEXTS)
def test_a_text_is_scored_as_it_is_said(name: str, folder: Path, plain: pd.Series) -> None:
    write_text(folder, world.TEXTS[name])
    finished, problems, scores = run_infer(folder)
    pd.testing.assert_series_equal(scores, plain, atol=1e-6, rtol=0)
    assert not [problem for problem in problems if problem.severity == "error"]
    # A changed text is said once. Spaces are no change that anyone would look at.
    if name != "two spaces":
        assert finished.printed.count("of 6 expected texts was changed") == 1
        assert len(problems) == 1


def test_changed_texts_are_said_once_by_preprocess(folder: Path) -> None:
    write_text(folder, world.TEXTS["curly apostrophe"])
    finished, problems = run_preprocess(folder)
    assert finished.status == 0
    whats = [problem.what for problem in problems]
    assert len(whats) == 2  # one for each table
    assert all("expected texts was changed" in what for what in whats)


@pytest.mark.parametrize("name", world.UNSPEAKABLE_TEXTS)
def test_an_unspeakable_text_is_refused_once(name: str, folder: Path, backbone: Path) -> None:
    text, says = world.UNSPEAKABLE_TEXTS[name]
    write_text(folder, text)
    finished, problems = run_preprocess(folder)
    assert finished.status == 2
    assert not listed_twice(problems), said(problems)
    check_says(says, said(problems))
    finished = run_training(folder, backbone)
    assert finished.status == 2 and CHANGED["train"] in finished.printed
    _, problems, scores = run_infer(folder)
    assert [problem.filename for problem in problems] == [CHANGED["test"]]
    assert scores[CHANGED["test"]] == BASE_RATES["all"]  # its task has no rate of its own


@pytest.mark.parametrize("name", world.RECORDINGS)
def test_a_recording_is_read_whole_or_it_is_said(name: str, folder: Path) -> None:
    recording = world.RECORDINGS[name]
    content = recording.content()
    put_recording(folder, content)
    finished, problems = run_preprocess(folder)
    assert finished.status == (0 if recording.is_read else 2), said(problems)
    assert not listed_twice(problems), said(problems)
    check_said(recording, problems)
    _, problems, scores = run_infer(folder)
    assert not listed_twice(problems), said(problems)
    check_said(recording, problems)
    assert (scores[CHANGED["test"]] != BASE_RATES["all"]) == recording.is_read
    if recording.is_read and recording.says is None:
        stored = FileStore(folder / "store", "test").n_samples(CHANGED["test"])
        n_streams = 2 if name.startswith("two") else 1
        assert stored == pytest.approx(n_streams * corpus.SECONDS * 16_000, abs=0.1 * 16_000)
    if recording.is_read:
        # Half of the sound at least, where it is cut; in stereo, all of its level.
        level = np.std(FileStore(folder / "store", "test").get(CHANGED["test"]))
        assert level == pytest.approx(np.std(corpus.sound()), rel=0.2)


def check_said(recording: world.RecordingInput, problems: list[Problem]) -> None:
    if recording.says is None:
        assert not problems, said(problems)
    else:
        check_says(recording.says, said(problems))
        assert {problem.filename for problem in problems} <= {*CHANGED.values()}


@pytest.mark.parametrize("name", world.CONTAINERS)
def test_a_foreign_container_is_read_or_named(name: str, folder: Path) -> None:
    put_recording(folder, world.CONTAINERS[name]())
    finished, problems = run_preprocess(folder)
    assert not listed_twice(problems), said(problems)
    if finished.status:
        assert "Format not recognised" not in said(problems)
        assert "ffmpeg" in said(problems)
    else:
        stored = FileStore(folder / "store", "test").n_samples(CHANGED["test"])
        assert stored == pytest.approx(corpus.SECONDS * 16_000, abs=0.1 * 16_000)


@pytest.mark.parametrize("name", world.TABLES)
def test_a_table_is_read_as_meant(name: str, folder: Path, good: Path) -> None:
    write_text(folder, world.PLAIN_TEXT)
    before = run_infer(folder)[2]
    for table in TABLES:
        path = folder / "data" / table
        path.write_bytes(world.TABLES[name](path.read_text()))
    finished, problems = run_preprocess(folder)
    assert finished.status == 0, said(problems)
    assert not listed_twice(problems), said(problems)
    _, problems, scores = run_infer(folder)
    assert not listed_twice(problems), said(problems)
    np.testing.assert_allclose(scores.to_numpy(), before.to_numpy(), atol=1e-6)


@pytest.mark.parametrize("name", world.BROKEN_TABLES)
@pytest.mark.parametrize("table", TABLES)
def test_a_broken_table_is_refused_with_its_kind(
    name: str, table: str, folder: Path, backbone: Path
) -> None:
    change, says = world.BROKEN_TABLES[name]
    path = folder / "data" / table
    path.write_bytes(change(path.read_text()))
    _, problems = run_preprocess(folder)
    # One fault of the whole file: its rows, and those of other tables, are not listed.
    assert len({problem.what for problem in problems}) == 1, said(problems)
    assert {problem.file for problem in problems} == {str(path)}
    check_says(says, said(problems))
    if table.startswith("train"):
        assert run_training(folder, backbone).status == 2
    else:
        finished = run_step(
            infer.main,
            *flags(folder, *FOLDERS),
            *("--config", folder / "model_configs.json"),
            *("--submission", folder / "submission.csv", "--device", "cpu"),
        )
        check_no_traceback(finished)
        assert finished.status == 2 or (folder / "submission.csv").exists()
