"""Filenames that are spelled otherwise than their files, or than in another table."""

import os
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
import soundfile

from hearback.engine.audio.store_builder import build_store
from hearback.engine.data.filenames import (
    are_there,
    find_files,
    match_names,
    nearest_files,
    nearest_names,
)
from hearback.engine.data.problems import Report
from hearback.engine.data.tables import respelled
from tests.helpers import tone

NFC, NFD = (unicodedata.normalize(form, "zoë.wav") for form in ("NFC", "NFD"))


def put(folder: Path, *names: str) -> None:
    """Create empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("written", "there"),
    [
        ("clips\\a.wav", "clips/a.wav"),
        (".\\a.wav", "a.wav"),
        ("a.WAV", "a.wav"),
        ("a.wav", "A.Wav"),
        ("clip_07", "clip_07.wav"),
        ("CLIP_07", "clip_07.Wav"),
        ("clip_07.wav", "clip_07"),
        ("7.wav", "007.wav"),
        ("35", "000000035.ogg"),
        ("7.0", "007.wav"),
        ("Clips\\A", "clips/a.flac"),
        (NFC, NFD),
        (NFD, NFC),
        (NFD.upper(), NFC),
    ],
)
def test_the_only_file_that_fits_is_used(tmp_path: Path, written: str, there: str) -> None:
    put(tmp_path, there, "other.wav", "clip_07.txt", "._clip_07.wav")
    found, match_of = find_files(tmp_path, [written])
    assert found[written].path == tmp_path.resolve() / there
    assert found[written].exists
    assert match_of == {written: there}


@pytest.mark.parametrize(
    ("written", "there", "nearest"),
    [
        ("clip", ("clip.wav", "clip.mp3"), ("clip.mp3", "clip.wav")),
        ("clip.mp3", ("clip.wav",), ("clip.wav",)),
        ("7.wav", ("007.wav", "07.wav"), ("007.wav", "07.wav")),
        ("clip_7.wav", ("clip_07.wav",), ("clip_07.wav",)),
        ("clip", ("clip.txt",), ()),
        ("nothing.wav", ("a.wav",), ()),
    ],
)
def test_otherwise_the_nearest_names_are_given(
    tmp_path: Path, written: str, there: tuple[str, ...], nearest: tuple[str, ...]
) -> None:
    put(tmp_path, *there)
    found, match_of = find_files(tmp_path, [written])
    assert not found[written].exists
    assert not match_of
    assert found[written].nearest == nearest


def test_a_file_stands_for_one_name(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "b.wav")
    found, match_of = find_files(tmp_path, ["a", "a.wav", "b", "B.WAV"])
    assert [name for name, file in found.items() if file.exists] == ["a.wav"]
    assert not match_of
    assert found["b"].nearest == ("b.wav",)


@pytest.mark.parametrize(
    "written", ["..\\b.wav", "x\\..\\..\\b.wav", "\\b.wav", "C:\\b.wav", "\\\\server\\b.wav"]
)
def test_a_name_never_leads_out(tmp_path: Path, written: str) -> None:
    put(tmp_path, "b.wav", "data/x/b.wav")
    found, match_of = find_files(tmp_path / "data", [written])
    assert found[written].path is None
    assert not match_of


def test_links_to_outside_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path, "outside/b.wav", "data/a.wav")
    (tmp_path / "data" / "Out").symlink_to(tmp_path / "outside")
    (tmp_path / "data" / "B.wav").symlink_to(tmp_path / "outside" / "b.wav")
    for written in ("Out/B.WAV", "out/b", "b.wav", "b"):
        found, match_of = find_files(tmp_path / "data", [written])
        assert not found[written].exists
        assert not match_of


def test_folders_are_listed_once_and_only_for_missing_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{folder}/{number:03}.wav" for folder in "xy" for number in range(20)]
    put(tmp_path, *names)
    listed: list[str] = []
    listdir = os.listdir

    def noting(path: Path) -> list[str]:
        listed.append(path.name)
        return listdir(path)

    monkeypatch.setattr("hearback.engine.data.filenames.os.listdir", noting)
    find_files(tmp_path, names)
    assert listed == []
    _, match_of = find_files(tmp_path, [name.replace(".wav", "") for name in names])
    assert len(match_of) == 40
    assert listed == ["x", "y"]


def test_only_some_missing_files_have_suggestions(tmp_path: Path) -> None:
    put(tmp_path, *[f"clip{number:05}.wav" for number in range(200)])
    found, _ = find_files(tmp_path, [f"clip{number:05}x.wav" for number in range(200)])
    assert sum(bool(file.nearest) for file in found.values()) == 20


def test_names_of_tables_are_matched_in_both_directions() -> None:
    assert match_names(["a", "B.WAV", "7", "c.wav"], ["a.wav", "b.wav", "007.wav", "c.wav"]) == {
        "a": "a.wav",
        "B.WAV": "b.wav",
        "7": "007.wav",
    }
    assert match_names(["a.wav", "x\\b.wav"], ["a", "x/b.wav"]) == {
        "a.wav": "a",
        "x\\b.wav": "x/b.wav",
    }
    assert match_names(["a", "a.wav"], ["a.wav"]) == {}
    assert match_names(["a", "A.wav"], ["a.wav"]) == {}
    assert match_names(["a"], ["a.wav", "a.mp3"]) == {}
    assert match_names(["a.mp3"], ["a.wav"]) == {}
    assert match_names(["", "a"], ["", "b"]) == {}


def test_near_names_are_similar() -> None:
    assert nearest_names("clip_07.wav", ["clip_17.wav", "zebra.wav"]) == ["clip_17.wav"]
    assert nearest_names("a" * 100_000, ["a.wav"]) == []


def test_a_store_has_the_names_as_written(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("clip_07.wav", "b.WAV", "c.wav"):
        soundfile.write(data / name, tone(seconds=1.0), 16_000, format="WAV")
    names = ["clip_07", "b.wav", "c.wav", "clip_08.wav"]
    metadata = pd.DataFrame({"filename": names, "line": [2, 3, 4, 5]})
    for _ in range(2):  # decoded, then from the store
        report = Report()
        store = build_store(
            metadata, data, data / "t.csv", tmp_path / "store", "train", report=report,
            progress=False,
        )  # fmt: skip
        assert [name for name in names if name in store] == names[:3]
        (warning,), (error,) = report.warnings, report.errors
        assert warning.what == (
            "2 filenames are spelled otherwise than on disk: "
            "'clip_07' is 'clip_07.wav', 'b.wav' is 'b.WAV'"
        )
        assert warning.row is None
        assert error.cure.startswith("'clip_07.wav' is there: write the name that is meant; or ")


def test_names_that_look_alike_are_shown_by_their_letters(tmp_path: Path) -> None:
    problem = respelled(tmp_path, {"caf\u0065\u0301.wav": "caf\u00e9.wav"}, "than on disk")
    assert problem.what == (
        r"1 filename is spelled otherwise than on disk: 'cafe\u0301.wav' is 'caf\xe9.wav'"
    )


def test_links_to_outside_are_followed_where_the_caller_wants_it(tmp_path: Path) -> None:
    put(tmp_path, "outside/b.wav", "data/a.wav")
    (tmp_path / "data" / "out").symlink_to(tmp_path / "outside")
    (tmp_path / "data" / "b.wav").symlink_to(tmp_path / "outside" / "b.wav")
    names = ["b.wav", "out/b.wav", "out/B.WAV", "../outside/b.wav", "out/../../outside/b.wav"]
    found, _ = find_files(tmp_path / "data", names, follow_links=True)
    assert [found[name].exists for name in names] == [True, True, False, False, False]
    assert [found[name].path is None for name in names] == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("written", "there"), [(NFC, NFD), (NFD, NFC), ("clip_7.wav", "clip_07.wav")]
)
def test_what_is_in_the_place_of_a_missing_file_is_found(
    tmp_path: Path, written: str, there: str
) -> None:
    put(tmp_path, there, "._clip_07.wav", "x.txt")
    if (tmp_path / written).exists():
        return  # the file system knows both as one name
    assert nearest_files(tmp_path / written) == [there]
    assert nearest_files(tmp_path / "no" / written) == []


def test_names_that_are_there_are_a_sentence() -> None:
    assert are_there([]) == ""
    assert are_there(["a.wav"]) == "'a.wav' is there"
    assert are_there(["a.wav", "b.wav"]) == "'a.wav' and 'b.wav' are there"
