"""The score of a recording, and of its words."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from hearback.reading.scoring.status import STATUSES


@dataclass(frozen=True)
class WordScore:
    """The score of one word of a text.

    Attributes:
        word: as it is said, in lower case.
        written: the part of the written text that it comes from; "$5" for "five" and "dollars".
        probability: that the learner said it, 0 to 1; low too if a word was inserted before it.
            None without a score.
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
        seconds: length of the recording; None if it cannot be read.
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


def count_statuses(scores: Iterable[Score]) -> str:
    """Return e.g. "17 ok, 2 unsure, 1 silent"."""
    counts = Counter(score.status for score in scores)
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])


def score_frame(scores: Sequence[Score]) -> pd.DataFrame:
    """Return a row per recording: filename, score, status, seconds, text, note.

    Also grade, task and speaker, where any recording has one.
    """
    frame = pd.DataFrame(
        {
            "filename": [score.filename for score in scores],
            "score": pd.Series([score.probability for score in scores], dtype=float).round(4),
            "status": [score.status for score in scores],
            "seconds": pd.Series([score.seconds for score in scores], dtype=float).round(2),
            "text": [score.text for score in scores],
        }
    )
    for column in ("grade", "task", "speaker"):
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
        for score in scores
        for position, word in enumerate(score.words)
    ]
    columns = ["filename", "position", "word", "written", "score", "status", "start", "end"]
    frame = pd.DataFrame(rows, columns=columns)
    numbers = dict.fromkeys(("score", "start", "end"), float)
    return frame.astype(numbers).round({"score": 4, "start": 2, "end": 2})
