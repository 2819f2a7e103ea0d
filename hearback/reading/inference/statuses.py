"""What infer.py says about recordings beside their scores."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.data.problems import Problem, Report
from hearback.reading.inference.folds import EnsembleFold
from hearback.reading.inference.scoring_data import ScoringData
from hearback.reading.scoring import statistics, status
from hearback.reading.scoring.acoustics import clipped_share, is_tone
from hearback.reading.scoring.decoder_evidence import DecoderEvidence
from hearback.reading.scoring.faults import find_clipped, find_no_reading
from hearback.reading.scoring.status import Fault


def find_statuses(
    data: ScoringData,
    probabilities: np.ndarray,
    evidence: Mapping[int, DecoderEvidence],
    table: Path,
    report: Report,
) -> list[str]:
    """Return the status of each usable row, (rows,); those that are not "ok" or "unsure" warn.

    `probabilities`, (rows,), are NaN for rows without a score. A warning changes no score.
    `evidence` is that of `EnsembleRun`.
    """
    found = []
    for row, record in enumerate(data.usable.to_dict("records")):
        recording = data.source.store.get(record["filename"])
        n_words = len(record["expected_text"].split())
        fault = _find_fault(recording, n_words, float(probabilities[row]), evidence.get(row))
        if fault is None:
            found.append(status.of_probability(float(probabilities[row])))
            continue
        where = (record["filename"], fault.status)
        report.add(Problem(str(table), record["line"], fault.what, fault.cure, "warning", *where))
        found.append(fault.status)
    return found


def _find_fault(
    recording: np.ndarray, n_words: int, probability: float, evidence: DecoderEvidence | None
) -> Fault | None:
    """Return the fault of a recording, (n,) at 16 kHz, of a text of `n_words`; None without one."""
    if probability < 0.5:  # what was recognised is English
        seconds = len(recording) / SAMPLE_RATE
        fault = find_no_reading(seconds, n_words, is_tone(recording), evidence)
        if fault is not None:
            return fault._replace(cure=f"{fault.cure}; the score stays")
    return find_clipped(clipped_share(recording))


def report_unlike(
    assets: Path, folds: Sequence[EnsembleFold], data: ScoringData, table: Path, report: Report
) -> None:
    """Report recordings that are unlike those of the training, and models of synthetic voices."""
    report_statistics(assets, folds, lambda: statistics.describe(data.source), table, report)


def report_statistics(
    assets: Path,
    folds: Sequence[EnsembleFold],
    describe: Callable[[], statistics.Statistics],
    table: Path,
    report: Report,
) -> None:
    """Report how recordings with the statistics of `describe` are unlike those of the training."""
    training = statistics.read_training_statistics(assets, folds)
    if training is None:
        return
    own = describe()
    if training.get("synthetic") and own["synthetic"]:
        print(f"Note: {statistics.SYNTHETIC}")
    for what in statistics.warnings(own, training):
        report.add(Problem(str(table), None, what, statistics.CURE, "warning"))
