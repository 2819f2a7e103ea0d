"""Decide what a row's score is worth: its status, and its words with their times."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hearback.reading.scoring import status
from hearback.reading.scoring.acoustics import Acoustics
from hearback.reading.scoring.inputs import OPTIONAL
from hearback.reading.scoring.listening import DecoderEvidence
from hearback.reading.scoring.results import Score, WordScore
from hearback.reading.text_normalizer import written_words

Row = Mapping[str, Any]  # of `Inputs.frame`

# Of the speech's samples: with more, even well-read sentences score low.
MAX_CLIPPED_SHARE = 0.2
BROKEN = "so the end of the text may be missing; copy the recording again, or record it again"
CLIPPED_CURE = "record it again with a lower level"


def make_score(
    row: Row,
    probability: float,
    *,
    words: np.ndarray | None,
    acoustics: Acoustics,
    breaks_off: bool,
    notes: Sequence[str],
    evidence: DecoderEvidence | None,
    speed: float,
) -> Score:
    """Return the score of a row.

    Args:
        row: its texts, grade, …
        probability: of the ensemble.
        words: (positions,), the probabilities of its words, then padding; None if unknown.
        acoustics: of its recording.
        breaks_off: whether its end is missing from the file; a note says where.
        notes: on the recording's conversion.
        evidence: what a decoder hears, if there is one.
        speed: at which it heard it.
    """
    seconds = acoustics.seconds
    why = reason = None
    # A text that was recognised is English, whatever else is there, and was said as a whole.
    if probability < 0.5:
        why, reason = not_english(acoustics.is_tone, evidence)
        if why is None and breaks_off:
            why, reason = status.UNREADABLE, BROKEN
    if why is None and acoustics.clipped_share > MAX_CLIPPED_SHARE:
        why, reason = status.CLIPPED, f"{describe_clipped(acoustics.clipped_share)}; {CLIPPED_CURE}"
    if why is not None:
        return replace(unscored(row, why, (*notes, str(reason))), seconds=seconds)
    texts = row["expected_text"].split()
    written = written_words([row["written_text"]])
    values = [None] * len(texts) if words is None else words[: len(texts)].tolist()
    found = None if evidence is None else evidence.times
    times = [(None, None)] * len(texts) if found is None else _times(found, speed, seconds)
    return Score(
        filename=row["filename"],
        text=row["written_text"],
        status=status.of_probability(probability),
        probability=probability,
        words=tuple(
            WordScore(word, part, value, *span)
            for word, part, value, span in zip(texts, written, values, times, strict=True)
        ),
        seconds=seconds,
        notes=tuple(notes),
        **{column: row[column] for column in OPTIONAL},
    )


def describe_clipped(share: float) -> str:
    """Return what is wrong with a recording of which a share is cut off."""
    return f"{share:.0%} of the speech is cut off at the peak"


def not_english(is_tone: bool, evidence: DecoderEvidence | None) -> tuple[str | None, str | None]:
    """Return the status and reason of a clip without English speech; None for others.

    `is_tone` is that of `Acoustics`; `evidence` is None if no decoder has heard the clip.
    """
    if is_tone or (evidence is not None and evidence.is_no_speech):
        return status.NO_ENGLISH, "no speech is heard, only noise, music or a tone; listen to it"
    if evidence is not None and evidence.is_not_understood:
        what = "no English words are heard, but another language, several voices, or noise"
        return status.NO_ENGLISH, f"{what}; listen to it"
    return None, None


def _times(times: np.ndarray, speed: float, seconds: float) -> list[tuple[float, float]]:
    """Return start and end of each word, in s of the recording at its own speed."""
    return [(float(start), float(end)) for start, end in np.clip(times * speed, 0.0, seconds)]


def unscored(row: Row, why: str, notes: Sequence[str]) -> Score:
    """Return the score of a row without a probability; the last of its notes is the reason."""
    spoken, written = row["expected_text"], row["written_text"]
    words = tuple(map(WordScore, spoken.split(), written_words([written]))) if spoken else ()
    return Score(
        filename=row["filename"],
        text=written,
        status=why,
        probability=None,
        words=words,
        notes=tuple(notes),
        **{column: row[column] for column in OPTIONAL},
    )
