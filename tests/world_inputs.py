"""Recordings, texts and tables as the world has them, and what a step must never print of them.

Each input changes a good data folder in one way, which public bug reports describe. The families:

- `TEXTS`: texts that are read as the words that a reader says; `UNSPEAKABLE_TEXTS` are refused.
- `RECORDINGS`: files that are read whole, or of which a report says what is wrong.
- `TABLES`: CSV as programs write it (`FORMATS`, `GRADES`, `FILENAMES`); `BROKEN_TABLES` cannot be
  read.
"""

import contextlib
import csv
import io
import re
import sys
import threading
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hearback.engine import cli
from hearback.engine.data.problems import Problem
from tests.engine import recording_corpus as corpus

PLAIN_TEXT = "it's the dog"

# PLAIN_TEXT as the world writes it.
TEXTS: Mapping[str, str] = {
    "curly apostrophe": "it’s the dog",
    "modifier apostrophe": "itʼs the dog",
    "prime": "it′s the dog",
    "backtick": "it`s the dog",
    "acute accent": "it´s the dog",
    "capitals": "IT'S THE DOG",
    "title case": "It's The Dog",
    "full stop": "It's the dog.",
    "exclamation": "It's the dog!",
    "soft hyphen": "it's the d\u00adog",
    "zero-width space": "it's\u200b the dog",
    "zero-width joiner": "it's the d\u200dog",
    "byte order mark": "\ufeffit's the dog",
    "no-break space": "it's\u00a0the\u00a0dog",
    "thin space": "it's\u2009the dog",
    "two spaces": "it's  the   dog",
    "mojibake": "itâ€™s the dog",
    "html entity": "it&#39;s the dog",
    "html entity twice": "it&amp;#39;s the dog",
    "curly entity": "it&rsquo;s the dog",
    "quoted": '"it\'s the dog"',
    "curly quotes": "“it’s the dog”",
    "single quotes": "'it's the dog'",
    "guillemets": "«it's the dog»",
    "dash": "it's the dog —",
    "ellipsis": "it's the dog…",
    "emoji": "it's the dog 🐕",
    "emoji with a skin tone": "it's the dog 👍🏽",
    "full-width letters": "ｉｔ's the dog",
}

# Texts and what a report says of each.
UNSPEAKABLE_TEXTS: Mapping[str, tuple[str, str]] = {
    "nothing": ("", r"empty"),
    "punctuation only": ("?!", r"no letter and no digit"),
    "emoji only": ("🐕", r"no letter and no digit"),
    "markup": ("<b>it's the dog</b>", r"has markup"),
    "lookalike letters": ("it's thе dog", r"mixes Latin letters"),
}


@dataclass(frozen=True)
class RecordingInput:
    """A recording's content, and what a report says of it.

    Attributes:
        content: makes the bytes of the file; its sound is `corpus.sound()`, unless cut.
        says: pattern of the report's text; None if nothing is said.
        is_read: the recording is scored.
    """

    content: Callable[[], bytes]
    says: str | None = None
    is_read: bool = True


def _wav() -> bytes:
    return corpus.encoded("WAV", "PCM_16")


def _channels(right: float) -> Callable[[], bytes]:
    sound = corpus.sound()
    return lambda: corpus.encoded("WAV", "PCM_16", np.stack([sound, right * sound], axis=1))


def _mp3(*, variable: bool) -> bytes:
    return corpus.mp3(variable=variable)


def _cut(content: bytes) -> bytes:
    return content[: len(content) * 6 // 10]


_CUT = r"breaks off|cut|ends early|no end|not complete|incomplete|truncated"

RECORDINGS: Mapping[str, RecordingInput] = {
    "wav": RecordingInput(_wav),
    "mp3, variable": RecordingInput(lambda: _mp3(variable=True)),
    "mp3, variable without Xing": RecordingInput(lambda: corpus.without_xing(_mp3(variable=True))),
    "mp3, constant without Xing": RecordingInput(lambda: corpus.without_xing(_mp3(variable=False))),
    "mp3, cut": RecordingInput(lambda: _cut(_mp3(variable=True)), _CUT),
    "wav, cut": RecordingInput(lambda: _cut(_wav()), _CUT),
    "flac, cut": RecordingInput(lambda: _cut(corpus.encoded("FLAC", "PCM_16")), _CUT),
    "two mp3": RecordingInput(lambda: 2 * _mp3(variable=True), r"2 recordings one after the other"),
    "two vorbis": RecordingInput(
        lambda: 2 * corpus.encoded("OGG", "VORBIS"), r"2 recordings one after the other"
    ),
    "two opus": RecordingInput(
        lambda: 2 * corpus.encoded("OGG", "OPUS"), r"2 recordings one after the other"
    ),
    "vorbis, cut between pages": RecordingInput(
        lambda: corpus.cut_between_pages(corpus.encoded("OGG", "VORBIS")), _CUT
    ),
    "opus, cut between pages": RecordingInput(
        lambda: corpus.cut_between_pages(corpus.encoded("OGG", "OPUS")), _CUT
    ),
    "wav from a pipe": RecordingInput(
        lambda: corpus.wav_with_sizes(_wav(), 0xFFFFFFFF, 0xFFFFFFFF)
    ),
    "wav of size 0": RecordingInput(lambda: corpus.wav_with_sizes(_wav(), 0, 0), r"."),
    "cancelling stereo": RecordingInput(_channels(-0.95), r"cancel|only the (first|left|louder)"),
    "opposite stereo": RecordingInput(_channels(-1.0), r"cancel|only the (first|left|louder)"),
    "equal stereo": RecordingInput(_channels(1.0), r"2 channels"),
    "git lfs pointer": RecordingInput(
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 160044\n",
        r"(?i)lfs",
        is_read=False,
    ),
    "html": RecordingInput(
        lambda: b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n" * 9,
        r"(?i)html|web page",
        is_read=False,
    ),
    "zip": RecordingInput(
        lambda: b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(range(256)) * 4,
        r"(?i)zip",
        is_read=False,
    ),
    "empty": RecordingInput(lambda: b"", r"is empty", is_read=False),
}

# With a decoder for it, read; without, the report says which kind of file it is. The pattern of
# what may be said holds in both cases.
CONTAINERS: Mapping[str, Callable[[], bytes]] = {
    "m4a": lambda: corpus.encoded_by_av("ipod", "aac"),
    "aac": lambda: corpus.encoded_by_av("adts", "aac"),
    "webm": lambda: corpus.encoded_by_av("webm", "libopus", sample_rate=48_000),
    "mka": lambda: corpus.encoded_by_av("matroska", "libopus", sample_rate=48_000),
    "wma": lambda: corpus.encoded_by_av("asf", "wmav2", bit_rate=64_000),
    "3gp": lambda: corpus.encoded_by_av("3gp", "aac"),
}


def _separated(separator: str) -> Callable[[str], str]:
    """Return a change of the separator; fields that have it are quoted."""

    def changed(text: str) -> str:
        file = io.StringIO()
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        writer.writerows(csv.reader(io.StringIO(text)))
        return file.getvalue()

    return changed


def _quoted_with_spaces(text: str) -> bytes:
    header, *rows = text.splitlines()
    lines = [", ".join(f'"{cell}"' if " " in cell else cell for cell in r.split(",")) for r in rows]
    return "\n".join([header, *lines, ""]).encode()


def _filenames(change: Callable[[str], str]) -> Callable[[str], bytes]:
    """Return a change of the filenames, which are the first column."""

    def changed(text: str) -> bytes:
        header, *rows = text.splitlines()
        lines = [change(name) + comma + rest for name, comma, rest in map(_first_cell, rows)]
        return "\n".join([header, *lines, ""]).encode()

    return changed


def _first_cell(row: str) -> tuple[str, str, str]:
    return row.partition(",")


def _cells(change: Mapping[str, str]) -> Callable[[str], bytes]:
    """Return a change of the cells of a table that has grades."""

    def changed(text: str) -> bytes:
        header, *rows = text.splitlines()
        if "grade" not in header:  # a label may be 1, too
            return text.encode()
        lines = [",".join(change.get(cell, cell) for cell in row.split(",")) for row in rows]
        return "\n".join([header, *lines, ""]).encode()

    return changed


def _title(text: str) -> bytes:
    header, newline, rows = text.partition("\n")
    return (header.title() + newline + rows).encode()


# The text of a table -> the bytes of its file, which mean the same.
FORMATS: Mapping[str, Callable[[str], bytes]] = {
    "spaces after commas": lambda text: text.replace(",", ", ").encode(),
    "spaces before quotes": _quoted_with_spaces,
    "everything quoted": lambda text: re.sub(r"[^,\n]+", r'"\g<0>"', text).encode(),
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16 without a mark": lambda text: text.encode("utf-16-le"),
    "semicolons": lambda text: _separated(";")(text).encode(),
    "tabs": lambda text: _separated("\t")(text).encode(),
    "sep line": lambda text: b"sep=,\n" + text.encode(),
    "sep line with semicolons": lambda text: b"sep=;\n" + _separated(";")(text).encode(),
    "windows line ends": lambda text: text.replace("\n", "\r\n").encode(),
    "old mac line ends": lambda text: text.replace("\n", "\r").encode(),
    "blank lines": lambda text: text.replace("\n", "\n\n").encode(),
    "no newline at the end": lambda text: text.rstrip("\n").encode(),
}

# The same for the values in a table.
GRADES: Mapping[str, Callable[[str], bytes]] = {
    "excel's grades": _cells({"1": "1.0", "2": "2.0", "3": "3.0"}),
    "K": _cells({"KG": "K"}),
    "kindergarten": _cells({"KG": "Kindergarten"}),
    "ordinal grades": _cells({"1": "1st", "2": "2nd", "3": "3rd"}),
}
FILENAMES: Mapping[str, Callable[[str], bytes]] = {
    "missing extension": _filenames(lambda name: name.removesuffix(".wav")),
    "backslashes": _filenames(lambda name: f".\\{name}"),
    "upper-case suffixes": _filenames(lambda name: name.replace(".wav", ".WAV")),
}

TABLES = {**FORMATS, "capitals in the header": _title, **GRADES, **FILENAMES}

# Changes of a table that cannot be read, and what is said of each.
BROKEN_TABLES: Mapping[str, tuple[Callable[[str], bytes], str]] = {
    "empty": (lambda _: b"", r"the file is empty"),
    "header only": (lambda text: text.partition("\n")[0].encode(), r"no rows below the header"),
    "html": (lambda _: b"<!doctype html><html></html>", r"(?i)html"),
    "spreadsheet": (lambda _: b"PK\x03\x04" + bytes(200), r"(?i)spreadsheet|zip"),
    "git lfs pointer": (lambda _: b"version https://git-lfs.github.com/spec/v1\n", r"(?i)lfs"),
    "column called path": (lambda t: t.replace("filename", "path", 1).encode(), r"'filename'.*"),
}


@dataclass(frozen=True)
class Finished:
    """A step's exit status, and its output and errors together."""

    status: int
    printed: str


def run_step(main: Callable[[], int | None], *flags: object) -> Finished:
    """Run a step's `main` as its script does, in this process; a traceback is printed."""
    printed = io.StringIO()
    status: object = 1
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        patch.setattr(sys, "argv", ["step.py", *map(str, flags)])
        patch.setattr(threading, "excepthook", threading.excepthook)  # `cli.run` replaces it
        try:
            cli.run(main)
        except SystemExit as ended:
            status = ended.code or 0
        except Exception:  # a user would see it
            traceback.print_exc(file=printed)
    return Finished(int(str(status)), printed.getvalue())


def check_no_traceback(finished: Finished) -> None:
    """Assert that a step ended by itself, with a status of its own."""
    assert "Traceback" not in finished.printed, finished.printed[-3000:]
    assert finished.status in (0, 1, 2), finished


def check_says(pattern: str, text: str) -> None:
    """Assert that a text has a pattern, on one of its lines."""
    assert re.search(pattern, text), f"no {pattern!r} in {text[-3000:]!r}"


def listed_twice(problems: Iterable[Problem]) -> list[str]:
    """Return the rows and recordings that a report of one fault lists more than once."""
    rows: Counter[str] = Counter()
    for problem in problems:
        if problem.filename is not None:
            rows[_name(problem.filename)] += 1
        elif problem.row is not None:
            rows[f"{problem.file}, line {problem.row}"] += 1
    return [row for row, count in rows.items() if count > 1]


def _name(filename: str) -> str:
    """Return a name without folders: another table may spell them otherwise."""
    return unicodedata.normalize("NFC", re.split(r"[/\\]", filename)[-1])


def read_problems(path: Path) -> list[Problem]:
    """Return the problems in a submission's table of them; none if there is no table."""
    if not path.exists():
        return []
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return [
        Problem(
            row["file"], int(row["row"]) if row["row"] else None, row["what"], row["cure"],
            "error" if row["severity"] == "error" else "warning", row["filename"] or None,
        )
        for row in table.to_dict("records")
    ]  # fmt: skip
