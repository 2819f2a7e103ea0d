"""The tables of the songs: labels, singers and groups."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError
from hearback.songs.tables import list_folder, list_snippets, read_snippets

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
        ("b.ogg", "1 field where a row has 2: no label"),
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


MAY_BE_RECORDINGS = (
    "3gp.3gp",
    "B.WAV",
    "c.m4a",
    "d.webm",
    "e.wma",
    "f.mp4",
    "g.AMR",
    "no_suffix",
    "song.mp3",
    "song.wav",
    "unknown.xyz",
    "with a space.aac",
    "été/naïve ñ.ogg",
)
NO_RECORDINGS = (
    ".DS_Store",
    "._song.wav",
    "Makefile",
    "README",
    "a.lock",
    "cover.JPG",
    "label.csv",
    "notes.txt",
    "old.zip",
    "été/a.json",
    "été/b.md",
)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_every_file_that_may_be_a_recording_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, *MAY_BE_RECORDINGS, *NO_RECORDINGS, ".git/objects/ab", "__MACOSX/._x.wav")
    assert tuple(list_snippets(tmp_path)["filename"]) == MAY_BE_RECORDINGS
    listing = list_folder(tmp_path)
    assert listing.recordings == MAY_BE_RECORDINGS
    assert listing.skipped == tuple(sorted((*NO_RECORDINGS, ".git/", "__MACOSX/")))
    line = listing.describe_skipped()
    assert line.startswith("skipped, for they are no recordings: '.DS_Store', '._song.wav', ")
    assert line.endswith("'label.csv', 'notes.txt' and 3 more")
    assert list_folder(tmp_path / "été").describe_skipped() == (
        "skipped, for they are no recordings: 'a.json', 'b.md'"
    )


def test_a_folder_of_recordings_alone_skips_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    assert list_folder(tmp_path).describe_skipped() == ""


def test_a_link_to_a_folder_is_named_and_a_folder_with_a_suffix_is_none_of_the_files(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "there", "b.wav")
    touch(tmp_path / "here", "a.wav", "album.wav/c.wav")
    (tmp_path / "here/linked").symlink_to(tmp_path / "there")
    (tmp_path / "here/broken.wav").symlink_to(tmp_path / "nowhere")
    listing = list_folder(tmp_path / "here")
    assert listing.recordings == ("a.wav", "album.wav/c.wav", "broken.wav")
    assert listing.skipped == ("linked/",)


def test_a_name_that_is_not_utf8_is_listed_so_that_it_can_be_written(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")).touch()
    assert list_folder(tmp_path).recordings == ("caf\ufffd.wav",)


def test_a_subfolder_that_cannot_be_listed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.wav", "closed/b.wav")
    scandir = os.scandir

    def deny(path: str) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(HearbackError, match=r"closed: cannot be listed: Permission denied"):
        list_folder(tmp_path)


def test_a_folder_without_snippets_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match="no such folder"):
        list_snippets(tmp_path / "none")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(HearbackError, match=r"no audio files.*\.wav.*skipped.*'notes\.txt'"):
        list_snippets(tmp_path)


def test_names_that_are_spelled_otherwise_are_joined(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in ("a.ogg", "b.OGG"):
        (tmp_path / "train" / name).touch()
    snippets, problems = snippets_of(tmp_path, "a;1.0\nb.ogg;0\n", "a.ogg,,ann,x,\nB.ogg,,,y,\n")
    assert problems == [
        (
            "train_label.txt",
            None,
            "2 filenames are spelled otherwise than in the manifest: "
            "'a' is 'a.ogg', 'b.ogg' is 'B.ogg'",
            None,
        )
    ]
    assert snippets["label"].tolist() == [1, 0]
    assert snippets["group"].tolist() == ["ann", "music: y"]


def test_a_header_of_the_labels_is_understood(tmp_path: Path) -> None:
    snippets, problems = snippets_of(tmp_path, "Filename, Label\na.ogg,1\n", "a.ogg,,ann,x,\n")
    assert problems == []
    assert snippets["filename"].tolist() == ["train/a.ogg"]
