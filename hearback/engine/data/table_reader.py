"""The rows of a table in any format that is read: CSV, or JSON lines."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hearback.engine.data.csv_reader import choose_separator, read_rows
from hearback.engine.data.json_lines import is_json_lines, read_json_lines
from hearback.engine.data.problems import Report
from hearback.engine.data.table_rows import Row
from hearback.engine.data.text_files import DecodedText, read_text


def read_rows_of(
    text: DecodedText, n_names: Callable[[Sequence[str]], int], n_columns: int | None = None
) -> list[Row]:
    """Return the rows of a table, first its header, if it has one.

    `n_names` counts the names of columns in a header, and `n_columns` are those of a table that may
    have none (`choose_separator`). Characters that are not in the file's encoding are a fault.
    """
    if is_json_lines(text.lines):
        rows = read_json_lines(text.lines)
    else:
        rows = list(read_rows(text, *choose_separator(text, n_names, n_columns)))
    return [_with_encoding(row, text.encoding) for row in rows] if text.is_damaged else rows


def _with_encoding(row: Row, encoding: str) -> Row:
    if row.fault is None and any("\ufffd" in field for field in row.fields):
        return Row(row.line, row.fields, f"not {encoding}", "save the file as CSV in UTF-8")
    return row


def read_header(path: Path, n_names: Callable[[Sequence[str]], int]) -> list[str]:
    """Return the names of a table's columns, [] if it cannot be read; `n_names` as above."""
    text = read_text(path, Report())  # `tables.read_table` reports what is wrong
    rows = [] if text is None else read_rows_of(text, n_names)
    return rows[0].fields if rows else []
