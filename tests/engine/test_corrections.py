"""Corrections of a labelled table: how they are read, and what they change."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hearback.engine.data.corrections import (
    Corrections,
    LabelledTable,
    describe,
    read_corrections,
)
from hearback.engine.data.problems import Problem, Report

NAMES = ["a.wav", "b.wav", "007.wav", "Ünï.wav"]
LABELS = np.array([0, 1, 1, 0], np.float32)
HEADER = "filename,verdict,score,note\n"


def parse(written: str) -> float:
    return {"0": 0.0, "1": 1.0, "1.0": 1.0}.get(written, np.nan)


def read(
    tmp_path: Path, text: str | bytes, folder: str = "", names: list[str] = NAMES
) -> tuple[Corrections, Report]:
    path, report = tmp_path / "corrections.csv", Report()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    table = LabelledTable(Path("labels.csv"), names, LABELS, {0: "0", 1: "1"}, parse, folder)
    return read_corrections(path, table, report), report


def read_rows(tmp_path: Path, *rows: str) -> tuple[Corrections, Report]:
    return read(tmp_path, HEADER + "".join(f"{row}\n" for row in rows))


def only(report: Report) -> Problem:
    (problem,) = report.problems
    return problem


def test_each_verdict(tmp_path: Path) -> None:
    found, report = read_rows(
        tmp_path, "a.wav,wrong_label,1,he says it", "b.wav,unscorable,,noise", "007.wav,agree,,"
    )
    assert not report.problems
    assert found.labels == {"a.wav": 1.0}
    assert found.left_out == {"b.wav"}
    assert str(found) == "corrections.csv: 1 label changed, 1 recording left out"


def test_the_rows_are_those_of_a_table_with_the_notes(tmp_path: Path) -> None:
    found, _ = read_rows(
        tmp_path, "a.wav,wrong_label,1,he says it", "b.wav,unscorable,,noise", "007.wav,agree,,ok"
    )
    assert found.rows() == [
        ("a.wav", "wrong_label", "1", "he says it"),
        ("b.wav", "unscorable", "", "noise"),
        ("007.wav", "agree", "", "ok"),
    ]
    again, report = read_rows(tmp_path, *(",".join(row) for row in found.rows()))
    assert not report.problems and again == found
    assert Corrections().rows() == []


def test_apply_changes_labels_and_drops_rows_but_not_its_arguments(tmp_path: Path) -> None:
    found, _ = read_rows(tmp_path, "a.wav,wrong_label,1,", "b.wav,unscorable,,")
    frame = pd.DataFrame({"filename": NAMES})
    kept, labels = found.apply(frame, LABELS)
    assert kept["filename"].tolist() == ["a.wav", "007.wav", "Ünï.wav"]
    assert kept.index.tolist() == [0, 1, 2]
    assert labels.tolist() == [1, 1, 0] and labels.dtype == np.float32
    assert LABELS.tolist() == [0, 1, 1, 0] and len(frame) == 4
    assert found.changed(frame).tolist() == [True, False, False, False]
    unchanged, same = Corrections().apply(frame, LABELS)
    assert unchanged.equals(frame) and same.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfFilename;Verdict;Score;Note\r\n"
        b"a.wav;Wrong Label;1.0;x;\r\nb.wav;UNSCORABLE;;\r\n",
        "sep=;\nfilename;verdict;score;note\na.wav;wrong-label;1;\nb.wav;unscorable;;\n",
        HEADER.encode("utf-16") + "a.wav,wronglabel,1,\nb.wav,unscorable,,\n".encode("utf-16-le"),
        "note\tverdict\tfilename\tscore\n\tunscorable\tb.wav\t\n\twrong_label\ta.wav\t1\n",
        'filename,verdict,score\n"a.wav", "wrong_label",1\n.\\b.wav,unscorable,\n',
    ],
)
def test_tables_of_spreadsheets(tmp_path: Path, text: str | bytes) -> None:
    found, report = read(tmp_path, text)
    assert not report.errors, report
    assert (found.labels, found.left_out) == ({"a.wav": 1.0}, {"b.wav"})


def test_filenames_that_a_spreadsheet_changed(tmp_path: Path) -> None:
    found, report = read_rows(tmp_path, "7,unscorable,,", "U\u0308ni\u0308.WAV,unscorable,,")
    assert found.left_out == {"007.wav", "Ünï.wav"}
    assert "2 filenames are spelled otherwise than in labels.csv" in only(report).what


@pytest.mark.parametrize("written", ["train/a.wav", "a.wav"])
def test_the_folder_of_the_recordings_may_be_left_away(tmp_path: Path, written: str) -> None:
    names = [f"train/{name}" for name in NAMES]
    found, report = read(tmp_path, f"{HEADER}{written},unscorable,,\n", "train", names)
    assert found.left_out == {"train/a.wav"} and not report.problems


@pytest.mark.parametrize(
    ("row", "what", "cure"),
    [
        ("aa.wav,agree,,", "labels.csv has no such recording", "'a.wav' is there; correct the fil"),
        ("x,unscorable,,", "labels.csv has no such recording", "correct the filename, or remove"),
        ("a.wav,wrong_lable,1,", "unknown verdict 'wrong_lable'", "did you mean wrong_label?"),
        ("a.wav,,1,", "unknown verdict ''", "use one of agree, wrong_label, unscorable"),
        ("a.wav,wrong_label,,", "wrong_label without the right label", "must be one of 0, 1"),
        ("a.wav,wrong_label,2,", "the right label is '2'", "must be one of 0, 1"),
        (",agree,,", "empty filename", "name the recording"),
    ],
)
def test_a_bad_row_is_an_error(tmp_path: Path, row: str, what: str, cure: str) -> None:
    found, report = read_rows(tmp_path, row)
    problem = only(report)
    assert (problem.severity, problem.row) == ("error", 2)
    assert problem.file == str(tmp_path / "corrections.csv")
    assert problem.what == what and cure in problem.cure
    assert found.record() is None


@pytest.mark.parametrize(
    ("again", "what"),
    [
        ("a.wav,unscorable,,", "unscorable, but wrong_label 1 on line 2"),
        ("a.wav,agree,,", "agree, but wrong_label 1 on line 2"),
        ("a.wav,wrong_label,0,", "wrong_label 0, but wrong_label 1 on line 2"),
    ],
)
def test_two_verdicts_on_a_recording_are_an_error(tmp_path: Path, again: str, what: str) -> None:
    _, report = read_rows(tmp_path, "a.wav,wrong_label,1,", again)
    assert [problem.what for problem in report.errors] == [what]
    assert report.errors[0].row == 3 and report.errors[0].filename == "a.wav"


def test_the_same_verdict_twice_is_used_once(tmp_path: Path) -> None:
    found, report = read_rows(tmp_path, "a.wav,wrong_label,1,x", "a.wav,wrong_label,1.0,y")
    assert found.labels == {"a.wav": 1.0}
    assert only(report).what == "the same verdict again, first on line 2"
    assert only(report).severity == "warning"


def test_a_label_that_is_already_right_changes_nothing(tmp_path: Path) -> None:
    found, report = read_rows(tmp_path, "b.wav,wrong_label,1,")
    assert only(report).what == "wrong_label, but the label is 1 already"
    assert only(report).severity == "warning"
    assert str(found) == "corrections.csv: nothing is changed"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("filename,score\na.wav,1\n", "the column 'verdict' is missing"),
        ("file,verdict\na.wav,agree\n", "the column 'filename' is missing"),
        ("", "the file is empty"),
        (HEADER, "no rows below the header"),
        (b"PK\x03\x04 a workbook", "not CSV"),
        (HEADER + "".join(f"{name},unscorable,,\n" for name in NAMES), "all recordings are left"),
    ],
)
def test_a_bad_table_is_an_error(tmp_path: Path, text: str | bytes, what: str) -> None:
    _, report = read(tmp_path, text)
    assert what in str(report)
    assert report.table_errors


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    report = Report()
    table = LabelledTable(Path("labels.csv"), NAMES, LABELS, {0: "0", 1: "1"}, parse)
    found = read_corrections(tmp_path / "none.csv", table, report)
    assert only(report).what == "there is no such file" and found.record() is None
    assert read_corrections(None, table, report) == Corrections()


def test_the_record_depends_on_the_changes_only(tmp_path: Path) -> None:
    rows = ["a.wav,wrong_label,1,", "b.wav,unscorable,,"]
    record = read_rows(tmp_path, *rows)[0].record()
    assert record is not None
    assert {**record, "digest": ""} == {"digest": "", "labels_changed": 1, "left_out": 1}
    others = ["b.wav,unscorable,,a note", "007.wav,agree,,", "a.wav,wrong_label,1.0,"]
    assert read_rows(tmp_path, *others)[0].record() == record
    assert read_rows(tmp_path, rows[0], "007.wav,unscorable,,")[0].record() != record
    assert read_rows(tmp_path, "a.wav,agree,,")[0].record() is None
    assert describe(record) == "1 label changed, 1 recording left out" and describe(None) == ""


def test_problems_of_recordings_that_are_left_out_are_discarded(tmp_path: Path) -> None:
    found, report = read_rows(tmp_path, "a.wav,unscorable,,", "a.wav,unscorable,,")
    silent = Problem("labels.csv", 2, "silent", "record it again", filename="a.wav")
    other = Problem("labels.csv", 3, "silent", "record it again", filename="b.wav")
    report.extend([silent, other])
    found.discard_problems(report)
    kept = [(problem.file, problem.filename) for problem in report.problems]
    assert kept == [(str(found.path), "a.wav"), ("labels.csv", "b.wav")]
