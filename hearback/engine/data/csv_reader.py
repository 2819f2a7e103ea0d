"""The rows of a CSV file: its encoding, its separator, and the fields of each line.

Spreadsheets and other programs write CSV in several ways. What has one meaning is read as meant:
UTF-8 or UTF-16, commas, semicolons, tabs or `|`, a first line `sep=;`, spaces around quotes. The
separator is chosen by the header, never guessed from the rows.
"""

import codecs
import contextlib
import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hearback.engine.data.other_files import OtherFile, identify
from hearback.engine.data.problems import Problem, Report, count_noun, quoted
from hearback.engine.io import open_file

# Bytes. A table of 38,095 recordings has 3 MB; a larger file is probably no table, and would need
# up to 16 times its size in memory.
LARGEST_TABLE = 64 * 1024 * 1024

# Lines of a file that one row may span: searching the rest of the file for the end of a quote would
# take hours if every line opens one.
_MAX_ROW_LINES = 100

MISSING_CURE = "put it there, or name the folder that has it (--data)"

_SEPARATORS = ",;\t|"
_SAVE_AS_CSV = "save it as CSV in UTF-8"
_SAVE_SHEET = "open it, and save the sheet as CSV in UTF-8"

# The cure of a file of another group than those that are named by a command.
_OTHER_CURES = {"sheet": _SAVE_SHEET, "page": "download the table itself", "other": _SAVE_AS_CSV}
_HEAD_BYTES = 4096

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "UTF-8"),
    (codecs.BOM_UTF32_LE, "UTF-32-LE"),  # before UTF-16: it begins with the same two bytes
    (codecs.BOM_UTF32_BE, "UTF-32-BE"),
    (codecs.BOM_UTF16_LE, "UTF-16-LE"),
    (codecs.BOM_UTF16_BE, "UTF-16-BE"),
)

# Typographic characters of Windows-1252, which may stand alone or beside any letter.
_TYPOGRAPHIC = re.compile(r"[‘’“”–—…«»¿¡£€§°½¼]")
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ÖØ-öø-þŠŽŒŸšžœ'._/-]+")
_MULTI_BYTE = re.compile(  # a character of UTF-8 that is not ASCII
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)


@dataclass(frozen=True)
class Row:
    """A row that is not blank: the number of its first line (from 1) and its stripped fields."""

    line: int
    fields: list[str]
    fault: str | None = None  # the CSV error
    is_text: bool = True  # False: it has bytes that are not in the file's encoding


@dataclass(frozen=True)
class CsvText:
    """The text of a CSV file: its lines with their ends, and the encoding that it was in."""

    lines: list[str]
    encoding: str
    is_damaged: bool  # has U+FFFD for bytes that are not in the encoding


def read_text(path: Path, report: Report) -> CsvText | None:
    """Return the file's text without a byte order mark, or None with a problem in `report`.

    Bytes that are not in the file's encoding become U+FFFD.
    """
    content = _read_bytes(path, report)
    if content is None:
        return None
    if other := identify(content[:_HEAD_BYTES]):
        report.add(Problem(str(path), None, f"the file is {other.name}, not CSV", _cure(other)))
        return None
    encoding, text, is_damaged = _decode(path, content, report)
    if name := _kind_of_json(text):
        cure = "save it as CSV: a line with the columns' names, and a line for each recording"
        report.add(Problem(str(path), None, f"the file is {name}, not CSV", cure))
        return None
    if "\0" in text.partition("\n")[0]:  # an unknown kind of file
        report.add(Problem(str(path), None, "the file is not UTF-8 text", _SAVE_AS_CSV))
        return None
    # Unlike editors, splitlines() also splits at form feeds and other characters.
    return CsvText(re.split(r"(?<=\n)|(?<=\r)(?!\n)", text), encoding, is_damaged)


def _cure(other: OtherFile) -> str:
    """Return how to get a table from a file of another kind."""
    if other.group == "archive":
        return f"unpack it with `{other.command}`, and put the table that is in it there"
    if other.group == "pointer":
        return f"get the table with `{other.command}`"
    return _OTHER_CURES[other.group]


def _read_bytes(path: Path, report: Report) -> bytes | None:
    try:
        with open_file(path) as file:
            content = file.read(LARGEST_TABLE + 1)
    except FileNotFoundError:
        report.add(Problem(str(path), None, "there is no such file", MISSING_CURE))
        return None
    except OSError as error:
        what = f"the file cannot be read: {error.strerror}"
        report.add(Problem(str(path), None, what, "make it a readable CSV file"))
        return None
    if len(content) > LARGEST_TABLE:
        what = f"the file is larger than {LARGEST_TABLE >> 20} MB"
        report.add(Problem(str(path), None, what, "it is no table of recordings, or split it"))
        return None
    return content


def _kind_of_json(text: str) -> str | None:
    """Return what a file is that is JSON, or has a JSON object on each line; None if it is not."""
    first = text.lstrip().partition("\n")[0].strip()
    if not first.startswith(("{", "[")):
        return None
    for part, name in ((text, "JSON"), (first, "JSON lines (a manifest)")):
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(part)
            return name
    return None


def _decode(path: Path, content: bytes, report: Report) -> tuple[str, str, bool]:
    """Return the encoding, the text, and whether some bytes are not in the encoding."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return encoding, *_replacing(content[len(mark) :], encoding)
    if encoding := _utf16_without_mark(content):
        return encoding, *_replacing(content, encoding)
    text, is_damaged = _replacing(content, "utf-8")
    if is_damaged and (ansi := _decode_ansi(path, content, report)) is not None:
        return "Windows-1252", ansi, False
    return "UTF-8", text, is_damaged


def _replacing(content: bytes, encoding: str) -> tuple[str, bool]:
    """Return the text, with U+FFFD for bytes that are not in the encoding; and if it has such."""
    try:
        return content.decode(encoding), False
    except UnicodeDecodeError:
        return content.decode(encoding, errors="replace"), True


def _utf16_without_mark(content: bytes) -> str:
    """Return the UTF-16 encoding of a file whose first line is ASCII in it, or ""."""
    for encoding, newline in (("UTF-16-LE", b"\n\0"), ("UTF-16-BE", b"\0\n")):
        head = content[:4000].partition(newline)[0]
        head = head[: len(head) // 2 * 2]
        letters, zeros = head[::2], head[1::2]
        if encoding == "UTF-16-BE":
            letters, zeros = zeros, letters
        if len(letters) > 2 and not zeros.strip(b"\0") and b"\0" not in letters:
            return encoding
    return ""


def _decode_ansi(path: Path, content: bytes, report: Report) -> str | None:
    """Return the text of a file in Windows-1252 (what Excel calls CSV), with a warning.

    None if that is not certain: some of it is UTF-8, or the words that come out are odd.
    """
    if _MULTI_BYTE.search(content):
        return None
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        return None
    words = dict.fromkeys(word for word in re.findall(r"[^\s,;|\"]+", text) if not word.isascii())
    if not all(map(_is_latin, words)):
        return None
    n_lines = sum(not line.isascii() for line in text.splitlines())
    examples = ", ".join(quoted(word) for word in list(words)[:3]) or "no-break spaces"
    what = f"not UTF-8, read as Windows-1252: {count_noun(n_lines, 'line')} with {examples}"
    cure = "check these words; to be certain, save the file as CSV in UTF-8"
    report.add(Problem(str(path), None, what, cure, "warning"))
    return text


def _is_latin(word: str) -> bool:
    """Return whether a word looks rightly decoded: "café" and "it’s", but not Mac Roman's "itÕs".

    A part with an accented letter also has a plain one, and no capital inside.
    """
    return all(
        _LATIN_WORD.fullmatch(part) is not None
        and re.search(r"[A-Za-z]", part) is not None
        and re.search(r"[a-z][À-ÖØ-ÞŠŽŒŸ]", part) is None
        for part in _TYPOGRAPHIC.sub(" ", word).split()
        if not part.isascii()
    )


def choose_separator(
    text: CsvText, n_names: Callable[[Sequence[str]], int], n_columns: int | None = None
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


def read_rows(text: CsvText, start: int, separator: str) -> Iterator[Row]:
    """Yield the rows from the line with index `start` that are not blank.

    The first row sets the number of fields. A row with another number, or that is not CSV, is read
    again: spaces around its quotes, and quotes around the whole row, are then allowed.
    """
    lines = text.lines
    n_fields = 0
    while start < len(lines):
        source = _Lines(lines, start)
        try:
            for cells in csv.reader(
                source, delimiter=separator, skipinitialspace=True, strict=True
            ):
                fields = cells
                if len(cells) != n_fields and cells:
                    if len(source) == 1:
                        fields = _split_loosely(lines[source.row], separator, n_fields) or cells
                    n_fields = n_fields or len(fields)
                stripped = [field.strip() for field in fields]
                if any(stripped):
                    yield Row(source.row + 1, stripped)
                source.row = source.next
            break
        except csv.Error as error:
            # A stray quote swallows the following lines. Skip this line, not the rest of the file.
            line, start = lines[source.row], source.row + 1
            loose = _split_loosely(line, separator, n_fields) if n_fields else None
            if loose is not None:
                yield Row(start, [field.strip() for field in loose])
                continue
            fields = _split_roughly(line, separator)
            n_fields = n_fields or len(fields)
            yield Row(start, fields, fault=str(error))


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


class _Lines:
    """The lines from `row` on, for a csv reader; raises csv.Error if one row spans too many.

    `next` is the index of the next line. The consumer marks the end of a row by moving `row`.
    """

    def __init__(self, lines: Sequence[str], row: int) -> None:
        self.row = self.next = row
        self._lines = lines

    def __len__(self) -> int:
        """Return the number of lines that the current row spans."""
        return self.next - self.row

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if self.next == len(self._lines):
            raise StopIteration
        if self.next == self.row + _MAX_ROW_LINES:
            raise csv.Error(f"a quote is open for {_MAX_ROW_LINES} lines")
        self.next += 1
        return self._lines[self.next - 1]
