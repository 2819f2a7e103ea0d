"""Text files as programs write them: their encoding, and messages for files that are not text.

UTF-8 and UTF-16 are read with or without a byte order mark, UTF-32 only with one, and Windows-1252
where that is certain.
"""

import codecs
import json
import re
from dataclasses import dataclass
from pathlib import Path

from hearback.engine.data.json_lines import is_json_lines
from hearback.engine.data.other_files import OtherFile, identify_whole
from hearback.engine.data.problems import Problem, Report, count_noun, quoted
from hearback.engine.io import open_file

# Bytes. A table of 38,095 recordings has 3 MB; a larger file is probably no table, and would need
# up to 16 times its size in memory.
LARGEST_TABLE = 64 * 1024 * 1024

MISSING_CURE = "put it there, or name the folder that has it (--data)"

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
class Wanted:
    """What a text file should be, for messages about files that are something else.

    Attributes:
        name: of the format.
        content: what the file has.
        in_office: the part of an Office document that has it.
        json_cure: what to do with a file in JSON.
        may_be_json_lines: whether an object on each line is read, too.
    """

    name: str
    content: str
    in_office: str
    json_cure: str
    may_be_json_lines: bool = False

    @property
    def save(self) -> str:
        """How to save a file in this format."""
        return f"save it as {self.name} in UTF-8"

    def cure(self, other: OtherFile) -> str:
        """Return how to get what is wanted from a file of another kind."""
        cures = {
            "archive": f"unpack it with `{other.command}`, and put the {self.content} that is in "
            "it there",
            "pointer": f"get the {self.content} with `{other.command}`",
            "sheet": f"open it, and save {self.in_office} as {self.name} in UTF-8",
            "damaged sheet": f"copy it again, or repair it in a spreadsheet program; then save "
            f"{self.in_office} as {self.name} in UTF-8",
            "page": f"download the {self.content} itself",
            "other": self.save,
        }
        return cures[other.group]


TABLE = Wanted(
    "CSV",
    "table",
    "the sheet",
    "save it as CSV: a line with the columns' names, and a line for each recording; or as JSON "
    "lines: an object for each recording",
    may_be_json_lines=True,
)
PLAIN_TEXT = Wanted("plain text", "text", "the text", "put the words alone there")


@dataclass(frozen=True)
class DecodedText:
    """The text of a file: its lines with their ends, and the encoding that it was in."""

    lines: list[str]
    encoding: str
    is_damaged: bool  # has U+FFFD for bytes that are not in the encoding


def read_text(path: Path, report: Report, wanted: Wanted = TABLE) -> DecodedText | None:
    """Return the file's text without a byte order mark, or None with a problem in `report`.

    Bytes that are not in the file's encoding become U+FFFD.
    """
    content = _read_bytes(path, report, wanted)
    if content is None:
        return None
    if other := identify_whole(content, path.suffix):
        what = f"the file is {other.name}, not {wanted.name}"
        report.add(Problem(str(path), None, what, wanted.cure(other)))
        return None
    encoding, text, is_damaged = _decode(path, content, report, wanted)
    # Unlike editors, splitlines() also splits at form feeds and other characters.
    lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text)
    if is_json_lines(lines):
        is_read, name = wanted.may_be_json_lines, "JSON lines"
    else:
        is_read, name = not _is_json(text), "JSON"
    if not is_read:
        what = f"the file is {name}, not {wanted.name}"
        report.add(Problem(str(path), None, what, wanted.json_cure))
        return None
    if "\0" in text.partition("\n")[0]:  # an unknown kind of file
        report.add(Problem(str(path), None, "the file is not UTF-8 text", wanted.save))
        return None
    return DecodedText(lines, encoding, is_damaged)


def _read_bytes(path: Path, report: Report, wanted: Wanted) -> bytes | None:
    try:
        with open_file(path) as file:
            content = file.read(LARGEST_TABLE + 1)
    except FileNotFoundError:
        report.add(Problem(str(path), None, "there is no such file", MISSING_CURE))
        return None
    except OSError as error:
        what = f"the file cannot be read: {error.strerror}"
        report.add(Problem(str(path), None, what, f"make it a readable {wanted.name} file"))
        return None
    if len(content) > LARGEST_TABLE:
        what = f"the file is larger than {LARGEST_TABLE >> 20} MB"
        report.add(
            Problem(str(path), None, what, f"it is no {wanted.content} of recordings, or split it")
        )
        return None
    return content


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _decode(path: Path, content: bytes, report: Report, wanted: Wanted) -> tuple[str, str, bool]:
    """Return the encoding, the text, and whether some bytes are not in the encoding."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return encoding, *_replacing(content[len(mark) :], encoding)
    if encoding := _utf16_without_mark(content):
        return encoding, *_replacing(content, encoding)
    text, is_damaged = _replacing(content, "utf-8")
    if is_damaged and (ansi := _decode_ansi(path, content, report, wanted)) is not None:
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


def _decode_ansi(path: Path, content: bytes, report: Report, wanted: Wanted) -> str | None:
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
    cure = f"check these words; to be certain, save the file as {wanted.name} in UTF-8"
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


def is_unicode(text: str) -> bool:
    """Return whether a string is text; bytes that are none stand in it as lone surrogates."""
    return text == text.encode("utf-8", "replace").decode()


def shown_name(name: str) -> str:
    """Return a name for messages, with bytes that are no text as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
