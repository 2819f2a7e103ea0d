"""The scores of rows, with their statuses and the times of their words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hearback.reading.scoring import status
from hearback.reading.scoring.inputs import OPTIONAL
from hearback.reading.scoring.results import Score, WordScore
from hearback.reading.scoring.status import Fault
from hearback.reading.text_normalizer import written_words

Row = Mapping[str, Any]  # of `Inputs.frame`

ADDED = "every word seems to be said: others may have been added, or said again"


def make_score(
    row: Row,
    probability: float,
    *,
    word_probabilities: np.ndarray | None,
    times: np.ndarray | None,
    seconds: float,
    notes: Sequence[str],
    is_passage: bool,
) -> Score:
    """Return the score of a row.

    Args:
        row: its texts, grade, …
        probability: of the ensemble.
        word_probabilities: (positions,), those of its words, then padding; None if unknown.
        times: (words, 2), start and end of each word in s; None if unknown.
        seconds: length of its recording.
        notes: on the recording's conversion.
        is_passage: whether its words are in several windows.
    """
    words, written = row["expected_text"].split(), written_words([row["written_text"]])
    n_words = len(words)
    values = [None] * n_words if word_probabilities is None else word_probabilities.tolist()
    values = values[:n_words]
    spans = [(None, None)] * n_words if times is None else _spans(times, seconds)
    # Not for passages: many words that are a little doubtful make one low, with nothing added.
    if probability < 0.5 and not is_passage and word_probabilities is not None:
        notes = (*notes, ADDED) if min(values) >= status.DOUBTFUL else notes
    return Score(
        filename=row["filename"],
        text=row["written_text"],
        status=status.of_probability(probability, is_passage=is_passage),
        probability=probability,
        words=tuple(
            WordScore(word, part, value, *span)
            for word, part, value, span in zip(words, written, values, spans, strict=True)
        ),
        seconds=seconds,
        notes=tuple(notes),
        **{column: row[column] for column in OPTIONAL},
    )


def _spans(times: np.ndarray, seconds: float) -> list[tuple[float, float]]:
    """Return start and end of each word, in s, within a recording."""
    return [(float(start), float(end)) for start, end in np.clip(times, 0.0, seconds)]


def unscored(
    row: Row, fault: Fault, notes: Sequence[str] = (), seconds: float | None = None
) -> Score:
    """Return the score of a row without a probability; the fault is the last of its notes.

    `notes` are on its recording's conversion; `seconds` is its length, None if it is unknown.
    """
    spoken, written = row["expected_text"], row["written_text"]
    words = tuple(map(WordScore, spoken.split(), written_words([written]))) if spoken else ()
    return Score(
        filename=row["filename"],
        text=written,
        status=fault.status,
        probability=None,
        words=words,
        seconds=fault.seconds if seconds is None else seconds,
        notes=(*notes, fault.note),
        **{column: row[column] for column in OPTIONAL},
    )
