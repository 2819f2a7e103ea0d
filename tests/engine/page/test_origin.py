"""What a table of scores was made of, kept beside it."""

import shutil
from pathlib import Path

import pytest

from hearback.engine.errors import HearbackError
from hearback.engine.page.origin import Origin, origin_path, read_origin, write_origin


@pytest.fixture
def table(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "scores.csv").write_text("filename,score\na.wav,0.5\n")
    (folder / "words.csv").write_text("filename,word\na.wav,the\n")
    (folder / "recordings").mkdir()
    return folder / "scores.csv"


def write(table: Path) -> None:
    folders = {"data": table.parent / "recordings", "scorer": table.parent.parent / "scorer"}
    write_origin(table, Origin(folders, "tiny.en", {"words": table.with_name("words.csv")}))


def test_an_origin_is_read_as_it_was_written(table: Path) -> None:
    assert read_origin(table) is None
    write(table)
    assert origin_path(table).name == "scores_origin.json"
    found = read_origin(table)
    assert found is not None and found.is_current
    assert found.folders["data"] == table.parent / "recordings"
    assert found.folders["scorer"] == table.parent.parent / "scorer"
    assert found.scorer == "tiny.en"
    assert found.tables == {"words": table.with_name("words.csv")}


def test_a_folder_may_be_moved_with_its_table(table: Path, tmp_path: Path) -> None:
    write(table)
    shutil.move(table.parent, tmp_path / "there")
    found = read_origin(tmp_path / "there" / "scores.csv")
    assert found is not None and found.is_current
    assert found.folders["data"] == tmp_path / "there" / "recordings"


def test_what_has_been_changed_since_is_told(table: Path) -> None:
    write(table)
    table.with_name("words.csv").write_text("filename,word\na.wav,a\n")
    found = read_origin(table)
    assert found is not None and found.is_current and found.tables == {}
    table.write_text("filename,score\na.wav,0.7\n")
    found = read_origin(table)
    assert found is not None and not found.is_current


@pytest.mark.parametrize("content", ["{", "[]", '{"sha256": 3}', '{"tables": [], "folders": 1}'])
def test_a_damaged_origin_is_an_error_with_a_cure(table: Path, content: str) -> None:
    origin_path(table).write_text(content)
    with pytest.raises(HearbackError, match=r"scores_origin\.json: cannot be read .*; delete it"):
        read_origin(table)
