"""The tables of `score.py` and `infer.py` that a page of new recordings is made of."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.data.problems import BadInputError, Problem, Report, count_noun
from hearback.engine.data.tables import read_problems, read_table, read_written
from hearback.engine.errors import HearbackError
from hearback.engine.page.content import Words
from hearback.engine.page.origin import Origin
from hearback.reading import DIVERGENCES
from hearback.reading.scoring.results import Score
from hearback.reading.scoring.status import (
    SCORED,
    STATUSES,
    UNREADABLE,
    Fault,
    of_probability,
)
from hearback.reading.tables import metadata_path, normalize_expected_text, read_metadata
from hearback.reading.text_normalizer import UnspeakableTextError
from hearback.reading.words import TABLE, words_path

_TEXTS = ("status", "text", "grade", "task", "speaker", "note")
_OPTIONAL = (*_TEXTS, "seconds")


@dataclass(frozen=True)
class ScoredTables:
    """What was written about scored recordings.

    Attributes:
        scores: filename, text (as written), score (NaN without one), status, and further columns.
        words: by the index of the recording, as text.
        problems: of the input.
        is_submission: whether infer.py wrote them.
    """

    scores: pd.DataFrame
    words: dict[str, Words]
    problems: Sequence[Problem] = ()
    is_submission: bool = False


def read_scored(scores: Path, data: Path, origin: Origin | None = None) -> ScoredTables:
    """Read the table `scores` of score.py or infer.py, and those that are beside it.

    A submission has no texts: they, grades and tasks are those of the test table in `data`; its
    words and divergences are not those of a table of score.py in the same folder. With a current
    `origin`, words are those that the same run wrote: an earlier run's are of other scores. Raises
    BadInputError with all problems of the tables.
    """
    report = Report()
    table = read_table(scores, ("filename", "score"), report, _OPTIONAL)
    report.raise_if_errors()
    frame = table.frame.assign(score=_parse(table.frame, "score", scores, report))
    if "seconds" in frame:
        frame["seconds"] = _parse(frame, "seconds", scores, report)
    problems = read_problems(scores)
    is_submission = "text" not in frame
    words: Path | None = words_path(scores)
    divergences: Path | None = None
    if is_submission:
        words, divergences = scores.with_name(TABLE), scores.with_name(DIVERGENCES)
    if origin is not None and origin.is_current:
        _tell_of_others(scores, (words, divergences), origin)
        words, divergences = origin.tables.get("words"), origin.tables.get("divergences")
    if is_submission:
        frame = _with_test_table(frame, metadata_path(data, "test"), problems, report)
    elif "status" not in frame:
        frame["status"] = [_status_of(score) for score in frame["score"]]
    else:
        frame.loc[~frame["status"].isin(SCORED), "score"] = np.nan
    for row in frame[~frame["status"].isin(STATUSES)].to_dict("records"):
        what, cure = f"unknown status {row['status']!r}", f"use one of {', '.join(STATUSES)}"
        report.add(Problem(str(scores), row["line"], what, cure, filename=row["filename"]))
    report.raise_if_errors()
    found = read_words(words, divergences, frame["filename"])
    found = _of_texts(found, frame["text"].tolist(), words or divergences)
    return ScoredTables(frame, found, problems, is_submission)


def _parse(frame: pd.DataFrame, column: str, path: Path, report: Report) -> pd.Series:
    """Return the numbers of a column, NaN where it is empty; invalid ones are reported."""
    numbers = pd.to_numeric(frame[column], errors="coerce").astype(float)
    most = 1.0 if column == "score" else np.inf
    valid = np.isfinite(numbers) & (numbers >= 0) & (numbers <= most)
    for row in frame[~valid & (frame[column] != "")].to_dict("records"):
        what, cure = f"{column} is {row[column]!r}", "use a number from 0 to 1"
        if column != "score":
            cure = "use a number, at least 0"
        report.add(Problem(str(path), row["line"], what, cure, filename=row["filename"]))
    return numbers


def _status_of(score: float) -> str:
    return UNREADABLE if np.isnan(score) else of_probability(score)


def _with_test_table(
    frame: pd.DataFrame, path: Path, problems: Sequence[Problem], report: Report
) -> pd.DataFrame:
    """Return the rows of a submission with the test table's texts, and their status.

    Rows with an error have only a base rate: they lose it, and get the error's status. The notes
    are what the problems say of a row; a warning may give it a status, too.
    """
    metadata = read_metadata(path, Report()) if path.is_file() else None
    if metadata is None:
        what = "this table has no texts, and there is no test table to take them from"
        cure = "name the folder that has test_metadata.csv with --data"
        report.add(Problem(str(path), None, what, cure))
        raise BadInputError(report)
    columns = ["filename", "written_text", "grade", "task"]
    columns += [name for name in ("speaker",) if name in metadata]
    joined = frame.merge(metadata[columns], on="filename", how="left").fillna(
        dict.fromkeys(columns[1:], "")
    )
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        found.setdefault(problem.filename or "", []).append(problem)
    of_rows = [found.get(name, []) for name in joined["filename"]]
    is_error = np.array([any(x.severity == "error" for x in each) for each in of_rows], bool)
    statuses = [
        Fault.of_problem(next(x for x in each if x.severity == "error")).status
        if failed
        else next((x.status for x in each if x.status), _status_of(score))
        for score, each, failed in zip(joined["score"], of_rows, is_error, strict=True)
    ]
    notes = ["; ".join(f"{x.what}; {x.cure}" for x in each) for each in of_rows]
    return joined.rename(columns={"written_text": "text"}).assign(
        status=statuses, note=notes, score=joined["score"].mask(is_error)
    )


def read_words(
    path: Path | None, divergences: Path | None, filenames: Sequence[str]
) -> dict[str, Words]:
    """Return the words of recordings by index, from a table of words and one of divergences.

    Either may be missing. Raises HearbackError for a table that cannot be read.
    """
    scored = _words_by_filename(path, ("filename", "position", "word", "score"))
    columns = ("filename", "position", "word", "start", "end")
    aligned = _words_by_filename(divergences, columns)
    found = {}
    for index, filename in enumerate(filenames):
        rows, times = scored.get(filename), aligned.get(filename)
        first = rows if rows is not None else times
        if first is None:
            continue
        is_same = times is not None and times["word"].tolist() == first["word"].tolist()
        timed = times if is_same else first
        found[str(index)] = Words(
            first["word"].tolist(),
            scores=_column(rows, "score"),
            starts=_column(timed, "start"),
            ends=_column(timed, "end"),
            diverges=[int(value or 0) for value in _column(times if is_same else None, "diverges")],
        )
    return found


def _tell_of_others(scores: Path, beside: Sequence[Path | None], origin: Origin) -> None:
    """Say which tables of words beside `scores` are not shown: they are of other scores."""
    own = {path.resolve() for path in origin.tables.values()}
    for path in beside:
        if path is not None and path.is_file() and path.resolve() not in own:
            what = f"{path}: not of the run that wrote {scores.name}, or changed since"
            print(f"{what}: its words are not shown", file=sys.stderr)


def _of_texts(
    words: Mapping[str, Words], texts: Sequence[str], path: Path | None
) -> dict[str, Words]:
    """Return the words of recordings that are those of their texts; say how many are not."""
    found = {index: each for index, each in words.items() if _is_of(each, texts[int(index)])}
    if n := len(words) - len(found):
        these = "are not those of its text" if n == 1 else "are not those of their texts"
        print(
            f"{path}: the words of {count_noun(n, 'recording')} {these}, and are not shown; write "
            "it again with the scores",
            file=sys.stderr,
        )
    return found


def _is_of(words: Words, text: str) -> bool:
    """Return whether words are those of a written text, as far as it can be read."""
    try:
        return list(filter(None, words.words)) == normalize_expected_text(text).text.split()
    except UnspeakableTextError:
        return True


def _column(rows: pd.DataFrame | None, name: str) -> list[float | None]:
    """Return the numbers of a column, None for an empty one; [] without the column."""
    if rows is None or name not in rows:
        return []
    numbers = pd.to_numeric(rows[name], errors="coerce").astype(float)
    return [value if np.isfinite(value) else None for value in numbers.tolist()]


def _words_by_filename(path: Path | None, columns: Sequence[str]) -> dict[str, pd.DataFrame]:
    if path is None or not path.is_file():
        return {}
    frame = read_written(path, columns)
    positions = pd.to_numeric(frame["position"], errors="coerce")
    if positions.isna().any():
        raise HearbackError(f"{path}: a position is not a number; write it again, or move it away")
    frame = frame.assign(position=positions).sort_values("position")
    return {str(name): rows for name, rows in frame.groupby("filename")}


def words_of_scores(scores: Sequence[Score]) -> dict[str, Words]:
    """Return the words of scores, by index as text."""
    return {
        str(index): Words(
            [word.word for word in score.words],
            scores=[word.probability for word in score.words],
            starts=[word.start_seconds for word in score.words],
            ends=[word.end_seconds for word in score.words],
        )
        for index, score in enumerate(scores)
        if score.words
    }
