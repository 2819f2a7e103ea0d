"""Recordings and texts come as one file, a folder or a table; what is wrong is reported."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
import soundfile

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.data.problems import BadInputError, Report
from hearback.engine.errors import HearbackError
from hearback.reading.scoring.inputs import read_inputs, read_score_table
from hearback.reading.scoring.recordings import open_recordings
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


def test_the_only_recording_may_have_two_texts(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", spoken("boy"), SAMPLE_RATE)
    with pytest.raises(HearbackError, match="its recording has no text beside it"):
        read_inputs(tmp_path, None, Report())
    (tmp_path / "a.txt").write_text("boy")
    (tmp_path / "a.lab").write_text("girl")
    report = Report()
    read_inputs(tmp_path, None, report)
    assert what(report) == [("a.wav", "two texts that differ: a.lab and a.txt")]


def test_a_name_that_is_not_utf_8_is_reported(clips: Path) -> None:
    for suffix in (b".wav", b".txt"):
        (clips / os.fsdecode(b"b\xff" + suffix)).write_bytes((clips / "a.txt").read_bytes())
    report = Report()
    assert len(read_inputs(clips, None, report).frame) == 3
    name = "the file's name is no UTF-8: b\\udcff"
    assert what(report) == [(None, f"{name}.txt"), (None, f"{name}.wav")]
    with pytest.raises(HearbackError, match="the name is no UTF-8; rename it"):
        read_inputs(clips / os.fsdecode(b"b\xff.wav"), "boy", Report())


def test_a_name_with_a_backslash_is_reported(clips: Path) -> None:
    (clips / "a\\b.wav").write_bytes((clips / "a.wav").read_bytes())
    report = Report()
    assert len(read_inputs(clips, None, report).frame) == 3
    (found,) = what(report)
    assert found[1].startswith("the file's name has a backslash, which other systems")


def test_a_subfolder_that_cannot_be_listed_is_reported(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = os.scandir

    def scandir(path: str | Path) -> object:  # as root, every folder can be listed
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = Report()
    assert len(read_inputs(clips, None, report).frame) == 2
    assert what(report) == [(None, "the subfolder deep cannot be listed (Permission denied)")]


def test_two_texts_that_differ_are_reported_and_equal_ones_are_not(clips: Path) -> None:
    (clips / "a.lab").write_text("girl")
    (clips / "c.txt").write_text("the dog  ran\nhome")
    report = Report()
    read_inputs(clips, None, report)
    assert what(report) == [("a.wav", "two texts that differ: a.lab and a.txt")]


def test_the_first_changed_text_is_named(clips: Path) -> None:
    (clips / "c.lab").write_text("5 dogs")
    report = Report()
    read_inputs(clips, None, report)
    (problem,) = report.warnings
    assert "1 of 3 expected texts was changed" in problem.what
    assert problem.what.endswith(", first in 'c.wav', such as '5 dogs' -> 'five dogs'")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("...", "--text '...' has no letter and no digit"),
        ("", "empty --text"),
        ("chapter XII", "--text: 'XII' is a Roman numeral, which can be read in several ways"),
    ],
)
def test_problems_of_a_text_from_the_command_line_name_it(
    text: str, what: str, clips: Path
) -> None:
    report = Report()
    inputs = read_inputs(clips / "a.wav", text, report)
    (problem,) = report.problems
    recording = clips.absolute() / "a.wav"
    assert (problem.file, problem.what) == (str(recording), what)
    assert (inputs.origin, inputs.folder, inputs.is_table) == (recording, recording.parent, False)


def test_problems_of_the_text_beside_one_recording_name_it(clips: Path) -> None:
    (clips / "a.txt").write_text("2-3 cats")
    report = Report()
    read_inputs(clips / "a.wav", None, report)
    (clips / "a.lab").write_text("two cats")
    read_inputs(clips / "a.wav", None, report)
    assert {problem.file for problem in report.problems} == {str(clips.absolute() / "a.wav")}
    assert [problem.what for problem in report.problems] == [
        "text: '2-3' has digits that can be read in several ways",
        "two texts that differ: a.txt and a.lab",
    ]


def test_one_recording_that_is_unreadable_has_no_row_to_remove(clips: Path, tmp_path: Path) -> None:
    (clips / "a.wav").write_bytes(b"RIFF")
    report = Report()
    inputs = read_inputs(clips / "a.wav", "boy", report)
    open_recordings(inputs, tmp_path / "store", report)
    (problem,) = report.problems
    assert (problem.file, problem.row) == (str(clips.absolute() / "a.wav"), None)
    assert problem.cure.endswith("or remove it")


def test_a_formula_in_place_of_a_filename_is_named(clips: Path, tmp_path: Path) -> None:
    table, report = clips / "t.csv", Report()
    table.write_text("filename,text\n=HYPERLINK(1),boy\na.wav,boy\n")
    open_recordings(read_inputs(table, None, report), tmp_path / "store", report)
    (problem,) = report.problems
    assert (problem.row, problem.what) == (2, "the recording is missing")
    assert problem.cure.startswith("the name is a formula of a spreadsheet: write the value")


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
        (("a.txt",), "no recording there, only 1 text;"),
        (("a.wav",), "its recording has no text beside it; put the words of clip.wav"),
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
        ("none.wav", "boy", "no such file or folder; name a recording"),
        ("A.wav", "boy", "no such file or folder; 'a.wav' is there; name a recording"),
        ("", "boy", "--text is for one recording"),
        ("table.csv", "boy", "--text is for a recording, and this is a table"),
        ("lines.json", "boy", "--text is for a recording, and this is a table"),
    ],
)
def test_a_text_that_does_not_fit_is_refused(
    clips: Path, name: str, text: str, message: str
) -> None:
    (clips / "table.csv").write_text("filename,text\na.wav,boy\n")
    (clips / "lines.json").write_text('{"audio_filepath": "a.wav", "text": "boy"}\n')
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
    with pytest.raises(BadInputError, match="the column 'text' is missing") as caught:
        read_score_table(table, Report())
    assert "'age'" in str(caught.value)


@pytest.mark.parametrize(
    ("column", "hint"),
    [
        ("expected_txt", "'expected_txt' is there: is it expected_text? Then rename it to text; "),
        ("txet", "'txet' is there: is it text? Then rename it; "),
    ],
)
def test_a_mistyped_column_is_taken_for_the_nearest_name(
    clips: Path, column: str, hint: str
) -> None:
    table = clips / "table.csv"
    table.write_text(f"filename,{column}\na.wav,boy\n")
    with pytest.raises(BadInputError, match="the column 'text' is missing") as caught:
        read_score_table(table, Report())
    assert hint in str(caught.value)


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
    assert by_line[4].what == "empty text"
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


def suffixless(clips: Path, *names: str) -> None:
    """Move recordings to names without their suffix."""
    for name in names:
        (clips / f"{name}.wav").rename(clips / name)


def test_recordings_without_a_suffix_are_known_by_their_content(clips: Path) -> None:
    suffixless(clips, "a", "deep/b")
    soundfile.write(clips / "c.wav", spoken("the dog ran home"), 16_000, format="MP3")
    (clips / "c.wav").rename(clips / "c.take1")
    (clips / "c.lab").rename(clips / "c.take1.txt")
    (clips / "notes").write_text("read on Monday")
    (clips / "table.csv").write_text("filename,text\na,boy\n")
    report = Report()
    frame = read_inputs(clips, None, report).frame
    assert frame["filename"].tolist() == ["a", "c.take1", "deep/b"]
    assert frame["written_text"].tolist() == ["boy", "the dog ran home", "a red hat"]
    assert not report.problems


def test_of_two_columns_of_texts_the_one_that_is_not_used_is_named(clips: Path) -> None:
    table = clips / "t.csv"
    table.write_text("filename,text,expected_text\na.wav,girl,boy\n")
    inputs = read_inputs(table, None, Report())
    assert inputs.frame["written_text"].tolist() == ["boy"]
    assert inputs.notes == (f"{table}: its column 'text' is not used, 'expected_text' is the text",)


def test_one_recording_may_have_no_suffix(clips: Path) -> None:
    suffixless(clips, "a", "c")
    assert read_inputs(clips / "a", None, Report()).frame["written_text"].tolist() == ["boy"]
    assert read_inputs(clips / "c", "Girl!", Report()).frame["written_text"].tolist() == ["Girl!"]


def test_a_text_may_have_the_whole_name_of_its_recording(clips: Path) -> None:
    (clips / "a.txt").rename(clips / "a.wav.txt")
    report = Report()
    frame = read_inputs(clips, None, report).frame
    assert frame["written_text"].tolist()[0] == "boy" and not report.problems
    assert read_inputs(clips / "a.wav", None, Report()).frame["written_text"].tolist() == ["boy"]


@pytest.mark.parametrize(
    ("content", "is_what"),
    [
        (b"<!DOCTYPE html><html>", "a web page (HTML), not a recording"),
        (b"read on Monday", "a text, not a recording: it begins 'read on Monday'"),
        (b"#!SILK_V3" + bytes(99), "a SILK file (a voice message)"),
        (bytes(range(256)), "of no format that is known"),
        (b"", "of no format that is known"),
    ],
)
def test_what_is_beside_a_text_in_place_of_its_recording_is_named(
    clips: Path, content: bytes, is_what: str
) -> None:
    (clips / "h").write_bytes(content)
    (clips / "h.txt").write_text("girl")
    report = Report()
    assert len(read_inputs(clips, None, report).frame) == 3
    (problem,) = report.problems
    assert (problem.filename, problem.what) == ("h.txt", "the text has no recording beside it")
    assert problem.cure == (
        f"h is there, but it is {is_what}; put the recording of the same name there, or remove "
        "the text"
    )


@pytest.mark.parametrize(
    ("content", "what", "cure"),
    [
        (b"PK\x03\x04", "a ZIP archive, not plain text", "put the text that is in it there"),
        (b"PK\x03\x04 [Content_Types].xml", "a spreadsheet or another", "save the text as plain"),
        (b"a\0b" * 9, "not UTF-8 text", "save it as plain text in UTF-8"),
        (b'{"text": "boy"}', "JSON lines, not plain text", "put the words alone there"),
        (b"0 1500000 boy\n1500000 2000000 sil\n", "labels with times (HTK), not", "without times"),
        (b"the caf\xe9", "not UTF-8, read as Windows-1252", "save the file as plain text in UTF-8"),
    ],
)
@pytest.mark.parametrize("suffix", [".lab", ".txt"])
def test_what_is_no_plain_text_is_named_with_its_cure(
    clips: Path, suffix: str, content: bytes, what: str, cure: str
) -> None:
    (clips / "a.txt").unlink()
    (clips / f"a{suffix}").write_bytes(content)
    report = Report()
    read_inputs(clips, None, report)
    (problem,) = report.problems
    assert problem.what.startswith(f"its text in a{suffix}: ") and what in problem.what
    assert cure in problem.cure and "CSV" not in f"{problem.what} {problem.cure}"


def manifest_of(path: Path, *records: Mapping[str, object]) -> Path:
    path.write_text("".join(f"{json.dumps(each)}\n" for each in records))
    return path


def test_a_manifest_of_nemo_is_read(clips: Path) -> None:
    path = manifest_of(
        clips / "manifest.json",
        {"audio_filepath": "a.wav", "duration": 0.6, "text": "boy", "speaker": "s1"},
        {"audio_filepath": "deep/b.wav", "duration": 1.1, "text": "A red hat!"},
    )
    report = Report()
    inputs = read_inputs(path, None, report)
    columns = ["filename", "expected_text", "written_text", "speaker", "line"]
    assert inputs.frame[columns].to_numpy().tolist() == [
        ["a.wav", "boy", "boy", "s1", 1],
        ["deep/b.wav", "a red hat", "A red hat!", "", 2],
    ]
    assert not report.problems
    assert inputs.folder == clips and inputs.durations == {"a.wav": 0.6, "deep/b.wav": 1.1}
    assert inputs.notes == (
        f"{path}: read as JSON lines; its recordings are in {clips}",
        f"{path}: its column 'audio_filepath' is read as filename",
    )


def test_absolute_paths_of_a_manifest_lead_to_the_folder_that_has_them(
    clips: Path, tmp_path: Path
) -> None:
    names = ("a.wav", "deep/b.wav")
    records = [{"audio_filepath": str(clips / name), "text": "boy"} for name in names]
    path = manifest_of(tmp_path / "m.jsonl", *records)
    for data in (None, clips):
        report = Report()
        inputs = read_inputs(path, None, report, data=data)
        assert inputs.folder == clips and not report.problems
        assert inputs.frame["filename"].tolist() == list(names)
    path = manifest_of(path, *records, {"audio_filepath": "recordings/c.wav", "text": "boy"})
    inputs = read_inputs(path, None, Report())
    assert inputs.folder == tmp_path
    assert inputs.frame["filename"].tolist() == [
        *(f"recordings/{name}" for name in names),
        "recordings/c.wav",
    ]


def test_a_relative_path_of_a_manifest_does_not_make_absolute_ones_unusable(
    clips: Path, tmp_path: Path
) -> None:
    (tmp_path / "lists").mkdir()
    path = manifest_of(
        tmp_path / "lists" / "m.json",
        {"audio_filepath": str(clips / "a.wav"), "text": "boy"},
        {"audio_filepath": "wrong.wav", "text": "boy"},
        {"audio_filepath": "../c.wav", "text": "boy"},
        {"text": "boy"},
    )
    report = Report()
    inputs = read_inputs(path, None, report)
    assert inputs.folder == tmp_path
    names = ["recordings/a.wav", "lists/wrong.wav", "../c.wav", ""]
    assert inputs.frame["filename"].tolist() == names
    assert [problem.row for problem in report.errors] == [4, 3]


def test_paths_of_a_manifest_outside_of_the_folder_are_refused(clips: Path, tmp_path: Path) -> None:
    path = manifest_of(
        tmp_path / "m.json",
        {"audio_filepath": str(clips / "a.wav"), "text": "boy"},
        {"audio_filepath": "/elsewhere/b.wav", "text": "boy"},
        {"audio_filepath": "../c.wav", "text": "boy"},
    )
    report = Report()
    read_inputs(path, None, report, data=clips)
    assert [(problem.row, problem.what) for problem in report.errors] == [
        (2, "the filename leads out of the data folder"),
        (3, "the filename leads out of the data folder"),
    ]


def test_faults_of_a_manifest_have_their_lines(clips: Path) -> None:
    path = manifest_of(
        clips / "m.json",
        {"audio_filepath": "a.wav", "text": "boy", "duration": "long"},
        {"audio_filepath": "c.wav", "text": "", "duration": -1},
        {"audio_filepath": "deep/b.wav", "text": "x", "offset": 1.5, "duration": 1},
    )
    report = Report()
    inputs = read_inputs(path, None, report)
    assert inputs.durations == {}
    assert [(problem.row, problem.severity, problem.what) for problem in report.problems] == [
        (3, "error", "its offset is 1.5: only a part of the recording is meant"),
        (1, "warning", "its duration 'long' is no length in seconds, and not used"),
        (2, "warning", "its duration '-1' is no length in seconds, and not used"),
        (2, "error", "empty text"),
    ]


def test_recordings_that_are_not_as_long_as_a_manifest_tells_are_reported(
    clips: Path, tmp_path: Path
) -> None:
    seconds = len(spoken("boy")) / 16_000
    path = manifest_of(
        clips / "m.json",
        {"audio_filepath": "a.wav", "text": "boy", "duration": seconds + 2},
        {"audio_filepath": "c.wav", "text": "the dog ran home", "duration": 0.1},
        {"audio_filepath": "deep/b.wav", "text": "a red hat", "duration": 1e9},
    )
    (clips / "deep" / "b.wav").unlink()
    report = Report()
    open_recordings(read_inputs(path, None, report), tmp_path / "store", report)
    first, second = report.warnings
    assert (first.row, first.filename) == (1, "a.wav")
    assert first.what == (
        f"its duration is {seconds + 2:.1f} s, but the recording has {seconds:.1f} s, all scored"
    )
    assert first.cure == "correct the duration, or put the recording that is meant there"
    assert second.row == 2 and second.cure.startswith("correct the duration, or cut the part")
