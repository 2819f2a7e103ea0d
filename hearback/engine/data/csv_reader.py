"""The rows of a CSV file: its separator, and the fields of each line.

Spreadsheets and other programs write CSV in several ways. What has one meaning is read as meant:
commas, semicolons, tabs or `|`, a first line `sep=;`, spaces around quotes. The separator is chosen
by the header, never guessed from the rows.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence

from hearback.engine.data.table_rows import Row
from hearback.engine.data.text_files import DecodedText

# Lines of a file that one row may span: searching the rest of the file for the end of a quote would
# take hours if every line opens one.
_MAX_ROW_LINES = 100

_SEPARATORS = ",;\t|"
_CURE_OF_QUOTES = 'close each quote; write a quote inside quotes as ""; shorten what is too long'


def choose_separator(
    text: DecodedText, n_names: Callable[[Sequence[str]], int], n_columns: int | None = None
) -> tuple[int, str]:
    """Return the index of the first line of the table and its separator.

    A first line `sep=;`, as Excel reads it, names the separator. Otherwise it is the one with which
    the header has most of the columns' names, counted by `n_names`, by default the comma. A table
    without names must have `n_columns` fields on its first line.
    """
    start = next((at for at, line in enumerate(text.lines) if line.strip()), 0)
    line = text.lines[start]
    separators = _SEPARATORS
    # A spreadsheet that took the line for a row may have added separators to it.
    if directive := re.fullmatch(r'\s*"?sep=([,;\t|:^~])"?[,;\t| ]*\s*', line, re.IGNORECASE):
        separators = directive[1] + separators
        start = next(
            (at for at in range(start + 1, len(text.lines)) if text.lines[at].strip()), start
        )
        line = text.lines[start]
    best, separator = (-1, -1), ","
    for candidate in separators:
        names = _split(line, candidate) or _split_roughly(line, candidate)
        # Without a known name, a separator that divides the line is better than none.
        n_fields = len(names) == n_columns if n_columns else min(len(names), 2)
        if (found := (n_names(names), n_fields)) > best:
            best, separator = found, candidate
    return start, separator


def read_rows(text: DecodedText, start: int, separator: str) -> Iterator[Row]:
    """Yield the rows from the line with index `start` that are not blank.

    The first row sets the number of fields. A row with another number, or that is not CSV, is read
    again: spaces around its quotes, and quotes around the whole row, are then allowed.
    """
    n_fields = 0
    while start < len(text.lines):
        try:
            fields, n_lines = _read_row(text.lines, start, separator, n_fields)
            row = Row(start + 1, fields)
        except csv.Error as error:
            # A stray quote swallows the following lines. Skip this line, not the rest of the file.
            row, n_lines = _read_faulty_row(text.lines, start, separator, n_fields, error), 1
        n_fields = n_fields or len(row.fields)
        if row.fault is not None or any(row.fields):
            yield row
        start += n_lines


def _read_row(
    lines: Sequence[str], start: int, separator: str, n_fields: int
) -> tuple[list[str], int]:
    """Return the fields of the row from a line on, and its number of lines. Raises csv.Error.

    A row on one line that has not `n_fields` fields is read loosely, if that gives them.
    """
    reader = csv.reader(
        _lines_of_row(lines, start), delimiter=separator, skipinitialspace=True, strict=True
    )
    fields = next(reader)
    if fields and len(fields) != n_fields and reader.line_num == 1:
        fields = _split_loosely(lines[start], separator, n_fields) or fields
    return [field.strip() for field in fields], reader.line_num


def _lines_of_row(lines: Sequence[str], start: int) -> Iterator[str]:
    """Yield lines for a csv reader of one row; raises csv.Error if it spans too many."""
    for at in range(start, len(lines)):
        if at == start + _MAX_ROW_LINES:
            raise csv.Error(f"a quote is open for {_MAX_ROW_LINES} lines")
        yield lines[at]


def _read_faulty_row(
    lines: Sequence[str], start: int, separator: str, n_fields: int, error: csv.Error
) -> Row:
    """Return a line that is not CSV as a row: with its fault, if it has no other meaning."""
    loose = _split_loosely(lines[start], separator, n_fields) if n_fields else None
    if loose is not None:
        return Row(start + 1, [field.strip() for field in loose])
    fields = _split_roughly(lines[start], separator)
    return Row(start + 1, fields, f"not CSV: {error}", _CURE_OF_QUOTES)


def _split(line: str, separator: str) -> list[str] | None:
    """Return the fields of one line, or None if it is not CSV."""
    try:
        rows = list(csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error:
        return None
    fields = rows[0] if rows else []
    if len(fields) == 1 and separator in fields[0]:
        # A row that was saved as one field: "a.wav,deletion,""cat"",KG"
        return _split(fields[0], separator) or fields
    return fields


def _split_roughly(line: str, separator: str) -> list[str]:
    """Return the fields of a line that is not CSV: whatever is between the separators."""
    return [field.strip().strip('"') for field in line.split(separator)]


def _split_loosely(line: str, separator: str, n_fields: int) -> list[str] | None:
    """Return the fields of one line with spaces around quotes, if there are `n_fields`.

    Also if the whole line is quoted; then `n_fields` may be 0, for any number.
    """
    line = line.rstrip("\r\n")
    if '"' not in line:
        return None
    fields = _split(line, separator)
    if fields is not None and len(fields) > 1 and n_fields in (0, len(fields)):
        return fields
    mark = re.escape(separator)
    space = rf"(?:(?!{mark})\s)*+"
    field = re.compile(rf'{space}"((?:[^"]|"")*+)"{space}(?={mark}|$)|([^"{mark}]*+)(?={mark}|$)')
    loose: list[str] = []
    at = 0
    while at <= len(line):
        found = field.match(line, at)
        if found is None:
            return None
        inside, plain = found.groups()
        loose.append(plain if inside is None else inside.replace('""', '"'))
        at = found.end() + 1
    return loose if len(loose) == n_fields else None
