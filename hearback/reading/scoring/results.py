"""The score of a recording, and of its words."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from hearback.reading.scoring.inputs import OPTIONAL
from hearback.reading.scoring.status import STATUSES
from hearback.reading.words import PROBABILITY_DIGITS

SECONDS_DIGITS = 3  # after the point, in tables and JSON


@dataclass(frozen=True)
class WordScore:
    """The score of one word of a text.

    Attributes:
        word: as it is said, in lower case.
        written: the part of the written text that it comes from; "$5" for "five" and "dollars".
        probability: that the learner said it, 0 to 1; None without a score. Words that the learner
            adds lower the score of the clip, but seldom those of the words beside them.
        start_seconds: of the word in the recording, in s; None if unknown.
        end_seconds: as `start_seconds`.
    """

    word: str
    written: str
    probability: float | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None


@dataclass(frozen=True)
class Score:
    """How likely it is that a learner said a text.

    Attributes:
        filename: of the recording, "" for an array.
        text: as written.
        status: one of `status.STATUSES`.
        probability: that the learner said the whole text, 0 to 1; None if `status` is not "ok" or
            "unsure".
        words: the words of the text, in order; () if the text cannot be read.
        seconds: length of the recording; None if it cannot be read, or is cut at ten minutes.
        notes: what was converted, and why there is no score, in words.
        grade: "" if unknown.
        task: "" if unknown.
        speaker: "" if unknown.
    """

    filename: str
    text: str
    status: str
    probability: float | None
    words: tuple[WordScore, ...] = ()
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    grade: str = ""
    task: str = ""
    speaker: str = ""


def rounded(score: Score) -> Score:
    """Return a score as tables and JSON have it: probabilities with 4 digits, times in whole ms."""
    words = [
        replace(
            word,
            probability=_rounded(word.probability, PROBABILITY_DIGITS),
            start_seconds=_rounded(word.start_seconds, SECONDS_DIGITS),
            end_seconds=_rounded(word.end_seconds, SECONDS_DIGITS),
        )
        for word in score.words
    ]
    return replace(
        score,
        probability=_rounded(score.probability, PROBABILITY_DIGITS),
        seconds=_rounded(score.seconds, SECONDS_DIGITS),
        words=tuple(words),
    )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def count_statuses(scores: Iterable[Score]) -> str:
    """Return e.g. "17 ok, 2 unsure, 1 silent"."""
    counts = Counter(score.status for score in scores)
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])


def score_frame(scores: Sequence[Score]) -> pd.DataFrame:
    """Return a row per recording: filename, score, status, seconds, text, note.

    Also grade, task and speaker, where any recording has one.
    """
    scores = [rounded(score) for score in scores]
    frame = pd.DataFrame(
        {
            "filename": [score.filename for score in scores],
            "score": pd.Series([score.probability for score in scores], dtype=float),
            "status": [score.status for score in scores],
            "seconds": pd.Series([score.seconds for score in scores], dtype=float),
            "text": [score.text for score in scores],
        }
    )
    for column in OPTIONAL:
        values = [getattr(score, column) for score in scores]
        if any(values):
            frame[column] = values
    return frame.assign(note=["; ".join(score.notes) for score in scores])


def word_frame(scores: Sequence[Score]) -> pd.DataFrame:
    """Return a row per word: filename, position, word, written, score, status, start, end.

    `status` is that of the recording; `start` and `end` are in s.
    """
    rows = [
        (
            *(score.filename, position, word.word, word.written, word.probability),
            *(score.status, word.start_seconds, word.end_seconds),
        )
        for score in map(rounded, scores)
        for position, word in enumerate(score.words)
    ]
    columns = ["filename", "position", "word", "written", "score", "status", "start", "end"]
    frame = pd.DataFrame(rows, columns=columns)
    numbers = dict.fromkeys(("score", "start", "end"), float)
    return frame.astype(numbers)
