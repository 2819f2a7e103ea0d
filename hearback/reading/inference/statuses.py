"""What infer.py says about recordings beside their scores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hearback.engine.data.problems import Problem, Report
from hearback.reading.inference.folds import EnsembleFold
from hearback.reading.inference.scoring_data import ScoringData
from hearback.reading.scoring import statistics, status
from hearback.reading.scoring.acoustics import clipped_share
from hearback.reading.scoring.scores import CLIPPED_CURE, MAX_CLIPPED_SHARE, describe_clipped


def find_statuses(
    data: ScoringData, probabilities: np.ndarray, table: Path, report: Report
) -> list[str]:
    """Return the status of each usable row, (rows,); clipped ones are reported as warnings.

    `probabilities`, (rows,), are NaN for rows without a score; they keep their scores all the same.
    """
    found = []
    for row, record in enumerate(data.usable.to_dict("records")):
        share = clipped_share(data.source.store.get(record["filename"]))
        if share > MAX_CLIPPED_SHARE:
            found.append(status.CLIPPED)
            what, where = describe_clipped(share), (record["filename"], status.CLIPPED)
            problem = Problem(str(table), record["line"], what, CLIPPED_CURE, "warning", *where)
            report.add(problem)
        else:
            found.append(status.of_probability(float(probabilities[row])))
    return found


def report_unlike(
    assets: Path, folds: Sequence[EnsembleFold], data: ScoringData, table: Path, report: Report
) -> None:
    """Report recordings that are unlike those of the training, and models of synthetic voices."""
    learned = statistics.read_learned(assets, folds)
    if learned is None:
        return
    own = statistics.describe(data.source)
    if learned.get("synthetic") and own["synthetic"]:
        print(f"Note: {statistics.SYNTHETIC}")
    for what in statistics.warnings(own, learned):
        report.add(Problem(str(table), None, what, statistics.CURE, "warning"))
