"""Texts as the world has them: read as they are said, and not changed without a word."""

import csv
import html
import io
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from hearback.engine.data.problems import Report
from hearback.reading.tables import (
    TASKS,
    read_metadata,
)
from tests.soak.fuzz.outcomes import Outcome, Rng, check_report, result_of
from tests.world_inputs import listed_twice


def csv_text(rows: list[list[str]], separator: str = ",", *, quote_all: bool = False) -> str:
    """Return a table as CSV."""
    file = io.StringIO()
    writer = csv.writer(
        file,
        delimiter=separator,
        lineterminator="\n",
        quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL,
    )
    writer.writerows(rows)
    return file.getvalue()


WORDS = (
    *(
        "it's",
        "the",
        "dog's",
        "cat",
        "didn't",
        "ran",
        "home",
        "o'clock",
        "we're",
        "a",
        "red",
        "hat",
    ),
    *("café", "naïve", "koovnorb", "sunshine", "mother's", "i", "i'll"),
)
SPOKEN = (("2", "two"), ("10", "ten"), ("3rd", "third"), ("Mr.", "mister"), ("7", "seven"))

TextChange = Callable[[str, Rng], str]


def curly_apostrophe(text: str, rng: Rng) -> str:
    """Replace the apostrophes by another character for them."""
    return text.replace("'", "’ʼ′`´‛"[rng.integers(6)])


def capitals(text: str, rng: Rng) -> str:
    """Write all letters, or those at the beginnings, as capitals."""
    return (text.upper(), text.capitalize(), " ".join(w.capitalize() for w in text.split()))[
        rng.integers(3)
    ]


def decomposed(text: str, _rng: Rng) -> str:
    """Write letters apart from their accents."""
    return unicodedata.normalize("NFD", text)


def invisible(text: str, rng: Rng) -> str:
    """Insert an invisible character: a soft hyphen, a zero-width space, a mark of direction."""
    position = int(rng.integers(len(text) + 1))
    return (
        text[:position]
        + "\u00ad\u200b\u200c\u200d\ufeff\u200e\u2060"[rng.integers(7)]
        + text[position:]
    )


def other_space(text: str, rng: Rng) -> str:
    """Replace the spaces."""
    return text.replace(" ", ("\u00a0", "\u2009", "\u3000", "  ", "\t")[rng.integers(5)])


def mojibake(text: str, _rng: Rng) -> str:
    """Decode the UTF-8 of a text with a curly apostrophe as Windows-1252."""
    content = text.replace("'", "’").encode()
    # As Windows does: the five bytes that Windows-1252 lacks are control characters.
    return "".join(
        bytes([byte]).decode("latin-1" if byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else "cp1252")
        for byte in content
    )


def entities(text: str, rng: Rng) -> str:
    """Write apostrophes as HTML does."""
    entity = ("&#39;", "&#x27;", "&apos;", "&rsquo;", "&amp;#39;")[rng.integers(5)]
    return html.escape(text, quote=False).replace("'", entity)


def in_quotes(text: str, rng: Rng) -> str:
    """Put the text into quotation marks."""
    left, right = (('"', '"'), ("“", "”"), ("«", "»"), ("‘", "’"), ("„", "“"))[rng.integers(5)]
    return left + text + right


def punctuated(text: str, rng: Rng) -> str:
    """Put punctuation behind a word and at the end."""
    first, space, rest = text.partition(" ")
    return (
        first
        + (",", ";", " –", " —", ":", "")[rng.integers(6)]
        + space
        + rest
        + ".!?…"[rng.integers(4)]
    )


def emoji(text: str, rng: Rng) -> str:
    """Add an emoji, after a space."""
    return f"{text} {('🐕', '👍🏽', '❤️', '👩‍👧')[rng.integers(4)]}"


TEXT_CHANGES: tuple[TextChange, ...] = (
    curly_apostrophe, capitals, decomposed, invisible, other_space, mojibake, entities, in_quotes,
    punctuated, emoji,
)  # fmt: skip


def plain_text(rng: Rng) -> str:
    """Return one to six words as they are said."""
    return " ".join(WORDS[n] for n in rng.integers(0, len(WORDS), int(rng.integers(1, 7))))


def try_world_text(rng: Rng, folder: Path) -> Outcome:
    """Write texts in another way, and read them as they are said."""
    change = TEXT_CHANGES[rng.integers(len(TEXT_CHANGES))]
    plain, written = [], []
    for _ in range(4):
        text = plain_text(rng)
        number, spoken = SPOKEN[rng.integers(len(SPOKEN))]
        with_number = rng.random() < 0.2
        plain.append(f"{spoken} {text}" if with_number else text)
        changed = change(f"{number} {text}" if with_number else text, rng)
        if change is not mojibake and rng.random() < 0.3:  # it is the last of all changes
            changed = TEXT_CHANGES[rng.integers(len(TEXT_CHANGES))](changed, rng)
        written.append(changed)
    path = folder / "data" / "train_metadata.csv"
    rows = [[f"{n}.wav", TASKS[n], text, "1"] for n, text in enumerate(written)]
    path.write_text(csv_text([["filename", "task", "expected_text", "grade"], *rows]), "utf-8")
    report = Report()
    metadata = read_metadata(path, report)
    check_report(report)
    assert not listed_twice(report.problems), f"listed twice: {report}"
    with_problem = {problem.row for problem in report.problems if problem.row is not None}
    is_said = any("were changed" in p.what or "was changed" in p.what for p in report.problems)
    for row, was, meant in zip(metadata.to_dict("records"), written, plain, strict=True):
        text = row["expected_text"]
        if row["line"] not in with_problem:
            assert text == meant, f"{was!r} was read as {text!r}, and means {meant!r}"
            is_same = text == re.sub(r"[ \t]+", " ", was.strip())
            assert is_same or is_said, f"{was!r} was changed without a word"
        assert row["written_text"] == was.strip(), f"{was!r} was written as {row['written_text']!r}"
    return Outcome(f"world texts: {change.__name__.replace('_', ' ')}", result_of(report))
