"""JSON lines in a table's place: keys are columns, and every fault has its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from hearback.engine.data.problems import Problem, Report
from hearback.engine.data.tables import Table, read_table

COLUMNS = ("audio_filepath", "text")
PLAIN = [
    {"audio_filepath": "a.wav", "duration": 2.5, "text": "the cat"},
    {"audio_filepath": "b.wav", "duration": 1, "text": "a dog, too"},
]


def lines_of(*records: Any) -> str:
    return "".join(f"{json.dumps(each)}\n" for each in records)


def read(folder: Path, content: str | bytes) -> tuple[Table, list[Problem]]:
    """Return the table of a manifest with this content, and its problems."""
    path = folder / "manifest.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    report = Report()
    table = read_table(path, COLUMNS, report, ("duration", "speaker"))
    return table, report.problems


def values(table: Table, *columns: str) -> list[list[Any]]:
    return table.frame[list(columns)].to_numpy().tolist()


@pytest.mark.parametrize(
    "content",
    [
        lines_of(*PLAIN),
        f"\n{lines_of(*PLAIN)}\n\n",
        lines_of(*PLAIN).replace("\n", "\r\n"),
        lines_of(*PLAIN).encode("utf-8-sig"),
        lines_of(*PLAIN).encode("utf-16"),
        lines_of({"text": "the cat", "Duration": "2.5 ", "audio_filepath": " a.wav"}, PLAIN[1]),
    ],
)
def test_keys_are_columns_in_any_order_and_encoding(tmp_path: Path, content: str | bytes) -> None:
    table, problems = read(tmp_path, content)
    assert problems == [] and table.is_json
    assert values(table, *COLUMNS) == [["a.wav", "the cat"], ["b.wav", "a dog, too"]]
    assert table.columns == {*COLUMNS, "duration"}


def test_a_manifest_of_one_line_is_read(tmp_path: Path) -> None:
    table, problems = read(tmp_path, json.dumps(PLAIN[0]))
    assert problems == [] and values(table, "line", *COLUMNS) == [[1, "a.wav", "the cat"]]


def test_values_of_all_types_become_texts(tmp_path: Path) -> None:
    table, problems = read(
        tmp_path,
        lines_of(
            {"audio_filepath": "a.wav", "text": 5, "speaker": None},
            {"audio_filepath": "b.wav", "text": True, "duration": [1]},
            {"audio_filepath": "c.wav", "text": "\ud83c", "speaker": "caf\u00e9"},
        ),
    )
    assert problems == []
    assert values(table, "text", "duration", "speaker") == [
        ["5", "", ""],
        ["true", "[1]", ""],
        ["\ufffd", "", "caf\u00e9"],
    ]


def test_every_fault_has_its_line_and_its_cure(tmp_path: Path) -> None:
    content = lines_of(*PLAIN) + (
        '{"audio_filepath": "c.wav" "text": "x"}\n'
        "\n"
        '["d.wav", "x"]\n'
        '{"text": "no file"}\n'
        '{"audio_filepath": "a.wav", "text": "again"}\n'
        '{"audio_filepath": "e.wav", "text": "x", "offset": 3.25}\n'
        '{"audio_filepath": "f.wav", "text": "x", "offset": 0.0}\n'
    )
    table, problems = read(tmp_path, content)
    assert [(problem.row, problem.what) for problem in problems] == [
        (3, "not JSON: expecting ',' delimiter at character 28"),
        (5, "not JSON: no object in braces"),
        (8, "its offset is 3.25: only a part of the recording is meant"),
        (6, "empty filename"),
        (7, "duplicated filename, first on line 1"),
    ]
    assert problems[0].cure == (
        'write an object on this line, such as {"audio_filepath": "a.wav", "text": "the cat"}'
    )
    assert problems[2].cure.startswith("cut that part into a recording of its own")
    assert problems[2].filename == "e.wav"
    assert table.fits.tolist() == [True, True, False, False, True, True, False, True]


def test_a_first_line_that_is_damaged_is_named(tmp_path: Path) -> None:
    _, problems = read(tmp_path, '{"audio_filepath": "a.wav", "text": "x"\n' + lines_of(*PLAIN))
    assert [(problem.row, problem.what) for problem in problems] == [
        (1, "not JSON: expecting ',' delimiter at character 40")
    ]


def test_missing_keys_are_columns_that_are_missing(tmp_path: Path) -> None:
    _, problems = read(tmp_path, lines_of({"path": "a.wav", "sentence": "x"}))
    assert [problem.what for problem in problems] == [
        "the column 'audio_filepath' is missing",
        "the column 'text' is missing",
    ]
    assert problems[0].cure == "the columns that are there: 'path', 'sentence'"


def test_a_file_of_many_keys_takes_little_memory(tmp_path: Path) -> None:
    records = [{**PLAIN[0], f"key{number}": 1} for number in range(5000)]
    table, _ = read(tmp_path, lines_of(*records))
    assert len(table.frame) == 5000


@pytest.mark.parametrize("line", ["[" * 100_000, '{"a": ' * 100_000, '{"text": ' + "1" * 5000])
def test_lines_that_break_parsers_are_faults(tmp_path: Path, line: str) -> None:
    _, (problem,) = read(tmp_path, f"{lines_of(*PLAIN)}{line}\n")
    assert problem.row == 3 and problem.what.startswith("not JSON: ")


def test_json_over_several_lines_is_refused(tmp_path: Path) -> None:
    for content in (json.dumps(PLAIN), json.dumps(PLAIN, indent=1), json.dumps(PLAIN[0], indent=1)):
        _, (problem,) = read(tmp_path, content)
        assert problem.what == "the file is JSON, not CSV"
        assert problem.cure.endswith("or as JSON lines: an object for each recording")


def test_a_table_that_needs_no_header_may_be_json_lines(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text(lines_of({"label": 2, "filename": "a.ogg"}))
    report = Report()
    table = read_table(tmp_path / "labels.txt", ("filename", "label"), report, has_header=False)
    assert not report.problems
    assert values(table, "filename", "label") == [["a.ogg", "2"]]
