"""Tables that a step wrote, and another reads again."""

from pathlib import Path

import pytest

from hearback.engine.data.problems import Problem, Report
from hearback.engine.data.tables import PROBLEMS, read_problems, read_written, write_problems
from hearback.engine.errors import HearbackError

FOUND = [
    Problem("data", None, "no manifest", "add it", "warning"),
    Problem("data/t.csv", 3, 'is silent, "quite"', "line\nbreak", filename="a, b.wav"),
    Problem("data/t.csv", 4, "too short", "record it again", "error", "NA", "too_short"),
]


def test_problems_are_read_as_they_were_written(tmp_path: Path) -> None:
    submission = tmp_path / "submission.csv"
    assert read_problems(submission) == []
    write_problems(Report(FOUND), submission)
    assert read_problems(submission) == FOUND


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,what\na,b\n", "has no column row, cure, severity, filename, status; write it"),
        (b"", r"cannot be read \(No columns to parse from file\); write it again"),
        (b"file\n\xff\xfe\n", "cannot be read "),
    ],
)
def test_another_table_is_named_with_a_cure(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / PROBLEMS).write_bytes(content)
    with pytest.raises(HearbackError, match=message) as raised:
        read_problems(tmp_path / "submission.csv")
    assert str(raised.value).startswith(f"{tmp_path / PROBLEMS}: ")


def test_values_are_text_and_none_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("filename,score\nNA,\n001,1e-3\n")
    frame = read_written(path, ("score",))
    assert frame.to_dict("list") == {"filename": ["NA", "001"], "score": ["", "1e-3"]}
