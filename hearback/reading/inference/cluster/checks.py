"""What is said about scored rows, and the words' table, from the workers of a cluster."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hearback.engine.data.problems import Problem, Report
from hearback.engine.io import atomic_write
from hearback.engine.launch.pool import WorkerPool
from hearback.reading.inference.cluster.shards import (
    CHUNK_ROWS,
    EnsemblePlan,
    ScoredRows,
    StoredRows,
    WordRows,
    slices,
)
from hearback.reading.inference.cluster.sums import EnsembleSums
from hearback.reading.scoring.status import STATUSES


def check_rows(
    pool: WorkerPool,
    stored: StoredRows,
    *,
    probabilities: np.ndarray,
    evidence: np.ndarray,
    plan: EnsemblePlan,
    report: Report,
) -> np.ndarray:
    """Return the status of each row, (rows,) uint8 in `STATUSES`; report what is to be reported.

    Args:
        pool: the workers.
        stored: the rows.
        probabilities: (rows,).
        evidence: (rows, N_EVIDENCE), as in `ShardScores`.
        plan: the ensemble's folds.
        report: receives the problems, in the order of one process.
    """
    statuses = np.zeros(len(stored), dtype=np.uint8)  # names would be 100 bytes each
    found: dict[int, list[Problem]] = {}
    all_synthetic = len(stored) > 0

    def parts() -> Iterator[ScoredRows]:
        for rows in slices(len(stored), CHUNK_ROWS):
            own = stored.take(np.arange(rows.start, rows.stop))
            yield ScoredRows(rows.start, own, probabilities[rows], np.array(evidence[rows]))

    with tqdm(total=len(stored), desc="checking", unit="clip") as bar:
        for part, (of_rows, problems, is_synthetic) in pool.map("check", parts()):
            numbers = list(map(STATUSES.index, of_rows))
            statuses[part.start : part.start + len(part.stored)] = numbers
            found[part.start] = problems
            all_synthetic = all_synthetic and is_synthetic
            bar.update(len(part.stored))
    for start in sorted(found):
        report.extend(found[start])
    # The rows that one process would measure (`statistics.describe`).
    n_measured = min(len(stored), plan.n_measured)
    measured = np.linspace(0, len(stored) - 1, n_measured).round().astype(int)
    printed, problems = pool.call("describe", (stored.take(measured), all_synthetic))
    print(printed, end="")
    report.extend(problems)
    return statuses


def write_words(
    pool: WorkerPool,
    path: Path,
    *,
    stored: StoredRows,
    scored: np.ndarray,
    sums: EnsembleSums,
    statuses: np.ndarray,
) -> None:
    """Write a line for every word of the texts of the `scored` rows, in their order.

    `statuses`, (rows,), are those of `check_rows`.
    """
    if len(scored) and sums.mean_words(scored[:1]) is None:
        path.unlink(missing_ok=True)  # delete the file of an earlier run: it has other scores
        print(f"{path} is NOT WRITTEN: no model scored words")
        return
    names = stored.metadata["filename"].iloc[scored]
    quotes_texts = bool(names.str.contains("\r", regex=False).any())  # as `write_table`

    def parts() -> Iterator[WordRows]:
        for number, part in enumerate(slices(max(1, len(scored)), CHUNK_ROWS)):
            rows = scored[part]
            metadata = stored.metadata.iloc[rows].reset_index(drop=True)
            log_odds = sums.mean_words(rows)
            assert log_odds is not None
            of_rows = [STATUSES[status] for status in statuses[rows]]
            yield WordRows(number, metadata, log_odds, of_rows, quotes_texts)

    n_words, following = 0, 0
    waiting: dict[int, str] = {}  # lines of parts that came before earlier ones
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        for part, (lines, n_lines) in pool.map("write_words", parts()):
            waiting[part.number] = lines
            n_words += n_lines
            while following in waiting:
                file.write(waiting.pop(following))
                following += 1
    print(f"wrote {path}: {n_words} words of {len(scored)} rows")
