"""The songs' submission.zip: what is packed, and how it runs in the sandbox."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hearback.engine.audio.wav import write_wav
from hearback.engine.errors import HearbackError
from hearback.engine.io import write_json
from hearback.engine.submission import sandbox
from hearback.engine.training.fold_files import FoldFiles
from hearback.songs.separation.methods import SOUND_RATE
from hearback.songs.submission.dry_run import SongDryRun, compare
from hearback.songs.submission.pack import PackingOptions, pack
from tests.songs.inference_data import SHARES, packing_options
from tests.songs.songs_data import snippet


@pytest.fixture
def options(trained: Path, tmp_path: Path) -> PackingOptions:
    """Options to pack two folds of a model, and one of it on separated voices."""
    return packing_options(tmp_path, trained)


@pytest.fixture
def snippets(tmp_path: Path) -> Path:
    """A folder of snippets, also in folders of their own."""
    for number in (3, 11, 22, 33):
        write_wav(tmp_path / f"snippets/album/{number}.wav", snippet(number), SOUND_RATE)
    write_wav(tmp_path / "snippets/z.wav", snippet(5), SOUND_RATE)
    return tmp_path / "snippets"


def copied(options: PackingOptions, folder: Path) -> PackingOptions:
    """The same on a copy of the folds, for a test that damages them."""
    folder.mkdir()
    for path in options.assets.glob("cnn4*_?.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return replace(options, assets=folder)


def test_a_model_that_needs_demucs_is_refused(options: PackingOptions, tmp_path: Path) -> None:
    options = copied(options, tmp_path / "assets")
    files = FoldFiles(options.assets, "cnn4_repet", 0)
    fold_metadata = json.loads(files.metadata.read_text())
    fold_metadata["recipe"]["separate"] = "demucs"
    write_json(files.metadata, fold_metadata)
    with pytest.raises(HearbackError, match="demucs, but the runtime lacks its packages"):
        pack(options)


@pytest.mark.slow
def test_the_submission_passes_a_dry_run(
    options: PackingOptions, snippets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(options)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # A snippet that must be cut, one without a suffix, one that nothing decodes, and no snippet.
    write_wav(snippets / "album/11.wav", np.tile(snippet(11), 2), SOUND_RATE)
    (snippets / "album/22").write_bytes((snippets / "album/22.wav").read_bytes())
    (snippets / "album/song.wma").write_bytes(b"\x01 no audio that any decoder reads")
    (snippets / "notes.txt").touch()
    dry_run = SongDryRun(options.submission, snippets, 9)
    snippets_line, scores_line = sandbox.run_dry_run(dry_run, Path(sys.executable), namespace=False)
    assert snippets_line == "7 snippets, one damaged, listed and at the class shares"
    assert "its scores equal this environment's" in scores_line


@pytest.mark.slow
def test_a_failed_scoring_leaves_the_commonest_class_and_is_reported(
    options: PackingOptions, snippets: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up = SongDryRun(pack(options), snippets, 3).set_up(tmp_path / "sandbox")
    (set_up.runtime / "assets" / "cnn4_1.safetensors").write_bytes(b"cut short")
    with pytest.raises(HearbackError, match=r"main\.py ended with status 2"):
        sandbox.run_main(set_up, Path(sys.executable), namespace=False)
    assert "scoring failed" in capfd.readouterr().err
    submission = pd.read_csv(set_up.submission)
    assert submission["filename"].tolist() == ["album/11.wav", "album/22.wav", "album/3.wav"]
    assert (submission["label"] == np.argmax(SHARES)).all()


def write_submission(folder: Path, name: str, rows: list[tuple[str, int, list[float]]]) -> Path:
    path = folder / f"{name}.csv"
    frame = pd.DataFrame({"filename": [row[0] for row in rows], "label": [row[1] for row in rows]})
    frame.to_csv(path, index=False)
    table = pd.DataFrame([row[2] for row in rows], columns=["p0", "p1", "p2", "p3"])
    table.insert(0, "filename", frame["filename"])
    table.to_csv(folder / f"{name}_probabilities.csv", index=False)
    return path


GOOD = [("a.wav", 1, [0.1, 0.7, 0.1, 0.1]), ("b.wav", 0, [0.4, 0.4, 0.1, 0.1])]


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (GOOD, None),
        ([GOOD[0], ("b.wav", 1, [0.39999, 0.40001, 0.1, 0.1])], None),  # as likely as the other
        ([("a.wav", 2, [0.1, 0.7, 0.1, 0.1]), GOOD[1]], "a.wav: class 2, here 1"),
        ([("a.wav", 1, [0.1, 0.69, 0.11, 0.1]), GOOD[1]], "a.wav: class 1, here 1"),
        ([("a.wav", 1, [0.1, np.nan, 0.11, 0.1]), GOOD[1]], "a.wav: class 1, here 1"),
        (GOOD[::-1], "rows of ['b.wav', 'a.wav'], not of ['a.wav', 'b.wav']"),
        (GOOD[:1], "rows of ['a.wav'], not of"),
    ],
)
def test_submissions_are_compared_row_by_row(
    rows: list[tuple[str, int, list[float]]], fault: str | None, tmp_path: Path
) -> None:
    expected = write_submission(tmp_path, "expected", GOOD)
    faults, largest = compare(write_submission(tmp_path, "got", rows), expected)
    assert [line.startswith(fault or "") for line in faults] == ([True] if fault else [])
    assert fault or largest < sandbox.TOLERANCE
