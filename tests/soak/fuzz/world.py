"""Recordings, texts and tables as the world has them: nothing is lost without a word.

What is read is all there is, or it is said: a decoded recording has the length that was written, a
text has the words that were meant, and a table has the values that were meant, unless a report has
a problem for the row or the file. No report lists a row twice for one fault.
"""

import csv
import html
import io
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.store_builder import build_store
from hearback.engine.data.filenames import find_files
from hearback.engine.data.problems import Report
from hearback.reading.tables import (
    GRADES,
    TASKS,
    read_labels,
    read_metadata,
    read_submission_format,
)
from tests.engine import recording_corpus as corpus
from tests.soak.fuzz.outcomes import READ, REFUSED, WARNED, Outcome, check_report
from tests.world_inputs import listed_twice

# Texts

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

Rng = np.random.Generator
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
    path.write_text(_csv([["filename", "task", "expected_text", "grade"], *rows]), "utf-8")
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
            assert text == was.strip() or is_said, f"{was!r} was changed without a word"
        assert row["written_text"] == was.strip(), f"{was!r} was written as {row['written_text']!r}"
    return Outcome(f"world texts: {change.__name__.replace('_', ' ')}", _result(report))


# Recordings


def _sound(rng: Rng, rate: int = SAMPLE_RATE) -> np.ndarray:
    return corpus.sound(round(float(rng.uniform(0.5, 5)), 1), rate)


def _wav(rng: Rng) -> tuple[bytes, float]:
    samples = _sound(rng)
    return corpus.encoded("WAV", "PCM_16", samples), len(samples) / SAMPLE_RATE


def _ogg(rng: Rng) -> tuple[bytes, float]:
    samples = _sound(rng)
    subtype = ("VORBIS", "OPUS")[rng.integers(2)]
    return corpus.encoded("OGG", subtype, samples), len(samples) / SAMPLE_RATE


def _mp3(rng: Rng) -> tuple[bytes, float]:
    samples = _sound(rng)
    return corpus.mp3(samples, variable=rng.random() < 0.5), len(samples) / SAMPLE_RATE


def chained(rng: Rng) -> tuple[bytes, float]:
    """Return two or three Ogg or MP3 streams, one after the other."""
    make = (_ogg, _mp3)[rng.integers(2)]
    parts = [make(rng) for _ in range(int(rng.integers(2, 4)))]
    return b"".join(content for content, _ in parts), sum(seconds for _, seconds in parts)


def cut_ogg(rng: Rng) -> tuple[bytes, float]:
    """Return an Ogg without its last pages."""
    content, seconds = _ogg(rng)
    return corpus.cut_between_pages(content, float(rng.uniform(0.3, 0.9))), seconds


def cut_anywhere(rng: Rng) -> tuple[bytes, float]:
    """Return a file of which half of the bytes or more are there."""
    content, seconds = (_wav, _ogg, _mp3)[rng.integers(3)](rng)
    return content[: int(len(content) * rng.uniform(0.5, 0.95))], seconds


def mp3_from_a_pipe(rng: Rng) -> tuple[bytes, float]:
    """Return an MP3 without a Xing header, sometimes with tags."""
    content, seconds = _mp3(rng)
    tag = corpus.id3v2() if rng.random() < 0.3 else b""
    return tag + corpus.without_xing(content) + (
        corpus.id3v1() if rng.random() < 0.3 else b""
    ), seconds


def wav_without_sizes(rng: Rng) -> tuple[bytes, float]:
    """Return a WAV from a pipe, or of a recorder that was killed."""
    content, seconds = _wav(rng)
    sizes = ((0xFFFFFFFF, 0xFFFFFFFF), (0, 0), (None, 0), (0x7FFFFFFF, 0x7FFFFFDB))
    return corpus.wav_with_sizes(content, *sizes[rng.integers(len(sizes))]), seconds


def cancelling_stereo(rng: Rng) -> tuple[bytes, float]:
    """Return channels whose mean is nearly silent."""
    samples = _sound(rng)
    right = -float(rng.choice([0.9, 0.95, 0.99, 1.0])) * samples
    content = corpus.encoded("WAV", "PCM_16", np.stack([samples, right], axis=1))
    return content, len(samples) / SAMPLE_RATE


CONTAINERS = (("ipod", "aac"), ("adts", "aac"), ("webm", "libopus"), ("matroska", "libopus"))


@lru_cache
def foreign_files() -> tuple[tuple[bytes, float], ...]:
    """Return files of all `CONTAINERS` and their lengths; made once, because that opens files."""
    files = []
    for container, codec in CONTAINERS:
        rate = 48_000 if codec == "libopus" else SAMPLE_RATE
        for seconds in (0.7, 2.5):
            samples = corpus.sound(seconds, rate)
            content = corpus.encoded_by_av(container, codec, samples, sample_rate=rate)
            files.append((content, seconds))
    return tuple(files)


def foreign_container(rng: Rng) -> tuple[bytes, float]:
    """Return a container that libsndfile does not know."""
    files = foreign_files()
    return files[rng.integers(len(files))]


def no_recording(rng: Rng) -> tuple[bytes, float]:
    """Return a pointer of Git LFS, a web page, or a zip."""
    contents = (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 160044\n",
        b"<!DOCTYPE html><html><head><title>404</title></head></html>\n" * 20,
        b"\n <html><body>Sign in</body></html>",
        b"PK\x03\x04" + rng.bytes(2000),
    )
    return contents[rng.integers(len(contents))], 0.0


RECORDINGS = (
    chained, chained, cut_ogg, cut_anywhere, mp3_from_a_pipe, wav_without_sizes, cancelling_stereo,
    foreign_container, no_recording,
)  # fmt: skip
NAMES = ("clip.wav", "clip.mp3", "clip.ogg", "clip.m4a", "clip.WAV", "clip")
# Codecs add some silence at both ends.
MAX_DIFFERENCE = 0.15  # s, and as much for each stream


def try_world_recording(rng: Rng, folder: Path) -> Outcome:
    """Store a recording whose length is known."""
    foreign_files()  # in the first input, before the soak watches which files are opened
    make = RECORDINGS[rng.integers(len(RECORDINGS))]
    content, seconds = make(rng)
    name = NAMES[rng.integers(len(NAMES))]
    (folder / "data" / name).write_bytes(content)
    table = folder / "data" / "train_metadata.csv"
    metadata = pd.DataFrame({"filename": [name], "line": [2]})
    report = Report()
    data, stores = folder / "data", folder / "store"
    store = build_store(
        metadata, data, table, stores, "train", report=report, progress=False, workers=1
    )
    check_report(report)
    assert len(report.problems) <= 1, f"listed twice: {report}"
    kind = f"world recordings: {make.__name__.replace('_', ' ')}"
    if name not in store:
        (problem,) = report.errors
        assert "Format not recognised" not in problem.what, f"{make.__name__}: {problem.what}"
        return Outcome(kind, REFUSED)
    assert make is not no_recording, "what is no recording was read"
    read = len(store.get(name)) / SAMPLE_RATE
    is_whole = abs(read - seconds) < 3 * MAX_DIFFERENCE and read > 0.9 * seconds
    assert is_whole or report.problems, f"{read:.2f} of {seconds:.2f} s were read without a word"
    if make is cancelling_stereo:
        assert report.problems and np.std(store.get(name)) > 0.01, "most of the level is lost"
    if make is mp3_from_a_pipe:
        assert not report.problems, f"warned of a whole recording: {report}"
    return Outcome(kind, _result(report))


# Tables

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


def _csv(rows: list[list[str]], separator: str = ",", *, quote_all: bool = False) -> str:
    file = io.StringIO()
    writer = csv.writer(
        file,
        delimiter=separator,
        lineterminator="\n",
        quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL,
    )
    writer.writerows(rows)
    return file.getvalue()


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
        return "sep line", f"sep={separator}\n{_csv(rows, separator)}"
    if way == 2:
        return "quotes", _csv(rows, separator, quote_all=True).replace("\n", "\r\n")
    return "separators", _csv(rows, separator)


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
    return Outcome(f"world tables: {kind or way}", _result(report))


def _check_values(report: Report, metadata: pd.DataFrame, meant: dict[str, list[str]]) -> None:
    whole_file = [problem for problem in report.errors if problem.row is None]
    if whole_file:
        return
    in_error = {problem.row for problem in report.errors}
    for column, values in meant.items():
        for line, value, right in zip(metadata["line"], metadata[column], values, strict=True):
            assert value == right or line in in_error, f"{column}: {value!r} instead of {right!r}"


def _result(report: Report) -> str:
    return REFUSED if report.errors else WARNED if report.warnings else READ
