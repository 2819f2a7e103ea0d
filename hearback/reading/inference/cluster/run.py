"""infer.py on a Ray cluster: plan, share out, collect, write. Without torch.

What this process holds grows with the rows only by their table and some numbers for each.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from hearback.engine.data.filenames import match_names
from hearback.engine.data.problems import Report, count_noun
from hearback.engine.errors import HearbackError
from hearback.engine.launch.pool import WorkerPool, WorkerResources
from hearback.engine.launch.processes import ROOT
from hearback.engine.locks import exclusive_lock
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.cluster.checks import check_rows, write_words
from hearback.reading.inference.cluster.scoring import ShardScoring
from hearback.reading.inference.cluster.shards import EnsemblePlan
from hearback.reading.inference.cluster.usable import decode_rows
from hearback.reading.inference.outputs import (
    FOLDS,
    InferenceOptions,
    SubmissionRows,
    check_folds,
    check_outputs,
    read_rows,
    skip_tables,
    submit,
    write_submission_table,
)

WORKER = "hearback.reading.inference.cluster.worker:ClusterWorker"


def write_submission(
    options: InferenceOptions,
    address: str,
    *,
    n_cpus: float | None = None,
    gpu_share: float = 0.0,
    n_workers: int | None = None,
) -> None:
    """Score the test recordings on a cluster and write the tables that one process would write.

    They are equal to the byte if the workers' hardware, libraries and number of threads are equal
    to those of that process, and the models that fit in memory together.

    Args:
        options: those of infer.py, without a time limit and divergences.
        address: of the cluster (`cluster.RayLauncher`).
        n_cpus: processors and threads of a worker (None: see `pool.WorkerResources`).
        gpu_share: share of a GPU.
        n_workers: number of workers (None: as many as the machines can hold).

    Raises HearbackError as `submission.write_submission` does, without a cluster, and if another
    run on a cluster uses the same store.
    """
    if options.time_limit is not None:
        raise HearbackError("--time_limit: only with --launcher local; add workers instead")
    if options.divergences is not None:
        raise HearbackError("--divergences: only with --launcher local, for another pass")
    check_outputs(options)
    check_folds(options)  # before there are workers
    with _lock_store(options.store):
        _write_tables(options, address, WorkerResources(n_cpus, gpu_share, n_workers))


def _write_tables(options: InferenceOptions, address: str, resources: WorkerResources) -> None:
    """Open the workers, and write the tables."""
    needed = [ROOT, options.data, options.assets, options.config]
    if options.tts_data.exists():  # token scorers need none
        needed.append(options.tts_data)
    pool = WorkerPool(
        address,
        factory=WORKER,
        arguments=(options, resources.gpu_share),
        shared=options.store,
        needed=needed,
        resources=resources,
    )
    with closing(pool):
        submit(options, lambda config, report: _score_and_write(options, pool, config, report))


def _score_and_write(
    options: InferenceOptions, pool: WorkerPool, config: EnsembleConfig, report: Report
) -> None:
    """Score the test recordings; write the submission and the words' table, if it is asked for."""
    plan: EnsemblePlan = pool.call("plan")
    metadata, order = read_rows(options.data, report)
    usable = decode_rows(pool, options, metadata, plan, report)
    names = match_names(order, metadata["filename"].tolist())
    tasks = dict(zip(metadata["filename"], metadata["task"], strict=True))
    rows = SubmissionRows(order, tasks, names)
    stored = usable.stored
    with _folder_beside(options.submission) as folder:
        sums = ShardScoring(pool, config, usable, plan, folder, options.store).run()
        probabilities = sums.predict(stored.metadata["grade"].to_numpy(dtype=str))
        if plan.corrects_longer:
            n_words = np.array([len(text.split()) for text in usable.texts], dtype=np.int64)
            probabilities = pool.call("correct", (probabilities, stored.n_samples, n_words))
        options.submission.with_name(FOLDS).unlink(missing_ok=True)  # of an earlier run
        row_of = {name: row for row, name in enumerate(stored.metadata["filename"])}
        scored = write_submission_table(options.submission, config, rows, row_of, probabilities)
        statuses = check_rows(
            *(pool, stored),
            probabilities=probabilities,
            evidence=sums.evidence,
            plan=plan,
            report=report,
        )
        if options.words is not None and config.words is not None:
            in_order = np.array(scored, dtype=np.int64)
            write_words(
                *(pool, options.words),
                stored=stored,
                scored=in_order,
                sums=sums,
                statuses=statuses,
            )
            if n_missing := len(order) - len(scored):
                lacked = count_noun(n_missing, "row")
                print(f"{options.words} lacks {lacked} that could not be scored")
    words = "no model that scores words" if config.words is None else None
    skip_tables(options, report, words=words, divergences=None)


@contextmanager
def _lock_store(store: Path) -> Iterator[None]:
    """Lock the store against other runs on a cluster, for the block.

    Their chunks have the same names, and would replace each other's files. Raises HearbackError if
    another process holds the lock.
    """
    path = store / ".cluster.lock"
    cure = "the cluster's decoded recordings are there: choose a writable folder with --store"
    busy = (
        "another infer.py --launcher ray uses this store; wait for it, or choose another folder "
        "with --store"
    )
    with exclusive_lock(path, cure, busy):
        yield


@contextmanager
def _folder_beside(submission: Path) -> Iterator[Path]:
    """Make a folder for the sums, for the block: elsewhere may be only memory."""
    folder = Path(tempfile.mkdtemp(prefix=".sums-", dir=submission.absolute().parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
