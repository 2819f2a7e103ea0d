"""Reading tables: every problem is reported, with its row."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hearback.engine.data import text_files
from hearback.engine.data.paths import contained, leads_out
from hearback.engine.data.problems import BadInputError, Problem, Report, quoted
from hearback.engine.data.tables import write_table
from hearback.reading.tables import (
    GRADES,
    LONGEST_TEXT,
    TASKS,
    read_labels,
    read_metadata,
    read_submission_format,
)

HEADER = "filename,task,expected_text,grade\n"
COLUMNS = ["filename", "task", "expected_text", "grade", "line", "written_text"]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def metadata_of(tmp_path: Path, content: str | bytes) -> tuple[pd.DataFrame, Report]:
    report = Report()
    return read_metadata(write(tmp_path / "metadata.csv", content), report), report


def labels_of(tmp_path: Path, content: str) -> tuple[pd.Series, Report]:
    """Read labels of the three recordings a.wav, b.wav and c.wav, on lines 2 to 4."""
    rows = "".join(f"{name}.wav,blending,cat,1\n" for name in "abc")
    metadata, report = metadata_of(tmp_path, HEADER + rows)
    assert not report.problems
    return read_labels(write(tmp_path / "labels.csv", content), metadata, report), report


def problems_of(report: Report) -> list[tuple[int | None, str, str | None]]:
    return [(problem.row, problem.what, problem.filename) for problem in report.problems]


# Metadata


def test_metadata_is_strings_and_line_numbers(tmp_path: Path) -> None:
    frame, report = metadata_of(
        tmp_path, HEADER + 'a.wav,deletion,cat,1\n\n b.wav ,blending,"said ""no"", twice",KG\n'
    )
    assert not report.errors
    assert list(frame.columns) == COLUMNS
    assert frame["grade"].tolist() == ["1", "KG"]
    assert frame["filename"].tolist() == ["a.wav", "b.wav"]
    assert frame["written_text"].tolist() == ["cat", 'said "no", twice']
    assert frame["line"].tolist() == [2, 4]


@pytest.mark.parametrize("word", ["null", "nan", "NA", "None", "1", "1.0", "true", "éa"])
def test_words_that_look_like_numbers_or_missing_values_stay_words(
    tmp_path: Path, word: str
) -> None:
    frame, report = metadata_of(tmp_path, f"{HEADER}a.wav,nonword_repetition,{word},2\n")
    assert not report.errors
    assert frame["written_text"].tolist() == [word]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("grade", GRADES)
def test_every_task_and_grade_is_known(tmp_path: Path, task: str, grade: str) -> None:
    _, report = metadata_of(tmp_path, f"{HEADER}a.wav,{task},cat,{grade}\n")
    assert not report.problems


def test_a_byte_order_mark_and_other_line_ends_are_read(tmp_path: Path) -> None:
    for newline in ("\n", "\r\n", "\r"):
        content = (HEADER + "a.wav,deletion,café,3\n\nb.wav,deletion,x,9").replace("\n", newline)
        frame, report = metadata_of(tmp_path, b"\xef\xbb\xbf" + content.encode())
        assert frame["filename"].tolist() == ["a.wav", "b.wav"]
        assert frame["expected_text"].tolist() == ["café", "x"]
        assert problems_of(report) == [(4, "unknown grade '9'", "b.wav")]


def test_columns_can_be_in_any_order_with_other_columns(tmp_path: Path) -> None:
    content = "line,grade, speaker ,filename,task,expected_text\n9,KG,ann,a.wav,deletion,cat\n"
    frame, report = metadata_of(tmp_path, content)
    assert not report.problems
    assert frame.to_dict("records") == [
        {
            "filename": "a.wav",
            "task": "deletion",
            "expected_text": "cat",
            "grade": "KG",
            "speaker": "ann",
            "line": 2,
            "written_text": "cat",
        }
    ]


def test_a_text_over_two_lines_does_not_shift_the_line_numbers(tmp_path: Path) -> None:
    frame, report = metadata_of(
        tmp_path, HEADER + 'a.wav,deletion,"one\ntwo",1\nb.wav,deletion,x,7\n'
    )
    assert frame["line"].tolist() == [2, 4]
    assert problems_of(report) == [(4, "unknown grade '7'", "b.wav")]


def test_every_problem_is_reported_and_every_row_kept(tmp_path: Path) -> None:
    frame, report = metadata_of(
        tmp_path,
        HEADER
        + "a.wav,deletion,cat,1\n"
        + "b.wav,blendings,cat,5\n"
        + "c.wav,blending,  ,1\n"
        + ",blending,cat,1\n"
        + "a.wav,blending,cat,1\n"
        + "../d.wav,blending,cat,1\n"
        + "e.wav,blending,one, two,1\n"
        + "f.wav,blending\n"
        + "g.wav,blending,?!,1\n",
    )
    assert len(frame) == 9
    assert sorted(problems_of(report), key=lambda problem: (problem[0] or 0, problem[1])) == [
        (3, "unknown grade '5'", "b.wav"),
        (3, "unknown task 'blendings'", "b.wav"),
        (4, "empty expected_text", "c.wav"),
        (5, "empty filename", None),
        (6, "duplicated filename, first on line 2", "a.wav"),
        (7, "the filename leads out of the data folder", "../d.wav"),
        (8, "5 fields where the header has 4", "e.wav"),
        (9, "2 fields where the header has 4: no expected_text, grade", "f.wav"),
        (10, "expected_text '?!' has no letter and no digit", "g.wav"),
    ]
    cures = " ".join(problem.cure for problem in report.problems)
    assert all(allowed in cures for allowed in (*TASKS, *GRADES))


def test_one_file_spelled_in_two_ways_is_a_duplicate(tmp_path: Path) -> None:
    _, report = metadata_of(
        tmp_path, HEADER + "x/a.wav,deletion,cat,1\nx//./a.wav,deletion,cat,1\n"
    )
    assert problems_of(report) == [(3, "duplicated filename, first on line 2", "x//./a.wav")]


def test_missing_columns_are_named_with_the_existing_ones(tmp_path: Path) -> None:
    frame, report = metadata_of(tmp_path, "File,task,text,speaker\na.wav,deletion,cat,ann\n")
    assert [problem.what for problem in report.problems] == [
        f"the column {name!r} is missing" for name in ("filename", "expected_text", "grade")
    ]
    assert all("'File', 'task', 'text', 'speaker'" in problem.cure for problem in report.problems)
    assert frame[["filename", "task", "grade"]].to_numpy().tolist() == [["", "deletion", ""]]


def test_a_similar_column_is_suggested(tmp_path: Path) -> None:
    _, report = metadata_of(tmp_path, "path,task,sentence,level\na.wav,deletion,cat,1\n")
    cures = {problem.what: problem.cure for problem in report.problems}
    assert cures == {
        f"the column {column!r} is missing": (
            f"{name!r} is there: rename it to {column}; "
            "the columns that are there: 'path', 'task', 'sentence', 'level'"
        )
        for column, name in (
            ("filename", "path"),
            ("expected_text", "sentence"),
            ("grade", "level"),
        )
    }
    for name in ("label", "class", "target"):
        _, report = labels_of(tmp_path, f"filename,{name}\na.wav,1\n")
        (problem,) = report.problems
        assert problem.cure.startswith(f"{name!r} is there: rename it to score")


@pytest.mark.parametrize(
    ("written", "grade"),
    [
        *[(name, "KG") for name in ("K", "k", "kg", "Kindergarten", "Grade K")],
        *[(name, "1") for name in ("1.0", "1,0", "1st", "First", "Grade 1", "G1", "1st grade")],
        *[(name, "2") for name in ("2.0", "grade 2", "2nd", "second", "GRADE-2")],
        *[(name, "3") for name in ("3.0", "G3", "3rd", "Third Grade", "gr. 3")],
    ],
)
def test_a_grade_with_one_meaning_is_read(tmp_path: Path, written: str, grade: str) -> None:
    frame, report = metadata_of(tmp_path, f'{HEADER}a.wav,deletion,cat,"{written}"\n')
    assert not report.problems
    assert frame["grade"].tolist() == [grade]


@pytest.mark.parametrize(
    "written", ["0", "4", "-1", "1.5", "10", "pre-K", "Year 1", "1-2", "", "12"]
)
def test_a_grade_without_a_certain_meaning_is_an_error(tmp_path: Path, written: str) -> None:
    frame, report = metadata_of(tmp_path, f"{HEADER}a.wav,deletion,cat,{written}\n")
    assert problems_of(report) == [
        (2, f"unknown grade {written!r}" if written else "empty grade", "a.wav")
    ]
    assert frame["grade"].tolist() == [written]


@pytest.mark.parametrize(
    "written", ["Sentence Repetition", "sentence-repetition", "SENTENCE_REPETITION"]
)
def test_a_task_is_read_without_case_spaces_and_hyphens(tmp_path: Path, written: str) -> None:
    frame, report = metadata_of(tmp_path, f"{HEADER}a.wav,{written},cat,1\n")
    assert not report.problems
    assert frame["task"].tolist() == ["sentence_repetition"]


def test_a_duplicated_column_is_an_error(tmp_path: Path) -> None:
    _, report = metadata_of(tmp_path, "filename,task,expected_text,grade,task\na,deletion,b,1,x\n")
    assert problems_of(report) == [(None, "the column 'task' is there 2 times", None)]


def test_a_stray_quote_in_the_header_is_an_error(tmp_path: Path) -> None:
    _, report = metadata_of(tmp_path, '\nfilename,task,"expected" text,grade\na.wav,deletion,b,1\n')
    assert [(problem.row, problem.what[:7]) for problem in report.problems] == [
        (2, "not CSV"),
    ]


def test_empty_speakers_are_a_warning(tmp_path: Path) -> None:
    content = "filename,task,expected_text,grade,speaker\na.wav,deletion,cat,1,\n"
    _, report = metadata_of(tmp_path, content)
    assert not report.errors
    assert [(problem.row, problem.filename) for problem in report.warnings] == [(2, "a.wav")]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "the file is empty"),
        ("\n \n,,,\n", "the file is empty"),
        (HEADER, "no rows below the header"),
        (HEADER.encode("utf-16"), "no rows below the header"),
        (b"\x01\0\xff\0\n", "the file is not UTF-8 text"),
    ],
)
def test_a_file_without_rows_is_an_error(tmp_path: Path, content: str | bytes, what: str) -> None:
    frame, report = metadata_of(tmp_path, content)
    assert len(frame) == 0
    assert list(frame.columns) == COLUMNS
    assert problems_of(report) == [(None, what, None)]


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    report = Report()
    assert len(read_metadata(tmp_path / "nothing.csv", report)) == 0
    assert len(read_metadata(tmp_path, report)) == 0
    assert [problem.file for problem in report.errors] == [
        str(tmp_path / "nothing.csv"),
        str(tmp_path),
    ]


def test_rows_that_are_not_utf8_are_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = b"a.wav,deletion,caf\xe9,1\nb.wav,deletion,cat,1\nc.wav,deletion,\xff,1\n"
    frame, report = metadata_of(tmp_path, HEADER.encode() + rows)
    assert frame["filename"].tolist() == ["a.wav", "b.wav", "c.wav"]
    assert problems_of(report) == [(2, "not UTF-8", "a.wav"), (4, "not UTF-8", "c.wav")]


def test_a_stray_quote_affects_one_row(tmp_path: Path) -> None:
    frame, report = metadata_of(
        tmp_path,
        HEADER
        + 'a.wav,deletion,"cat,1\n'
        + "b.wav,deletion,cat,1\n"
        + 'c.wav,deletion,"dog" s,1\n'
        + "d.wav,deletion,x,1\n"
        + 'e.wav,deletion,"x,1',
    )
    assert frame["filename"].tolist() == [f"{name}.wav" for name in "abcde"]
    assert frame["line"].tolist() == [2, 3, 4, 5, 6]
    assert [(problem.row, problem.filename) for problem in report.problems] == [
        (2, "a.wav"),
        (4, "c.wav"),
        (6, "e.wav"),
    ]
    assert all(problem.what.startswith("not CSV") for problem in report.problems)


# Labels


def test_labels_are_joined_on_filename(tmp_path: Path) -> None:
    labels, report = labels_of(tmp_path, "filename,score\nc.wav,1\na.wav,1.0\nb.wav,0.0\n")
    assert not report.problems
    assert labels.dtype == np.float32
    assert labels.tolist() == [1.0, 0.0, 1.0]


def test_labels_have_the_index_of_the_metadata(tmp_path: Path) -> None:
    metadata, report = metadata_of(tmp_path, HEADER + "a.wav,deletion,x,1\nb.wav,deletion,y,1\n")
    path = write(tmp_path / "labels.csv", "filename,score\na.wav,1\nb.wav,0\n")
    backwards = metadata.iloc[::-1]
    labels = read_labels(path, backwards, report)
    assert not report.problems
    assert labels.index.equals(backwards.index)
    assert labels.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("label", ["0.5", "2", "-1", "yes", "nan", ""])
def test_labels_other_than_0_and_1_are_errors(tmp_path: Path, label: str) -> None:
    labels, report = labels_of(tmp_path, f"filename,score\na.wav,1\nb.wav,{label}\nc.wav,0\n")
    assert problems_of(report) == [(3, f"the label is {label!r}", "b.wav")]
    assert labels.iloc[[0, 2]].tolist() == [1.0, 0.0]
    assert np.isnan(labels.iloc[1])


def test_missing_unknown_and_duplicated_labels_are_all_reported(tmp_path: Path) -> None:
    labels, report = labels_of(tmp_path, "filename,score\na.wav,1\nx.wav,1\na.wav,0\nb.wav\n")
    assert set(problems_of(report)) == {
        (None, "no row for a recording of the metadata", "c.wav"),
        (3, "the filename has no row in the metadata", "x.wav"),
        (4, "duplicated filename, first on line 2", "a.wav"),
        (5, "1 field where the header has 2: no score", "b.wav"),
    }
    assert len(report.errors) == 4
    assert labels.iloc[0] == 1.0
    assert labels.isna().tolist() == [False, True, True]


def test_labels_that_cannot_be_read_are_one_error(tmp_path: Path) -> None:
    for content in ("", "filename,label\na.wav,1\n", "filename,score\n"):
        labels, report = labels_of(tmp_path, content)
        assert len(report.errors) == 1
        assert labels.isna().all()


def test_unreadable_metadata_causes_no_problems_in_the_labels(tmp_path: Path) -> None:
    metadata, report = metadata_of(tmp_path, "")
    path = write(tmp_path / "labels.csv", "filename,score\na.wav,1\nb.wav,0\n")
    assert len(read_labels(path, metadata, report)) == 0
    assert [problem.what for problem in report.problems] == ["the file is empty"]


@pytest.mark.parametrize(
    ("written", "label"),
    [("1,0", 1.0), ("0,0", 0.0), ("TRUE", 1.0), ("true", 1.0), ("False", 0.0), ("1.00", 1.0)],
)
def test_a_label_with_one_meaning_is_read(tmp_path: Path, written: str, label: float) -> None:
    labels, report = labels_of(tmp_path, f"filename;score\na.wav;{written}\nb.wav;0\nc.wav;1\n")
    assert not report.problems
    assert labels.tolist() == [label, 0.0, 1.0]


@pytest.mark.parametrize("name", ["b", "B.WAV", "./b.wav", ".\\b.wav", "B"])
def test_labels_join_names_that_are_spelled_otherwise(tmp_path: Path, name: str) -> None:
    labels, report = labels_of(tmp_path, f"filename,score\na.wav,1\n{name},0\nc.wav,1\n")
    (problem,) = report.problems
    assert (problem.severity, problem.row) == ("warning", None)
    assert problem.what == (
        f"1 filename is spelled otherwise than in the metadata: {name!r} is 'b.wav'"
    )
    assert labels.tolist() == [1.0, 0.0, 1.0]


def test_labels_do_not_join_names_that_compete(tmp_path: Path) -> None:
    labels, report = labels_of(tmp_path, "filename,score\na.wav,1\nb,0\nB.wav,1\nc.wav,1\n")
    assert [(problem.row, problem.cure) for problem in report.errors[:2]] == [
        (line, "remove the row here, or add one to the metadata; 'b.wav' is there")
        for line in (3, 4)
    ]
    assert labels.isna().tolist() == [False, True, False]


# Submission format


def test_a_submission_format_keeps_names_as_written(tmp_path: Path) -> None:
    metadata, report = metadata_of(tmp_path, HEADER + "a.wav,deletion,x,1\nb.wav,deletion,y,1\n")
    path = write(tmp_path / "format.csv", "filename,score\nB,0\na.WAV,0\n")
    assert read_submission_format(path, metadata, report) == ["B", "a.WAV"]
    (problem,) = report.problems
    assert problem.severity == "warning"
    assert "2 filenames are spelled otherwise" in problem.what


def test_a_submission_format_defines_the_order(tmp_path: Path) -> None:
    metadata, report = metadata_of(tmp_path, HEADER + "a.wav,deletion,x,1\nb.wav,deletion,y,1\n")
    path = write(tmp_path / "format.csv", "filename,score\nb.wav,0.5\na.wav,0.5\n")
    assert read_submission_format(path, metadata, report) == ["b.wav", "a.wav"]
    assert not report.problems


def test_a_submission_format_without_filenames_is_an_error(tmp_path: Path) -> None:
    metadata, report = metadata_of(tmp_path, HEADER + "a.wav,deletion,x,1\n")
    path = write(tmp_path / "format.csv", "id,score\na.wav,0\n")
    assert read_submission_format(path, metadata, report) == []
    assert problems_of(report) == [(None, "the column 'filename' is missing", None)]


def test_a_submission_format_is_checked_against_the_metadata(tmp_path: Path) -> None:
    metadata, report = metadata_of(tmp_path, HEADER + "a.wav,deletion,x,1\nb.wav,deletion,y,1\n")
    path = write(tmp_path / "format.csv", "filename,score\nx.wav,0\na.wav,0\n,0\na.wav,0\n")
    assert read_submission_format(path, metadata, report) == ["x.wav", "a.wav", "a.wav"]
    assert problems_of(Report(report.errors)) == [
        (4, "empty filename", None),
        (5, "duplicated filename, first on line 3", "a.wav"),
        (2, "the filename has no row in the metadata", "x.wav"),
    ]
    assert problems_of(Report(report.warnings)) == [
        (None, "no row for a recording of the metadata", "b.wav")
    ]


# Filenames


@pytest.mark.parametrize(
    "filename",
    [
        "/etc/passwd",
        "../a.wav",
        "x/../../a.wav",
        "x/..",
        "..",
        "\\a.wav",
        "..\\a.wav",
        "x\\a.wav",
        "C:a.wav",
        "c:/a.wav",
        "\\\\server\\share\\a.wav",
        "a\nb.wav",
        "a\0.wav",
    ],
)
def test_filenames_outside_the_folder_are_rejected(tmp_path: Path, filename: str) -> None:
    assert contained(tmp_path, filename) is None


@pytest.mark.parametrize("filename", ["a.wav", "x/a.wav", "./a.wav", "a..b.wav", "..a/…b.wav", "~"])
def test_filenames_inside_the_folder_are_accepted(tmp_path: Path, filename: str) -> None:
    assert contained(tmp_path, filename) == tmp_path.resolve() / filename


def test_links_are_followed_and_must_stay_inside(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    (data / "x").mkdir(parents=True)
    outside.mkdir()
    (data / "x" / "a.wav").touch()
    (outside / "b.wav").touch()
    (data / "in.wav").symlink_to(data / "x" / "a.wav")
    (data / "out.wav").symlink_to(outside / "b.wav")
    (data / "folder").symlink_to(outside)
    (data / "round.wav").symlink_to(data / "round.wav")
    (tmp_path / "link").symlink_to(data)
    assert contained(data, "in.wav") == data.resolve() / "x" / "a.wav"
    assert contained(data, "out.wav") is None
    assert contained(data, "folder/b.wav") is None
    assert contained(data, "round.wav") in (None, data.resolve() / "round.wav")
    assert contained(tmp_path / "link", "x/a.wav") == data.resolve() / "x" / "a.wav"


def test_a_folder_with_the_same_prefix_is_outside(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data2").mkdir()
    (tmp_path / "data2" / "a.wav").touch()
    (tmp_path / "data" / "a.wav").symlink_to(os.path.join("..", "data2", "a.wav"))  # noqa: PTH118
    assert contained(tmp_path / "data", "a.wav") is None


# The report


def test_a_report_is_grouped_by_file() -> None:
    report = Report([Problem("b.csv", 7, "odd", "look", "warning", "z.wav")])
    report.add(Problem("a.csv", 3, "unknown task 'x'", "use y", filename="p.wav"))
    report.extend([Problem("a.csv", 9, "unknown task 'x'", "use y", filename="q.wav")])
    report.add(Problem("a.csv", None, "the file is short", "write more"))
    assert str(report) == (
        "3 errors, 1 warning\n"
        "\n"
        "a.csv\n"
        "  error: unknown task 'x'\n"
        "    line 3 ('p.wav')\n"
        "    line 9 ('q.wav')\n"
        "    -> use y\n"
        "  error: the file is short\n"
        "    -> write more\n"
        "\n"
        "b.csv\n"
        "  warning: odd\n"
        "    line 7 ('z.wav')\n"
        "    -> look"
    )
    assert str(Report()) == "no problems"


def test_many_rows_with_one_problem_are_shown_as_ranges() -> None:
    rows = [*range(2, 40), 50, *range(60, 62)]
    report = Report(Problem("a.csv", row, "wrong", "mend", filename=f"{row}.wav") for row in rows)
    assert "    41 rows, lines 2-39, 50, 60-61\n" in str(report)


def test_of_many_problems_the_first_are_shown_and_the_others_counted() -> None:
    rows = range(2, 502)
    report = Report(Problem("a.csv", row, f"wrong {row}", "mend") for row in rows)
    text = str(report)
    assert all(f"line {row}\n" in text for row in rows[:200])
    assert text.startswith("500 errors\n") and text.endswith("\n  … and 300 other faults")
    assert len(report.frame()) == 500
    names = [f"{row}.wav" for row in rows]
    text = str(Report(Problem("a.csv", None, "no row", "mend", filename=name) for name in names))
    assert all(f"({name!r})" in text for name in names[:20])
    assert "    … and 480 more\n    -> mend" in text


def test_a_problem_found_twice_counts_once(tmp_path: Path) -> None:
    report = Report([leads_out(tmp_path, 3, "../b.wav", tmp_path)] * 2)
    report.add(leads_out(tmp_path, 3, "../b.wav", tmp_path))
    (problem,) = report.problems
    assert problem.cure.startswith("name a file inside it")
    (tmp_path / "b.wav").touch()
    for name in ("/data/b.wav", "C:\\data\\b.wav", "../b.wav"):
        problem = leads_out(tmp_path, 3, name, tmp_path)
        assert problem.cure == "'b.wav' is there: name it so, without the folders before it"


def test_a_filename_with_a_control_character_is_named_so(tmp_path: Path) -> None:
    problem = leads_out(tmp_path, 3, "a\x1b.wav", tmp_path)
    assert problem.what == "the filename has a control character"
    assert problem.cure == "rename the file"


def test_errors_raise_and_warnings_only_when_strict() -> None:
    warning = Problem("a.csv", 2, "stereo", "nothing", "warning")
    error = Problem("a.csv", 3, "silent", "remove it")
    Report().raise_if_errors(strict=True)
    Report([warning]).raise_if_errors()
    with pytest.raises(BadInputError, match="stereo"):
        Report([warning]).raise_if_errors(strict=True)
    with pytest.raises(BadInputError) as caught:
        Report([warning, error]).raise_if_errors()
    assert caught.value.report.errors == [error]
    assert str(caught.value) == str(Report([warning, error]))
    assert isinstance(caught.value, ValueError)


def test_a_report_converts_to_a_table() -> None:
    problems = [
        Problem("a.csv", None, "x", "y"),
        Problem("a.csv", 3, "x", "y", "warning", "b.wav"),
    ]
    frame = Report(problems).frame()
    columns = ["file", "row", "what", "cure", "severity", "filename", "status"]
    assert list(frame.columns) == columns
    assert frame.to_csv(index=False).splitlines()[1:] == [
        "a.csv,,x,y,error,,",
        "a.csv,3,x,y,warning,b.wav,",
    ]
    assert list(Report().frame().columns) == list(frame.columns)


# Writing


def test_a_table_is_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "submission.csv"
    write_table(pd.DataFrame({"filename": ["a,b.wav", "ü.wav"], "score": [0.25, 1.0]}), path)
    assert path.read_bytes() == 'filename,score\n"a,b.wav",0.25\nü.wav,1.0\n'.encode()


def test_a_failed_write_keeps_the_previous_table(tmp_path: Path) -> None:
    class Unwritable:
        def __str__(self) -> str:
            raise RuntimeError("no")

    path = tmp_path / "table.csv"
    write_table(pd.DataFrame({"a": [1]}), path)
    with pytest.raises(RuntimeError):
        write_table(pd.DataFrame({"a": [Unwritable()] * 3}, dtype=object), path)
    assert path.read_text() == "a\n1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_text_too_long_for_the_window_is_an_error_in_its_row(tmp_path: Path) -> None:
    path = tmp_path / "train_metadata.csv"
    long = "é" * (LONGEST_TEXT // 2)
    path.write_text(
        "filename,task,expected_text,grade\n"
        f"a.wav,sentence_repetition,{long},1\n"
        f"b.wav,sentence_repetition,{long}e,1\n",
        encoding="utf-8",
    )
    report = Report()
    read_metadata(path, report)
    assert [(problem.row, problem.what) for problem in report.errors] == [
        (3, "expected_text has over 400 bytes")
    ]


def test_a_text_that_is_too_long_is_read_as_empty(tmp_path: Path) -> None:
    frame, report = metadata_of(tmp_path, f"{HEADER}a.wav,deletion,{'word ' * 200_000},1\n")
    assert frame["expected_text"].tolist() == [""]
    assert [problem.row for problem in report.errors] == [2]
    assert len(str(report)) < 1000


# Malformed tables


def test_the_search_for_a_closing_quote_is_limited_to_some_lines(tmp_path: Path) -> None:
    """Each line closes the previous line's quote and opens another: an unlimited search is slow."""
    rows = 'a","\n' * 20_000
    frame, report = metadata_of(tmp_path, f"{HEADER}{rows}b.wav,deletion,cat,1\n")
    assert len(frame) == 20_001
    assert frame["filename"].iloc[-1] == "b.wav"
    assert any("a quote is open for 100 lines" in problem.what for problem in report.errors)
    assert {problem.row for problem in report.errors} == set(range(2, 20_002))


def test_a_text_can_span_many_lines(tmp_path: Path) -> None:
    text = "\n".join(["a"] * 99)
    frame, report = metadata_of(tmp_path, f'{HEADER}a.wav,deletion,"{text}",1\n')
    assert not report.errors
    assert frame["written_text"].tolist() == [text]


def test_a_zero_byte_affects_one_row(tmp_path: Path) -> None:
    frame, report = metadata_of(tmp_path, HEADER + "a.wav,deletion,c\0t,1\nb.wav,deletion,cat,1\n")
    assert problems_of(report) == [(2, "not text: a zero byte", "a.wav")]
    assert frame["filename"].tolist() == ["a.wav", "b.wav"]


def test_a_field_that_is_too_long_affects_one_row(tmp_path: Path) -> None:
    frame, report = metadata_of(
        tmp_path, f"{HEADER}a.wav,deletion,{'x' * 10**6},1\nb.wav,deletion,cat,1\n"
    )
    assert frame["filename"].tolist() == ["a.wav", "b.wav"]
    assert [problem.row for problem in report.errors] == [2]
    assert "shorten" in report.errors[0].cure


def test_messages_shorten_a_file_s_content(tmp_path: Path) -> None:
    header = ",".join(f"column {number}" for number in range(100_000))
    _, report = metadata_of(tmp_path, f"{header}\n{'x' * 10**6}\n")
    assert "'column 19', and 99980 more" in report.errors[0].what
    assert len(str(report)) < 10_000
    _, report = metadata_of(tmp_path, f"{HEADER}{'a' * 10**5},{'b' * 10**5},cat,{'c' * 10**5}\n")
    assert len(report.errors) == 2
    assert len(str(report)) < 2000
    assert quoted("a\n" * 100) == repr("a\n" * 40) + "… (200 characters)"


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zeros.csv").symlink_to("/dev/zero")
    for name in ("pipe.csv", "zeros.csv"):
        report = Report()
        assert len(read_metadata(tmp_path / name, report)) == 0
        assert [problem.what for problem in report.errors] == [
            "the file cannot be read: not a file"
        ]


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = HEADER + "a.wav,deletion,cat,1\n"
    monkeypatch.setattr(text_files, "LARGEST_TABLE", len(content))
    assert not metadata_of(tmp_path, content)[1].errors
    frame, report = metadata_of(tmp_path, content + "\n")
    assert len(frame) == 0
    assert "the file is larger than" in report.errors[0].what


@pytest.mark.parametrize("name", ["a\rb.wav", "\ra", 'a",\r\n"b', "=cmd()", "a\0b", "a\u2028b"])
def test_any_filename_is_unchanged_by_writing_and_reading(tmp_path: Path, name: str) -> None:
    path = tmp_path / "submission.csv"
    write_table(pd.DataFrame({"filename": ["a.wav", name], "score": [0.5, 1e-300]}), path)
    table = pd.read_csv(path, keep_default_na=False)
    assert table["filename"].tolist() == ["a.wav", name]
    assert table["score"].tolist() == [0.5, 1e-300]
    assert read_submission_format(path, table, Report()) == ["a.wav", name.strip()]


def test_a_mistyped_column_gets_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "train_metadata.csv"
    path.write_text("filename,tsak,expected_txt,grade\na.wav,blending,the cat,KG\n")
    report = Report()
    read_metadata(path, report)
    missing_task, missing_text = report.errors
    assert missing_task.cure.startswith("'tsak' is there: is it task? Then rename it; ")
    assert missing_text.cure.startswith("'expected_txt' is there: is it expected_text?")


def test_spaces_between_the_names_of_columns_are_said(tmp_path: Path) -> None:
    path = tmp_path / "train_metadata.csv"
    path.write_text("filename task expected_text grade\na.wav blending cat KG\n")
    report = Report()
    read_metadata(path, report)
    assert report.errors[0].what == (
        "no columns, but spaces between their names: 'filename task expected_text grade'"
    )


def test_texts_that_may_be_missing_values_are_said(tmp_path: Path) -> None:
    path = tmp_path / "train_metadata.csv"
    path.write_text(
        "filename,task,expected_text,grade\na.wav,blending,NaN,KG\nb.wav,blending,none,KG\n"
    )
    report = Report()
    frame = read_metadata(path, report)
    assert frame["expected_text"].tolist() == ["nan", "none"]
    assert [(each.row, each.what) for each in report.warnings if "missing value" in each.what] == [
        (2, "expected_text 'NaN' is scored as a word, but may be a missing value")
    ]
