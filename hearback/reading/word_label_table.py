"""The table of the labels of words, train_words.csv: read, and compared with the expected texts.

The optional table says how well each word was read, as experts heard it:

    filename, position (from 0), word, and one of
    share      share of the experts who accept the word, 0 to 1
    accuracy   the experts' scores, 0 to 10 each, separated by spaces ("10 8 3 7 10")

Where a row has both, the share counts. Optional beside them:

    phones     the experts' transcriptions, as `phone_labels` describes ("B (EH0) R | B EH0 {R}")
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from hearback.engine.data.filenames import are_there, match_names, nearest_names
from hearback.engine.data.problems import Problem, Report, count_noun, quoted
from hearback.engine.data.tables import Table, read_table, respelled
from hearback.reading import phone_labels
from hearback.reading.phone_labels import TranscriptionError
from hearback.reading.tables import LONGEST_TEXT, SYNONYMS
from hearback.reading.text_normalizer import UnspeakableTextError, normalize_text
from hearback.reading.word_labels import ReadWords, WordLabels

ACCEPTED = 7.0  # an expert's score from which on a word counts as well read

_KEY = ("filename", "position", "word")
_VALUES = {"share": "0 to 1", "accuracy": "scores of 0 to 10, separated by spaces"}
_PHONES = "phones"
_SYNONYMS = {
    "filename": SYNONYMS["filename"],
    "position": ("index", "word_index", "pos"),
    "word": ("token", "text"),
    "share": ("accepted", "agreement"),
    "accuracy": ("scores", "score", "ratings", "acc"),
    "phones": ("transcriptions", "transcription"),
}
_POSITION = re.compile(r"([0-9]{1,6})(?:\.0+)?")  # a spreadsheet's 3.0 is 3
_NUMBERING = "number the words of a recording from 0, each once"
_OTHER_CORPUS = (
    "the table is probably of another corpus: put the right one there, or remove it; training "
    "needs none"
)

_Row = dict[str, Any]  # the strings of a row, and the int `line`


def words_path(data: Path) -> Path:
    """Return the path of the labels of words in the folder `data`."""
    return data / "train_words.csv"


def read_word_labels(path: Path, metadata: pd.DataFrame, report: Report) -> WordLabels:
    """Read the labels of the words of the recordings of `metadata`.

    Returns no labels if the file does not exist. Problems go into `report`; words of recordings
    that are not in the metadata are left out, with a warning.
    """
    if not path.exists():
        return WordLabels()
    optional = (*_VALUES, _PHONES)
    table = read_table(
        path, _KEY, report, optional, one_of=_VALUES, synonyms=_SYNONYMS, unique=False
    )
    # Tables that could not be read have been reported.
    is_complete = table.columns.issuperset(_KEY) and not table.columns.isdisjoint(_VALUES)
    if not is_complete or (metadata["filename"] == "").all():
        return WordLabels()
    return _TableReader(path, report).read(table, metadata)


def load_word_labels(data: Path, metadata: pd.DataFrame) -> WordLabels:
    """Read the labels of words in the folder `data`; raise BadInputError with all problems."""
    report = Report()
    labels = read_word_labels(words_path(data), metadata, report)
    report.raise_if_errors()
    return labels


def report_disagreement(
    word_labels: WordLabels,
    path: Path,
    metadata: pd.DataFrame,
    labels: np.ndarray,
    report: Report,
) -> None:
    """Warn of words that are not those of the expected texts of `metadata`.

    Args:
        word_labels: what `read_word_labels` returned.
        path: its table.
        metadata: the rows to compare.
        labels: (rows,), 1 where the learner said the expected text.
        report: receives the problems.
    """
    others, contradicted = [], []
    n_compared = 0
    rows = zip(metadata["filename"], metadata["expected_text"], labels.tolist(), strict=True)
    for filename, text, label in rows:
        if not text or (read := word_labels.get(filename)) is None:
            continue
        n_compared += 1
        example = f"{filename}: {quoted(read.text)} was read, {quoted(text)} is expected"
        if not set(read.words) & set(text.split()):
            # A corpus that changes a word of one-word texts leaves none.
            others.append((example, max(len(read.words), len(text.split())) > 1))
        elif label == 1 and read.text != text:
            contradicted.append(example)

    def warn(examples: Sequence[str], what: str, cure: str) -> None:
        if examples:
            what = f"{count_noun(len(examples), 'recording')} {what}, such as {examples[0]}"
            report.add(Problem(str(path), None, what, cure, "warning"))

    what = f"of {n_compared} with no word of the expected text"
    if 2 * len(others) > n_compared:
        warn([example for example, _ in others], what, _OTHER_CORPUS)
    else:
        long = [example for example, has_several in others if has_several]
        warn(long, what, "check that the filenames are right; until then, no word counts as said")
    cure = (
        "correct the label, the expected text or the words; until then, words that differ count "
        "as not said"
    )
    warn(contradicted, "labelled 1, where other words were read than expected", cure)


@dataclass(frozen=True)
class _TableReader:
    """Reads the table at `path`."""

    path: Path
    report: Report

    def read(self, table: Table, metadata: pd.DataFrame) -> WordLabels:
        """Return the labels of the recordings of `metadata`."""
        known = dict.fromkeys(filter(None, metadata["filename"]))
        match_of = match_names(table.frame["filename"], known)
        if match_of:
            self.report.add(respelled(self.path, match_of, "than in the metadata"))
        rows_of: dict[str, list[_Row]] = {}
        lines_of: dict[tuple[str, ...], list[int]] = {}  # of rows that are alike
        faulty = set()  # recordings with a row that has been reported: they would have a gap
        for row, fits in zip(table.frame.to_dict("records"), table.fits, strict=True):
            filename = match_of.get(row["filename"], row["filename"])
            if not fits:
                faulty.add(filename)
            elif filename:
                fields = (filename, *(row[name] for name in table.columns))
                alike = lines_of.setdefault(fields, [])
                alike.append(row["line"])
                if len(alike) == 1:
                    rows_of.setdefault(filename, []).append(cast(_Row, row))
        self._report_doubled(
            lines for (filename, *_), lines in lines_of.items() if filename in known
        )
        unlisted = [name for name in rows_of if name not in known]
        self._report_unlisted(unlisted, known, len(rows_of))
        listed = {
            name: rows for name, rows in rows_of.items() if name in known and name not in faulty
        }
        is_scaled = self._check_scale([row for rows in listed.values() for row in rows])
        is_counted = self._check_first(listed.values())
        if not (is_scaled and is_counted):
            return WordLabels()
        self._discard_unreadable_phones(row for rows in listed.values() for row in rows)
        read = {
            name: _RecordingReader(self.path, self.report, name, rows).read()
            for name, rows in listed.items()
        }
        return WordLabels({name: words for name, words in read.items() if words is not None})

    def _report_doubled(self, lines_of_rows: Iterable[Sequence[int]]) -> None:
        """Report the rows that are in the table more than once, by the lines of each."""
        doubled = [lines for lines in lines_of_rows if len(lines) > 1]
        if doubled:
            n_doubled = sum(len(lines) - 1 for lines in doubled)
            first, again, *_ = doubled[0]
            what = (
                f"{count_noun(n_doubled, 'doubled row')}, such as line {again}, like line {first}"
            )
            self._add(what, "remove the doubled rows")

    def _report_unlisted(self, names: Sequence[str], known: Iterable[str], n_listed: int) -> None:
        """Warn of the recordings `names`, which are not `known`, of `n_listed` in the table."""
        if not names:
            return
        if len(names) < n_listed:
            n_unlisted = count_noun(len(names), "recording")
            what = f"{n_unlisted} without a row in the metadata, such as {quoted(names[0])}"
            self._add(what, "their words are not used", warning=True)
            return
        what = f"none of its {count_noun(n_listed, 'recording')} is in the metadata, such as "
        what += quoted(names[0])
        near = are_there(nearest_names(names[0], known))
        self._add(what, _OTHER_CORPUS + (f" ({near})" if near else ""), warning=True)

    def _check_scale(self, rows: Iterable[_Row]) -> bool:
        """Return False with a problem if the scores are shares; warn if they accept no word."""
        scores = [
            score
            for row in rows
            if not row.get("share")
            for score in _parse_numbers(row.get("accuracy", ""))
        ]
        highest = max(scores, default=ACCEPTED)
        what = f"no score in accuracy is above {highest:g}"
        if highest <= 1:
            cure = "scores are 0 to 10; shares of 0 to 1 belong in a column `share`"
            self._add(what, cure)
        elif highest < ACCEPTED:
            cure = (
                f"scores are 0 to 10, and {ACCEPTED:g} or more accepts a word: none counts as said"
            )
            self._add(what, cure, warning=True)
        return highest > 1

    def _check_first(self, rows_by_recording: Iterable[Sequence[_Row]]) -> bool:
        """Return False with a problem if the words of all recordings are numbered from 1."""
        firsts = {
            min((_parse_position(row["position"]) or 0 for row in rows), default=0)
            for rows in rows_by_recording
        }
        if firsts == {1}:
            self._add("its words are numbered from 1", "subtract 1 from every position")
        return firsts != {1}

    def _discard_unreadable_phones(self, rows: Iterable[_Row]) -> None:
        """Empty the phones that cannot be read, with a warning."""
        errors = _empty_unreadable_phones(rows)
        if errors:
            what = f"the phones of {count_noun(len(errors), 'word')} cannot be read: {errors[0]}"
            cure = (
                "write ARPAbet, wrong phones in ( ), accented ones in { }, added ones in [ ]; "
                "until then, these words have no labels of phones"
            )
            self._add(what, cure, warning=True)

    def _add(self, what: str, cure: str, *, warning: bool = False) -> None:
        """Report a problem of the whole table."""
        severity: Literal["error", "warning"] = "warning" if warning else "error"
        self.report.add(Problem(str(self.path), None, what, cure, severity))


@dataclass(frozen=True)
class _RecordingReader:
    """Reads the rows of one recording in the table at `path`."""

    path: Path
    report: Report
    filename: str
    rows: Sequence[_Row]

    def read(self) -> ReadWords | None:
        """Return its words in the order of their positions, or None with a problem."""
        rows = self.rows
        shares = [self._share(row) for row in rows]
        spoken = [self._spoken(row) for row in rows]
        order = self._order()
        if order is None or not all(spoken) or np.isnan(shares).any():
            return None
        words = [word for at in order for word in spoken[at]]
        together = self._together([rows[at]["word"] for at in order], words)
        if together is None:
            return None
        repeated = [at for at in order for _ in spoken[at]]  # one written word may be two spoken
        accuracies = [_parse_numbers(row.get("accuracy", "")) for row in rows]
        means = np.array([np.mean(each) if each else np.nan for each in accuracies], np.float32)
        return ReadWords(
            tuple(together),
            np.array(shares, dtype=np.float32)[repeated],
            means[repeated],
            tuple(rows[at].get(_PHONES, "") if len(spoken[at]) == 1 else "" for at in repeated),
        )

    def _order(self) -> list[int] | None:
        """Return the indices of the rows by position, or None with a problem."""
        rows, at_position = self.rows, dict[int, int]()
        is_right = True
        for at, row in enumerate(rows):
            position = _parse_position(row["position"])
            if position is None:
                what = f"the position is {quoted(row['position'])}"
                self._add(row, what, _NUMBERING)
            elif position in at_position:
                # The line and the position are not in the message: rows are grouped by it.
                what = "a position that its recording has on an earlier line"
                self._add(row, what, f"{_NUMBERING}; remove the doubled rows")
            else:
                at_position[position] = at
                continue
            is_right = False
        if not is_right:
            return None
        if gaps := [position for position in range(len(rows)) if position not in at_position]:
            what, cure = f"no word at position {gaps[0]}", f"add it; {_NUMBERING}"
            if min(at_position) == 1 and max(at_position) == len(rows):
                what, cure = "its words are numbered from 1", "subtract 1 from their positions"
            self._add(rows[0], what, cure)
            return None
        return [at_position[position] for position in range(len(rows))]

    def _spoken(self, row: _Row) -> list[str]:
        """Return a written word as the words that a reader says; [] with a problem."""
        try:
            spoken = normalize_text(row["word"]).text.split()
        except UnspeakableTextError as error:
            self._add(row, f"word: {error}", error.cure)
            return []
        if not row["word"]:
            self._add(row, "empty word", "fill in the word that was to be read")
        elif not spoken:
            what = f"the word {quoted(row['word'])} has no letter and no digit"
            cure = "remove the row, and number the words without it"
            self._add(row, what, cure)
        return spoken

    def _together(self, written: Sequence[str], alone: Sequence[str]) -> Sequence[str] | None:
        """Return the words as they are said in the whole text; None with a problem.

        `alone` are those of each written word by itself. Neighbours may change a word ("1234 toys"
        is no year), but not the number of words: each must have the label of its own.
        """
        try:
            text = normalize_text(" ".join(written)).text
        except UnspeakableTextError as error:
            self._add(self.rows[0], f"its words together: {error}", error.cure)
            return None
        if len(text.encode()) > LONGEST_TEXT:
            what = f"its words together have over {LONGEST_TEXT} bytes"
            cure = "check that they are of one recording"
            self._add(self.rows[0], what, cure)
            return None
        words = text.split()
        if len(words) != len(alone):
            what = f"its words are {quoted(' '.join(alone))}, but together {quoted(text)}"
            self._add(self.rows[0], what, "write the words as they are said, one a row")
            return None
        return words

    def _share(self, row: _Row) -> float:
        """Return the share of the experts who accept a word; NaN with a problem."""
        if row.get("share"):
            shares = _parse_numbers(row["share"].replace(",", ".", 1))
            share = shares[0] if len(shares) == 1 else np.nan
        else:
            scores = _parse_numbers(row.get("accuracy", ""))
            is_valid = scores and all(0 <= score <= 10 for score in scores)
            share = float(np.mean([score >= ACCEPTED for score in scores])) if is_valid else np.nan
        if 0 <= share <= 1:
            return share
        shown = " and ".join(f"{name} {quoted(row[name])}" for name in _VALUES if name in row)
        cure = "write a share of 0 to 1, or scores of 0 to 10 separated by spaces"
        self._add(row, f"the word's label is {shown}", cure)
        return np.nan

    def _add(self, row: _Row, what: str, cure: str) -> None:
        """Report a problem of a row."""
        self.report.add(Problem(str(self.path), row["line"], what, cure, "error", self.filename))


def _empty_unreadable_phones(rows: Iterable[_Row]) -> list[str]:
    """Empty the phones that cannot be read; return what is wrong with each."""
    errors = []
    for row in rows:
        try:
            for transcription in row.get(_PHONES, "").split("|"):
                phone_labels.parse(transcription)
        except TranscriptionError as error:
            errors.append(f"line {row['line']}, {quoted(row[_PHONES])}: {error}")
            row[_PHONES] = ""
    return errors


def _parse_position(written: str) -> int | None:
    """Return a position, or None if it is no whole number of 0 or more."""
    found = _POSITION.fullmatch(written)
    return int(found[1]) if found else None


def _parse_numbers(written: str) -> list[float]:
    """Return the numbers of a text that are separated by spaces; [] if one is none."""
    try:
        numbers = [float(number) for number in written.split()]
    except ValueError:
        return []
    return numbers if np.isfinite(numbers).all() else []
