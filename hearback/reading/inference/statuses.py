"""What infer.py says about recordings beside their scores."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hearback.engine.data.problems import Problem, Report
from hearback.reading.inference.folds import EnsembleFold
from hearback.reading.inference.scoring_data import ScoringData
from hearback.reading.scoring import statistics, status
from hearback.reading.scoring.acoustics import clipped_share, is_tone
from hearback.reading.scoring.listening import DecoderEvidence
from hearback.reading.scoring.scores import (
    CLIPPED_CURE,
    MAX_CLIPPED_SHARE,
    describe_clipped,
    not_english,
)


def find_statuses(
    data: ScoringData,
    probabilities: np.ndarray,
    evidence: Mapping[int, DecoderEvidence],
    table: Path,
    report: Report,
) -> list[str]:
    """Return the status of each usable row, (rows,); those that are not "ok" or "unsure" warn.

    `probabilities`, (rows,), are NaN for rows without a score; they keep their scores all the same.
    `evidence` is that of `EnsembleRun`.
    """
    found = []
    for row, record in enumerate(data.usable.to_dict("records")):
        recording = data.source.store.get(record["filename"])
        why, what, cure = _find_fault(recording, float(probabilities[row]), evidence.get(row))
        if why is not None:
            where = (record["filename"], why)
            report.add(Problem(str(table), record["line"], what, cure, "warning", *where))
        found.append(why or status.of_probability(float(probabilities[row])))
    return found


def _find_fault(
    recording: np.ndarray, probability: float, evidence: DecoderEvidence | None
) -> tuple[str | None, str, str]:
    """Return the status, the fault and the cure of a recording; the status None without one."""
    if probability < 0.5:  # what was recognised is English
        why, reason = not_english(is_tone(recording), evidence)
        if why is not None:
            what, _, cure = str(reason).partition("; ")
            return why, what, f"{cure}; the score stays"
    share = clipped_share(recording)
    if share > MAX_CLIPPED_SHARE:
        return status.CLIPPED, describe_clipped(share), CLIPPED_CURE
    return None, "", ""


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
    learned = statistics.read_learned(assets, folds)
    if learned is None:
        return
    own = describe()
    if learned.get("synthetic") and own["synthetic"]:
        print(f"Note: {statistics.SYNTHETIC}")
    for what in statistics.warnings(own, learned):
        report.add(Problem(str(table), None, what, statistics.CURE, "warning"))
