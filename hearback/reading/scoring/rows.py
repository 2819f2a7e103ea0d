"""Score rows whose texts and recordings are known to be readable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.store import Store
from hearback.reading.inference.folds import coverages_of_folds
from hearback.reading.pairings import WITH_PHONES
from hearback.reading.pairs import PairSource
from hearback.reading.passages.rows import Passages
from hearback.reading.passages.segments import Segment
from hearback.reading.scoring import status
from hearback.reading.scoring.acoustics import Acoustics
from hearback.reading.scoring.decoder_evidence import DecoderEvidence
from hearback.reading.scoring.ensemble import LoadedEnsemble
from hearback.reading.scoring.faults import find_fault
from hearback.reading.scoring.results import Score
from hearback.reading.scoring.scores import make_score, unscored
from hearback.reading.scoring.statistics import measure
from hearback.reading.scoring.status import Fault
from hearback.reading.tables import LONGEST_TEXT
from hearback.reading.window_coverage import find_uncovered
from hearback.reading.words import said_probabilities

_TEXT_TOO_LONG = Fault(
    status.TOO_LONG,
    f"the text is longer than {LONGEST_TEXT} bytes",
    "split the recording and its text, or use a scorer with a token scorer, such as modeltok, "
    "which finds where to split them",
)


@dataclass(frozen=True)
class RowScores:
    """The scores of rows.

    Attributes:
        scores: of each row, in their order.
        faults: why a row has no score, by its number.
        measured: of each recording that the models have processed.
    """

    scores: list[Score] = field(default_factory=list)
    faults: dict[int, Fault] = field(default_factory=dict)
    measured: list[Mapping[str, float]] = field(default_factory=list)


def score_rows(
    ensemble: LoadedEnsemble, frame: pd.DataFrame, store: Store, progress: str | None = None
) -> RowScores:
    """Return the scores of the rows of an `Inputs.frame`, in their order.

    All of them have a text, and a recording in `store`. `progress` is the description of a bar.
    """
    if frame.empty:
        return RowScores()
    faults = _find_too_long(ensemble, PairSource(frame, None, store))
    rows = [row for row in range(len(frame)) if row not in faults]
    scored = _run(ensemble, frame.iloc[rows].reset_index(drop=True), store, progress)
    scores = dict(zip(rows, scored.scores, strict=True))
    for row, fault in faults.items():
        record = frame.iloc[row].to_dict()
        entry = store.entries[record["filename"]]
        scores[row] = unscored(record, fault, entry.notes, entry.n_samples / SAMPLE_RATE)
    faults |= {rows[at]: fault for at, fault in scored.faults.items()}
    return RowScores([scores[row] for row in range(len(frame))], faults, scored.measured)


def _find_too_long(ensemble: LoadedEnsemble, source: PairSource) -> dict[int, Fault]:
    """Return the faults of rows that the models' windows do not cover."""
    if ensemble.can_split:
        return {}
    coverages = coverages_of_folds(ensemble.folds)
    uncovered = find_uncovered(ensemble.with_windows(source), coverages)
    faults = {found.row: Fault(status.TOO_LONG, found.what, found.cure) for found in uncovered}
    if any(fold.recipe.pair in WITH_PHONES for fold in ensemble.folds):
        # Their memory grows with the square of the text's length.
        for row, text in enumerate(source.texts):
            if len(text.encode()) > LONGEST_TEXT:
                faults.setdefault(row, _TEXT_TOO_LONG)
    return faults


def _run(
    ensemble: LoadedEnsemble, frame: pd.DataFrame, store: Store, progress: str | None
) -> RowScores:
    """Return the scores of rows that the models' windows cover."""
    if frame.empty:
        return RowScores()
    source = PairSource(frame, None, store)
    grades = frame["grade"].to_numpy(dtype=str)
    passages = ensemble.split(source)
    by_window, evidence_by_window = ensemble.predict(
        passages.source, passages.grades(grades), progress=progress
    )
    predictions = passages.merge(by_window)
    evidence = _merge_evidence(ensemble, passages, evidence_by_window)
    words = _word_probabilities(ensemble, predictions.words)
    found, windows_of_rows = RowScores(), passages.by_row()
    unmatched: dict[int, list[Segment]] = {}
    for row, segment in passages.unmatched:
        unmatched.setdefault(row, []).append(segment)
    for row, record in enumerate(frame.to_dict("records")):
        acoustics = Acoustics.of(store.get(record["filename"]))
        entry = store.entries[record["filename"]]
        decoded = evidence.get(row)
        probability = float(predictions.clips[row])
        notes = [
            *entry.notes,
            *map(_describe_unmatched, unmatched.get(row, ())),
            *_describe_unread(passages, row, windows_of_rows[row]),
        ]
        breaks = entry.notes_of("break")
        fault = find_fault(
            probability,
            acoustics,
            len(record["expected_text"].split()),
            "; ".join(breaks),
            decoded,
        )
        if fault is not None:
            found.faults[row] = fault
            # The fault of one with missing speech says where.
            others = [note for note in notes if note not in fault.what]
            score = unscored(record, fault, others, acoustics.seconds)
        else:
            score = make_score(
                record,
                probability,
                word_probabilities=None if words is None else words[row],
                times=None if decoded is None else decoded.times,
                seconds=acoustics.seconds,
                notes=notes,
                is_passage=len(windows_of_rows[row]) > 1,
            )
        found.scores.append(score)
        found.measured.append(measure(acoustics, record["expected_text"], decoded))
    return found


def _merge_evidence(
    ensemble: LoadedEnsemble, passages: Passages, evidence: Mapping[int, DecoderEvidence]
) -> dict[int, DecoderEvidence]:
    """Return a decoder's evidence of each row, times in s of its recording at its own speed."""
    if not evidence:
        return {}
    source = passages.source.with_speeds(ensemble.speed_by_grade)
    times = {
        number: each.times * source.speed_of(number)
        for number, each in evidence.items()
        if each.times is not None
    }
    merged, by_row = {}, passages.by_row()
    for row, of_row in passages.merge_times(times).items():
        windows = [evidence[number] for number in by_row[row]]
        # Speech in one window is enough.
        merged[row] = DecoderEvidence(
            sum(each.n_words for each in windows),
            min(each.no_speech for each in windows),
            min(each.surprise for each in windows),
            max(each.confidence for each in windows),
            windows[0].is_multilingual,
            of_row,
        )
    return merged


def _describe_unmatched(part: Segment) -> str:
    """Return the note on a part of a recording in which none of the text is recognised."""
    start, stop = part.start / SAMPLE_RATE, part.stop / SAMPLE_RATE
    return f"nothing of the text is recognised from {start:.0f} to {stop:.0f} s"


def _describe_unread(passages: Passages, row: int, windows: Sequence[int]) -> list[str]:
    """Return a note on each run of words of a row's text that none of its `windows` has."""
    n_words = len(passages.original.texts[row].split())
    runs = [run for number in windows for run in passages.windows[number].runs]
    edges = [0, *(edge for run in runs for edge in (run.start, run.stop)), n_words]
    notes = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if start < stop:
            is_one = stop == start + 1
            which = f"word {start + 1}" if is_one else f"words {start + 1} to {stop}"
            verb = "is" if is_one else "are"
            notes.append(f"{which} of {n_words} of the text {verb} not recognised")
    return notes


def _word_probabilities(ensemble: LoadedEnsemble, log_odds: np.ndarray | None) -> np.ndarray | None:
    """Return the words' probabilities, (rows, positions), padded; None without such a model."""
    calibration = ensemble.config.words
    if calibration is None or log_odds is None:
        return None
    return said_probabilities(calibration.apply(log_odds))
