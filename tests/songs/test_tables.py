"""The tables of the songs: labels, singers and groups."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError
from hearback.songs.tables import list_snippets, read_snippets

MANIFEST = "file,split,singers,music,licence\n"


def snippets_of(
    data: Path, labels: str, manifest: str | None = None
) -> tuple[pd.DataFrame, list[tuple[str, int | None, str, str | None]]]:
    """Read labels and a manifest's rows; return the snippets and the problems."""
    data.mkdir(exist_ok=True)
    (data / "train_label.txt").write_text(labels)
    if manifest is not None:
        (data / "manifest.csv").write_text(MANIFEST + manifest)
    report = Report()
    snippets = read_snippets(data, report)
    problems = [
        (Path(problem.file).name, problem.row, problem.what, problem.filename)
        for problem in report.problems
    ]
    return snippets, problems


def test_snippets_are_grouped_by_their_first_singer_or_by_music(tmp_path: Path) -> None:
    snippets, problems = snippets_of(
        tmp_path,
        "a.ogg,1\n\n b.ogg , 3\nc.ogg,0\n",
        'c.ogg,train,,"own band, FluidR3",CC0\nb.ogg,train,ann; bob,x,CC0\na.ogg,train,bob,x,CC0\n'
        "of another half.ogg,test,cid,x,CC0\n",
    )
    assert problems == []
    assert snippets.to_dict("list") == {
        "filename": ["train/a.ogg", "train/b.ogg", "train/c.ogg"],
        "label": [1, 3, 0],
        "line": [1, 3, 4],
        "singers": ["bob", "ann;bob", ""],
        "group": ["bob", "ann", "music: own band, FluidR3"],
    }
    assert snippets["label"].dtype == snippets["line"].dtype == np.int64


def test_without_a_manifest_each_snippet_is_its_own_group_with_a_warning(tmp_path: Path) -> None:
    snippets, ((file, row, what, _),) = snippets_of(tmp_path, "a.ogg,1\nb.ogg,0\n")
    assert snippets["group"].tolist() == snippets["filename"].tolist()
    assert snippets["singers"].tolist() == ["", ""]
    assert (file, row) == ("manifest.csv", None)
    assert "inflates" in what


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("b.ogg,4", "the class is '4'"),
        ("b.ogg,", "the class is ''"),
        ("b.ogg,-1", "the class is '-1'"),
        ("b.ogg,male", "the class is 'male'"),
        ("b.ogg", "1 field where a row has 2"),
        ("b.ogg,1,2", "3 fields where a row has 2"),
        ("a.ogg,1", "duplicated filename, first on line 1"),
    ],
)
def test_a_fault_is_reported_with_its_line_and_the_row_stays(
    tmp_path: Path, line: str, what: str
) -> None:
    rows = "a.ogg,,ann,x,\nb.ogg,,ann,x,\nc.ogg,,bob,x,\n"
    snippets, problems = snippets_of(tmp_path, f"a.ogg,1\n{line}\nc.ogg,2\n", rows)
    assert problems == [("train_label.txt", 2, what, line.partition(",")[0])]
    assert len(snippets) == 3
    assert snippets["label"].tolist()[::2] == [1, 2]


def test_missing_labels_are_reported(tmp_path: Path) -> None:
    report = Report()
    assert len(read_snippets(tmp_path, report)) == 0
    (error,) = report.errors
    assert (Path(error.file).name, error.what) == ("train_label.txt", "there is no such file")
    _, problems = snippets_of(tmp_path, "", "a.ogg,,ann,x,\n")
    assert problems == [("train_label.txt", None, "the file is empty", None)]


def test_an_incomplete_manifest_is_reported(tmp_path: Path) -> None:
    _, problems = snippets_of(tmp_path, "a.ogg,1\nb.ogg,2\nc.ogg,0\n", "a.ogg,,,x,\nc.ogg,,,,\n")
    assert problems == [
        ("train_label.txt", 1, "the manifest names no singer for a snippet with a voice", "a.ogg"),
        ("train_label.txt", 2, "no row for the snippet in the manifest", "b.ogg"),
    ]
    (tmp_path / "manifest.csv").write_text("file,music\na.ogg,x\nb.ogg,x\nc.ogg,x\n")
    report = Report()
    read_snippets(tmp_path, report)
    assert "the column 'singers' is missing" in [problem.what for problem in report.errors]


def test_a_snippet_without_a_label_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in ("a.ogg", "b.ogg", "notes.txt", "._a.ogg"):
        (tmp_path / "train" / name).touch()
    _, problems = snippets_of(tmp_path, "a.ogg,1\n", "a.ogg,,ann,x,\n")
    assert problems == [("train", None, "a snippet without a label, left out", "b.ogg")]


def test_subfolders_are_listed_too(tmp_path: Path) -> None:
    for name in ("b.OGG", "a.wav", "deep/er/c.mp3", "notes.txt", ".a-x.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    listed = list_snippets(tmp_path)
    assert listed.to_dict("list") == {
        "filename": ["a.wav", "b.OGG", "deep/er/c.mp3"],
        "line": [1, 2, 3],
    }


def test_a_folder_without_snippets_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match="no such folder"):
        list_snippets(tmp_path / "none")
    (tmp_path / "a.m4a").touch()
    with pytest.raises(HearbackError, match=r"no audio files.*\.wav"):
        list_snippets(tmp_path)
