"""Decide what a row's score is worth: its status, or why it has none, and its words' times."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hearback.engine.data.problems import count_noun
from hearback.reading.scoring import status
from hearback.reading.scoring.acoustics import Acoustics
from hearback.reading.scoring.decoder_evidence import DecoderEvidence
from hearback.reading.scoring.inputs import OPTIONAL
from hearback.reading.scoring.results import Score, WordScore
from hearback.reading.scoring.status import Fault
from hearback.reading.text_normalizer import written_words

Row = Mapping[str, Any]  # of `Inputs.frame`

# Of the speech's samples: with more, even well-read sentences score low.
MAX_CLIPPED_SHARE = 0.2
# The fastest of 2,298 readings of speechocean762 takes 0.29 s a word.
SHORTEST_WORD_SECONDS = 0.1
ADDED = "every word seems to be said: others may have been added, or said again"


def find_fault(
    probability: float,
    acoustics: Acoustics,
    n_words: int,
    break_note: str,
    evidence: DecoderEvidence | None,
) -> Fault | None:
    """Return why a probability of the ensemble is no score; None if it is one.

    `n_words` are those of the text. `break_note` says where speech is missing from the file; "" for
    a whole recording. `evidence` is what a decoder hears, if there is one.
    """
    # A text that was recognised is English, whatever else is there, and was said as a whole.
    if probability < 0.5:
        if fault := find_too_short(acoustics.seconds, n_words):
            return fault
        if fault := find_no_english(acoustics.is_tone, evidence):
            return fault
        if break_note:
            what = f"{break_note}, so a part of the text may be missing"
            return Fault(status.UNREADABLE, what, "copy the recording again, or record it again")
    return find_clipped(acoustics.clipped_share)


def find_too_short(seconds: float, n_words: int) -> Fault | None:
    """Return the fault of a recording in which nobody could say so many words."""
    if seconds >= SHORTEST_WORD_SECONDS * n_words:
        return None
    what = f"{seconds:.1f} s are too short for {count_noun(n_words, 'word')}"
    return Fault(status.TOO_SHORT, what, "record it again, or correct the text")


def find_clipped(share: float) -> Fault | None:
    """Return the fault of a recording of which a share is cut off; None if that is little."""
    if share <= MAX_CLIPPED_SHARE:
        return None
    what = f"{share:.0%} of the speech is cut off at the peak"
    return Fault(status.CLIPPED, what, "record it again with a lower level")


def find_no_english(is_tone: bool, evidence: DecoderEvidence | None) -> Fault | None:
    """Return the fault of a clip without English speech; None for others.

    `is_tone` is that of `Acoustics`; `evidence` is None if no decoder has processed the clip.
    """
    what = None
    if is_tone or (evidence is not None and evidence.is_no_speech):
        what = "no speech is recognised, only noise, music or a tone"
    elif evidence is not None and evidence.is_not_understood:
        what = "no English words are recognised, but another language, several voices, or noise"
    return None if what is None else Fault(status.NO_ENGLISH, what, "listen to it")


def make_score(
    row: Row,
    probability: float,
    *,
    words: np.ndarray | None,
    times: np.ndarray | None,
    seconds: float,
    notes: Sequence[str],
    is_passage: bool,
) -> Score:
    """Return the score of a row.

    Args:
        row: its texts, grade, …
        probability: of the ensemble.
        words: (positions,), the probabilities of its words, then padding; None if unknown.
        times: (words, 2), start and end of each word in s; None if unknown.
        seconds: length of its recording.
        notes: on the recording's conversion.
        is_passage: whether it was scored in several windows.
    """
    texts = row["expected_text"].split()
    written = written_words([row["written_text"]])
    values = [None] * len(texts) if words is None else words[: len(texts)].tolist()
    if probability < 0.5 and words is not None and min(values) >= status.DOUBTFUL:
        notes = (*notes, ADDED)
    spans = [(None, None)] * len(texts) if times is None else _spans(times, seconds)
    return Score(
        filename=row["filename"],
        text=row["written_text"],
        status=status.of_probability(probability, is_passage=is_passage),
        probability=probability,
        words=tuple(
            WordScore(word, part, value, *span)
            for word, part, value, span in zip(texts, written, values, spans, strict=True)
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
        seconds=seconds,
        notes=(*notes, fault.note),
        **{column: row[column] for column in OPTIONAL},
    )
