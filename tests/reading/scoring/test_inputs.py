"""Recordings and texts come as one file, a folder or a table; what is wrong is reported."""

from pathlib import Path

import pandas as pd
import pytest
import soundfile

from hearback.engine.data.problems import BadInputError, Report
from hearback.engine.errors import HearbackError
from hearback.reading.scoring.inputs import read_inputs, read_score_table
from tests.toy import spoken


def what(report: Report) -> list[tuple[str | None, str]]:
    return [(problem.filename, problem.what) for problem in report.problems]


def test_a_folder_is_read_with_its_subfolders(clips: Path) -> None:
    report = Report()
    inputs = read_inputs(clips, None, report)
    found = dict(zip(inputs.frame["filename"], inputs.frame["expected_text"], strict=True))
    assert found == {"a.wav": "boy", "c.wav": "the dog ran home", "deep/b.wav": "a red hat"}
    assert not report.problems


def test_unpaired_files_of_a_folder_are_reported(clips: Path) -> None:
    (clips / "a.txt").unlink()
    (clips / "d.lab").write_text("sunshine")
    report = Report()
    inputs = read_inputs(clips, None, report)
    assert len(inputs.frame) == 3
    assert what(report) == [
        ("a.wav", "the recording has no text beside it"),
        ("d.lab", "the text has no recording beside it"),
    ]
    assert report.errors[0].cure == "put the words into a.txt (or a.lab) in the same folder"


def test_two_texts_that_differ_are_reported_and_equal_ones_are_not(clips: Path) -> None:
    (clips / "a.lab").write_text("girl")
    (clips / "c.txt").write_text("the dog  ran\nhome")
    report = Report()
    read_inputs(clips, None, report)
    assert what(report) == [("a.wav", "two texts that differ: a.lab and a.txt")]


def test_hidden_files_of_a_mac_are_no_recordings(clips: Path) -> None:
    (clips / "._a.wav").write_bytes(b"\0")
    assert len(read_inputs(clips, None, Report()).frame) == 3


def test_a_text_in_another_encoding_is_read(clips: Path) -> None:
    (clips / "a.txt").write_bytes("the boy’s hat".encode("utf-16"))
    frame = read_inputs(clips, None, Report()).frame
    assert frame["expected_text"].iloc[0] == "the boy's hat"


def test_a_text_file_that_is_no_text_is_reported(clips: Path) -> None:
    (clips / "a.txt").write_bytes(b"PK\x03\x04")
    report = Report()
    read_inputs(clips, None, report)
    (filename, message) = what(report)[0]
    assert filename == "a.wav" and message.startswith("its text in a.txt: the file is")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no recording there; put clip.wav beside clip.txt"),
        (("a.txt",), "no recording there, only 1 texts"),
        (("a.wav",), "none of its 1 recordings has a text beside it; put the words of clip.wav"),
        (("a.wav", "table.csv"), "or name the table: "),
    ],
)
def test_a_folder_without_a_pair_is_refused(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    for name in names:
        (tmp_path / name).write_text("x")
    with pytest.raises(HearbackError, match=message):
        read_inputs(tmp_path, None, Report())


def test_one_recording_takes_its_text_from_the_command_line_or_the_file_beside_it(
    clips: Path,
) -> None:
    assert read_inputs(clips / "a.wav", "Girl!", Report()).frame["expected_text"][0] == "girl"
    assert read_inputs(clips / "c.wav", None, Report()).frame["written_text"][0] == (
        "the dog ran home"
    )
    (clips / "a.txt").unlink()
    with pytest.raises(HearbackError, match=r"a\.wav: which text was read\? Add --text"):
        read_inputs(clips / "a.wav", None, Report())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.wav", "boy", "no such file or folder"),
        ("", "boy", "--text is for one recording"),
        ("table.csv", "boy", "--text is for a recording, and this is a table"),
    ],
)
def test_a_text_that_does_not_fit_is_refused(
    clips: Path, name: str, text: str, message: str
) -> None:
    (clips / "table.csv").write_text("filename,text\na.wav,boy\n")
    with pytest.raises(HearbackError, match=message):
        read_inputs(clips / name, text, Report())


def test_unknown_grades_and_tasks_are_refused_for_files_and_reported_in_tables(
    clips: Path,
) -> None:
    with pytest.raises(HearbackError, match="unknown grade '9': use one of KG, 1, 2, 3"):
        read_inputs(clips, None, Report(), grade="9")
    assert set(read_inputs(clips, None, Report(), grade="1st grade").frame["grade"]) == {"1"}
    table = clips / "table.csv"
    table.write_text("filename,text,grade\na.wav,boy,9\nc.wav,girl,Kindergarten\n")
    report = Report()
    assert read_score_table(table, report).frame["grade"].tolist() == ["", "KG"]
    assert [problem.what for problem in report.warnings] == ["unknown grade '9', scored without it"]


@pytest.mark.parametrize(
    ("header", "notes"),
    [
        ("filename,text", 0),
        ("filename,expected_text", 0),
        ("Filename;Expected Text", 0),
        ("path\tsentence", 2),
        ("text,filename", 0),
    ],
)
def test_a_table_has_any_of_the_usual_names_and_separators(
    clips: Path, header: str, notes: int
) -> None:
    separator = next(each for each in ",;\t" if each in header)
    cells = (
        ["the dog ran home", "c.wav"]
        if header.startswith("text")
        else ["c.wav", "The dog ran home."]
    )
    table = clips / "table.csv"
    table.write_text(f"{header}\n{separator.join(cells)}\n")
    inputs = read_inputs(table, None, Report())
    assert inputs.frame[["filename", "expected_text"]].to_numpy().tolist() == [
        ["c.wav", "the dog ran home"]
    ]
    assert inputs.folder == clips
    assert len(inputs.notes) == notes


def test_expected_text_goes_before_text(clips: Path) -> None:
    table = clips / "table.csv"
    table.write_text("filename,text,expected_text\na.wav,what was said,boy\n")
    assert read_score_table(table, Report()).frame["expected_text"].tolist() == ["boy"]


def test_a_table_without_texts_is_refused_with_its_columns(clips: Path) -> None:
    table = clips / "table.csv"
    table.write_text("filename,age\na.wav,7\n")
    with pytest.raises(BadInputError, match="the column 'expected_text' is missing") as caught:
        read_score_table(table, Report())
    assert "'age'" in str(caught.value)


def test_problems_of_rows_are_reported_with_their_lines(clips: Path) -> None:
    table = clips / "table.csv"
    table.write_text(
        "filename,text\n"
        "a.wav,boy\n"
        "a.wav,girl\n"  # given twice
        "c.wav,\n"  # no text
        "deep/b.wav,10/11\n"  # several readings
        "../x.wav,hat\n"  # outside
        f"deep/b.wav,{'word ' * 5000}\n"
    )
    report = Report()
    inputs = read_score_table(table, report)
    assert len(inputs.frame) == 6
    by_line = {problem.row: problem for problem in reversed(report.errors)}
    assert sorted(row for row in by_line if row) == [3, 4, 5, 6, 7]
    assert "duplicated filename" in by_line[3].what
    assert by_line[4].what == "empty expected_text"
    assert "leads out" in by_line[6].what


def test_only_the_folder_of_the_table_or_the_named_one_is_searched(
    clips: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("filename,text\na.wav,boy\n")
    assert read_inputs(table, None, Report()).folder == tmp_path
    assert read_inputs(table, None, Report(), data=clips).folder == clips
    with pytest.raises(HearbackError, match="is for a table"):
        read_inputs(clips, None, Report(), data=clips)


def test_a_frame_has_a_line_only_for_a_table(clips: Path) -> None:
    table = clips / "table.csv"
    pd.DataFrame({"filename": ["a.wav"], "text": ["boy"]}).to_csv(table, index=False)
    assert read_inputs(table, None, Report()).frame["line"].tolist() == [2]
    assert read_inputs(clips, None, Report()).frame["line"].tolist() == [None] * 3


def test_recordings_of_one_name_share_the_text(clips: Path) -> None:
    soundfile.write(clips / "a.flac", spoken("boy"), 16_000)
    frame = read_inputs(clips, None, Report()).frame
    assert frame["expected_text"].tolist()[:2] == ["boy", "boy"]
