"""Tables as the world has them: read as they were meant, or a report has a problem.

No report lists a row twice for one fault.
"""

from pathlib import Path

import pandas as pd

from hearback.engine.data.filenames import find_files
from hearback.engine.data.problems import Report
from hearback.reading.tables import (
    GRADES,
    TASKS,
    read_labels,
    read_metadata,
    read_submission_format,
)
from tests.soak.fuzz.outcomes import Outcome, Rng, check_report, result_of
from tests.soak.fuzz.world_texts import csv_text, plain_text
from tests.world_inputs import listed_twice

SYNONYMS = (
    ("expected_text", ("text", "sentence", "transcript")), ("filename", ("path", "audio", "file")),
    ("score", ("label",)), ("grade", ("Grade", "class")),
)  # fmt: skip
GRADE_FORMS = (
    {"KG": "K"}, {"KG": "Kindergarten"}, {"1": "1.0", "2": "2.0", "3": "3.0"},
    {"1": "1st", "2": "2nd", "3": "3rd"}, {"1": "Grade 1"}, {"KG": "kg"},
)  # fmt: skip
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252")
SEPARATORS = (",", ";", "\t", "|")


def _spaced(rows: list[list[str]]) -> str:
    lines = [
        ", ".join(f'"{cell}"' if set(cell) & set(" ,'") else cell for cell in row) for row in rows
    ]
    return "\n".join(lines) + "\n"


def _lines(rng: Rng, rows: list[list[str]]) -> tuple[str, str]:
    """Return a way of writing rows, and their text."""
    way = int(rng.integers(4))
    separator = SEPARATORS[rng.integers(len(SEPARATORS))]
    if way == 0:
        return "spaces after commas", _spaced(rows)
    if way == 1:
        return "sep line", f"sep={separator}\n{csv_text(rows, separator)}"
    if way == 2:
        return "quotes", csv_text(rows, separator, quote_all=True).replace("\n", "\r\n")
    return "separators", csv_text(rows, separator)


def _filename_form(rng: Rng, name: str) -> str:
    forms = (name, name.removesuffix(".wav"), name.upper(), f".\\{name}", f"./{name}")
    return forms[rng.integers(len(forms))]


def try_world_table(rng: Rng, folder: Path) -> Outcome:
    """Write tables as programs do, and read the values that were meant."""
    data, n = folder / "data", int(rng.integers(2, 12))
    names = [f"{number:03}.wav" for number in range(n)]
    for name in names:
        (data / name).write_bytes(b"a recording")
    texts = [f"{plain_text(rng)}, {plain_text(rng)}".replace(",", "") for _ in names]
    grades = [GRADES[number] for number in rng.integers(0, 4, n)]
    ones = (0.0, 0.05, 0.5, 1.0)[rng.integers(4)]
    labels = [str(int(rng.random() < ones)) for _ in names]
    columns = {
        "filename": "filename",
        "expected_text": "expected_text",
        "grade": "grade",
        "score": "score",
    }
    form = int(rng.integers(4))
    change: dict[str, str] = {}
    written_names, kind = names, ""
    if form == 0:
        change = dict(GRADE_FORMS[rng.integers(len(GRADE_FORMS))])
        kind = "grades"
    elif form == 1:
        known, synonyms = SYNONYMS[rng.integers(len(SYNONYMS))]
        columns[known] = synonyms[rng.integers(len(synonyms))]
        kind = "synonyms of columns"
    elif form == 2:
        written_names = [_filename_form(rng, name) for name in names]
        kind = "filenames"
    rows = [[columns["filename"], "task", columns["expected_text"], columns["grade"]]]
    for name, text, grade in zip(written_names, texts, grades, strict=True):
        rows.append([name, TASKS[0], text, change.get(grade, grade)])
    label_names = written_names
    if form == 2 and rng.random() < 0.5:
        label_names = [_filename_form(rng, name) for name in names]
    label_rows = [
        [columns["filename"], columns["score"]],
        *map(list, zip(label_names, labels, strict=True)),
    ]
    way, text = _lines(rng, rows)
    encoding = ENCODINGS[rng.integers(len(ENCODINGS))]
    (data / "train_metadata.csv").write_bytes(text.encode(encoding))
    for table in ("train_labels.csv", "submission_format.csv"):
        (data / table).write_bytes(_lines(rng, label_rows)[1].encode(encoding))
    report = Report()
    metadata = read_metadata(data / "train_metadata.csv", report)
    read = read_labels(data / "train_labels.csv", metadata, report)
    listed = read_submission_format(data / "submission_format.csv", metadata, report)
    check_report(report)
    assert not listed_twice(report.problems), f"listed twice: {report}"
    _check_values(report, metadata, {"expected_text": texts, "grade": grades})
    found, _ = find_files(data, metadata["filename"].tolist())
    for written, name in zip(metadata["filename"], names, strict=True):
        is_found = written == "" or found[written].path == data / name
        assert is_found, f"{written!r} is {found[written]}, not {name!r}"
    if not report.errors:
        assert read.tolist() == [float(label) for label in labels], f"labels: {read.tolist()}"
        # The submission has the format's own filenames, as the competition compares them.
        assert len(listed) == n and listed == label_names, f"format: {listed}"
    return Outcome(f"world tables: {kind or way}", result_of(report))


def _check_values(report: Report, metadata: pd.DataFrame, meant: dict[str, list[str]]) -> None:
    if any(problem.row is None for problem in report.errors):
        return
    in_error = {problem.row for problem in report.errors}
    for column, values in meant.items():
        for line, value, right in zip(metadata["line"], metadata[column], values, strict=True):
            assert value == right or line in in_error, f"{column}: {value!r} instead of {right!r}"
