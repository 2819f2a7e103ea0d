"""Damaged tables of metadata, labels and the submission format."""

import codecs
import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.data.problems import Report
from hearback.engine.data.tables import write_table
from hearback.reading.tables import (
    GRADES,
    LONGEST_TEXT,
    TASKS,
    read_labels,
    read_metadata,
    read_submission_format,
)
from tests.soak.fuzz.audio_files import valid_file
from tests.soak.fuzz.damage import (
    cut_short,
    flip_bits,
    keep_intact,
    overwrite,
    repeat,
    replace_content,
)
from tests.soak.fuzz.outcomes import READ, REFUSED, WARNED, Outcome, check_report
from tests.soak.fuzz.texts import ODD_TEXTS

HEADER = ["filename", "task", "expected_text", "grade"]


def as_csv(rows: list[list[str]]) -> str:
    """Return rows as CSV, everything quoted."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    return file.getvalue()


def valid_rows(rng: np.random.Generator) -> tuple[list[list[str]], list[list[str]]]:
    """Return a valid metadata table and its labels; half of the texts are from `ODD_TEXTS`."""
    metadata, labels = [HEADER], [["filename", "score"]]
    for number in range(int(rng.integers(1, 24))):
        text = ODD_TEXTS[rng.integers(len(ODD_TEXTS))] if rng.random() < 0.5 else f"word {number}"
        task, grade = TASKS[rng.integers(len(TASKS))], GRADES[rng.integers(len(GRADES))]
        metadata.append([f"{number}.wav", task, text, grade])
        labels.append([f"{number}.wav", ("0", "1", "0.0", "1.0")[rng.integers(4)]])
    return metadata, labels


def byte_order_mark(content: bytes, _rng: np.random.Generator) -> bytes:
    """Prepend a UTF-8 byte order mark, as spreadsheets do."""
    return b"\xef\xbb\xbf" + content


def windows_line_ends(content: bytes, _rng: np.random.Generator) -> bytes:
    """Replace line feeds with CR LF."""
    return content.replace(b"\n", b"\r\n")


def other_delimiter(content: bytes, rng: np.random.Generator) -> bytes:
    """Replace the commas."""
    return content.replace(b",", (b";", b"\t", b"|", b"", b",,")[rng.integers(5)])


def column_twice(content: bytes, _rng: np.random.Generator) -> bytes:
    """Duplicate the first column."""
    return b"\n".join(line.split(b",")[0] + b"," + line for line in content.split(b"\n"))


def many_columns(content: bytes, rng: np.random.Generator) -> bytes:
    """Append 100,000 columns to the header or to the first row."""
    lines = content.split(b"\n")
    lines[rng.integers(2)] += b",x" * 100_000
    return b"\n".join(lines)


def ragged(content: bytes, rng: np.random.Generator) -> bytes:
    """Add or remove a field in some lines."""
    lines = content.split(b"\n")
    for position in rng.integers(0, len(lines), 3):
        more = rng.random() < 0.5
        lines[position] = lines[position] + b",x" if more else lines[position].rpartition(b",")[0]
    return b"\n".join(lines)


def zero_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Insert up to three zero bytes."""
    for _ in range(int(rng.integers(1, 4))):
        position = rng.integers(len(content) + 1)
        content = content[:position] + b"\0" + content[position:]
    return content


# Looked up here: the soak reports imports while an input is read.
_ENCODINGS = tuple(map(codecs.lookup, ("utf-16", "utf-16-le", "utf-32", "latin-1", "ascii")))
for _encoding in ("utf-16-be", "utf-32-le", "utf-32-be", "cp1252"):  # of readers
    codecs.lookup(_encoding)


def other_encoding(content: bytes, rng: np.random.Generator) -> bytes:
    """Change the encoding."""
    encoding = _ENCODINGS[rng.integers(len(_ENCODINGS))]
    return encoding.encode(content.decode("utf-8", "replace"), "replace")[0]


def stray_quotes(content: bytes, rng: np.random.Generator) -> bytes:
    """Insert up to three quotes."""
    for _ in range(int(rng.integers(1, 4))):
        position = rng.integers(len(content) + 1)
        content = content[:position] + b'"' + content[position:]
    return content


def unclosed_quotes(_content: bytes, rng: np.random.Generator) -> bytes:
    """Return 40,000 lines with unbalanced quotes."""
    line = (b'a","\n', b'"a\n', b'""",\n', b'","\n', b'"\n')[rng.integers(5)]
    return b"filename,task,expected_text,grade\n" + line * 40_000


def huge_field(content: bytes, rng: np.random.Generator) -> bytes:
    """Replace a field with a megabyte of text."""
    filler = (b"x", b"word ", "é".encode(), b"?", b" ", b'""')[rng.integers(6)]
    field = filler * (1_000_000 // len(filler))
    field = b'"' + field + b'"' if rng.random() < 0.5 else field
    lines = content.split(b"\n")
    fields = lines[min(1, len(lines) - 1)].split(b",")
    fields[rng.integers(len(fields))] = field
    lines[min(1, len(lines) - 1)] = b",".join(fields)
    return b"\n".join(lines)


def other_file(_content: bytes, rng: np.random.Generator) -> bytes:
    """Return content that is not a table."""
    return replace_content(b"", rng) if rng.random() < 0.7 else valid_file(rng)[0]


def noise(_content: bytes, rng: np.random.Generator) -> bytes:
    """Return random characters that occur in tables, and some control characters."""
    letters = list(b'filename,score\n\r"; \t\0\xff\xe9\xc3a.wav01')
    return bytes(rng.choice(letters, int(rng.integers(0, 2000))).astype(np.uint8))


TABLE_DAMAGES = (
    cut_short, flip_bits, overwrite, repeat, byte_order_mark, windows_line_ends, other_delimiter,
    column_twice, many_columns, ragged, zero_bytes, other_encoding, stray_quotes,
    unclosed_quotes, huge_field, other_file, noise, keep_intact, keep_intact,
)  # fmt: skip
HARMLESS = (keep_intact, byte_order_mark)  # after these, texts must be read exactly


def try_table(rng: np.random.Generator, folder: Path) -> Outcome:
    """Damage one of the three tables, read all, and read back a written submission."""
    data = folder / "data"
    metadata_rows, label_rows = valid_rows(rng)
    contents = {
        "train_metadata.csv": as_csv(metadata_rows),
        "train_labels.csv": as_csv(label_rows),
        "submission_format.csv": as_csv(label_rows[:1] + label_rows[:0:-1]),
    }
    damaged = list(contents)[rng.integers(len(contents))]
    damage = TABLE_DAMAGES[rng.integers(len(TABLE_DAMAGES))]
    for name, content in contents.items():
        written = content.encode()
        (data / name).write_bytes(damage(written, rng) if name == damaged else written)
    report = Report()
    metadata = read_metadata(data / "train_metadata.csv", report)
    labels = read_labels(data / "train_labels.csv", metadata, report)
    listed = read_submission_format(data / "submission_format.csv", metadata, report)
    check_report(report)
    assert set(metadata.columns) == {*HEADER, "written_text", "line"}
    assert len(labels) == len(metadata) and labels.isin([0.0, 1.0, np.nan]).all()
    assert all(isinstance(name, str) and name for name in listed)
    assert metadata["expected_text"].str.len().max() <= LONGEST_TEXT or not len(metadata)
    if damage in HARMLESS:
        texts = [row[2].strip() for row in metadata_rows[1:]]
        assert metadata["written_text"].tolist() == texts, "texts were changed"
        in_error = {problem.row for problem in report.errors}
        lines = zip(metadata["line"], texts, strict=True)
        odd = {line for line, text in lines if not text.startswith("word ")}
        assert in_error <= odd, f"good rows were refused: {in_error - odd}"
    result = REFUSED if report.errors else WARNED if report.warnings else READ
    kind = f"tables: {damage.__name__.replace('_', ' ')}"
    if any(problem.file == str(data / "submission_format.csv") for problem in report.errors):
        return Outcome(kind, result)
    submission = pd.DataFrame({"filename": listed, "score": np.full(len(listed), 0.5)})
    write_table(submission, folder / "submission.csv")
    again = read_submission_format(folder / "submission.csv", metadata, Report())
    assert again == listed, "a submission changed between writing and reading"
    return Outcome(kind, result)
