"""What `infer.py --launcher ray` costs its first process, by number of rows, and its workers.

    nice python -m benchmarks.scale_cluster --work scale --rows 62500 250000 1000000
    nice python -m benchmarks.scale_cluster --work scale --measure demo

The first command needs no recordings, models or Ray: the table has the texts of `benchmarks.scale`
and as many rows as asked for, and the workers are simulated (`SimulatedPool`): what they would
return is made up, but as large as from an ensemble of ten models with six folds each, two of which
score words. All else is infer.py's own code. Every fiftieth row has a warning. For comparison, one
run only reads the table.

The second command runs a true worker, with one thread, on the test recordings of a folder that
`make demo` has made, and prints its CPU seconds a row.
"""

import argparse
import math
import pickle
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale import EVERY_8_KHZ, ROOT, Cost, memory_of, simulate_table
from hearback.engine import cli
from hearback.engine.data.problems import Problem, Report
from hearback.engine.data.tables import write_table
from hearback.engine.errors import HearbackError
from hearback.engine.io import write_json

SIZES = [62_500, 250_000, 1_000_000]
N_WORKERS = 64
FOLDS_OF_MODELS = {f"modelsim{number}": 6 for number in range(10)}
WORD_MODELS = 2  # the first ones
N_FORMATS = 3
SAMPLES = (16_000, 64_000)  # of a recording
STEP_SAMPLES = 4_000  # of the window lengths
BATCH_SECONDS = 512.0  # a GPU's
READ, SCORE = "read the table", "infer.py --launcher ray"


class SimulatedPool:
    """Answers as `WorkerPool` with the workers of an ensemble, without recordings and models."""

    def __init__(self, *_: object, **__: object) -> None:
        self.n_workers = N_WORKERS
        self._rng = np.random.default_rng(0)

    def call(self, method: str, argument: Any = None) -> Any:  # noqa: ANN401  (as WorkerPool)
        """Return what a worker would."""
        ((_, result),) = self.map(method, [argument])
        return result

    def map(self, method: str, arguments: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield each argument, which is pickled as to be sent, and what a worker would return."""
        for argument in arguments:
            payload = pickle.dumps(argument, protocol=pickle.HIGHEST_PROTOCOL)
            yield argument, getattr(self, f"_{method}")(pickle.loads(payload))

    def close(self) -> None:
        """Do nothing."""

    def _plan(self, _: None) -> Any:  # noqa: ANN401  (here: see below)
        from hearback.reading.inference.cluster.shards import (  # noqa: PLC0415
            EnsemblePlan,
            InputFormat,
        )

        folds = np.array_split(np.arange(sum(FOLDS_OF_MODELS.values())), N_FORMATS)
        formats = tuple(InputFormat(tuple(of.tolist()), BATCH_SECONDS, True) for of in folds)
        return EnsemblePlan(formats, False, False, False, 200)

    def _decode(self, chunk: Any) -> Any:  # noqa: ANN401
        from hearback.reading.inference.cluster.shards import Decoded  # noqa: PLC0415

        n_rows = len(chunk.metadata)
        n_samples = self._rng.integers(*SAMPLES, n_rows)
        windows = -(-n_samples // STEP_SAMPLES) * STEP_SAMPLES
        warnings = [
            Problem("test", row["line"], "8 kHz", "none", "warning", row["filename"])
            for row in chunk.metadata.to_dict("records")
            if row["line"] % EVERY_8_KHZ == 0
        ]
        return Decoded(
            np.arange(n_rows),
            f"{chunk.number}.pcm",
            np.cumsum(n_samples) - n_samples,
            n_samples,
            np.tile(windows, (N_FORMATS, 1)).astype(np.int32),
            [],
            warnings,
            [],
        )

    def _fit(self, folds: tuple[int, ...]) -> tuple[int, str]:
        return len(folds), f"{len(folds)} folds"

    def _score(self, shard: Any) -> Any:  # noqa: ANN401
        from hearback.reading.inference.cluster.shards import (  # noqa: PLC0415
            N_EVIDENCE,
            ShardScores,
        )

        models = [name for name, n in FOLDS_OF_MODELS.items() for _ in range(n)]
        parts = []
        for name in dict.fromkeys(models[fold] for fold in shard.group.folds):
            scores_words = list(FOLDS_OF_MODELS).index(name) < WORD_MODELS
            n_values = 1 + 2 * shard.n_positions * scores_words
            parts.append((name, self._rng.random((len(shard.rows), n_values))))
        shape = (len(shard.rows), N_EVIDENCE)
        evidence = self._rng.random(shape) if shard.group.collects_evidence else None
        return ShardScores(parts, evidence)

    def _check(self, scored: Any) -> tuple[list[str], list[Problem], bool]:  # noqa: ANN401
        return ["ok"] * len(scored.stored), [], False

    def _describe(self, _: object) -> tuple[str, list[Problem]]:
        return "", []

    def _write_words(self, rows: Any) -> tuple[str, int]:  # noqa: ANN401
        metadata = rows.metadata
        words = [
            f"{name},{position},{word},{word},0.1234567890123456,ok\n"
            for name, text in zip(metadata["filename"], metadata["expected_text"], strict=True)
            for position, word in enumerate(text.split())
        ]
        header = "" if rows.number else "filename,position,word,written,score,status\n"
        return header + "".join(words), len(words)


def main() -> None:
    """Simulate or measure, and print the table."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--work", type=Path, default=Path("scale"), help="folder for all files; 6 GB a million")
    add("--rows", type=int, nargs="+", default=SIZES, help="numbers of rows")
    add("--measure", type=Path, metavar="DEMO", help="folder of make demo: measure a worker there")
    add("--step", choices=(READ, SCORE), help=argparse.SUPPRESS)  # internal: in this process
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(measure_worker(arguments.measure, arguments.work.absolute()))
    elif arguments.step is not None:
        simulate(arguments.step, arguments.work)
        if "torch" in sys.modules:
            raise HearbackError("the process that writes the tables has imported torch")
    else:
        costs = []
        for n_rows in sorted(arguments.rows):
            folder = arguments.work.absolute() / f"cluster{n_rows}"
            write_data(folder, n_rows)
            costs += [run(step, n_rows, folder) for step in (READ, SCORE)]
        print(report(costs))


def write_data(folder: Path, n_rows: int) -> None:
    """Write a test table without its recordings, and an ensemble without its models."""
    from hearback.engine.ensemble.calibration import Line  # noqa: PLC0415  (adds to the memory)
    from hearback.engine.ensemble.config import ModelConfig  # noqa: PLC0415
    from hearback.reading.ensemble import EnsembleConfig  # noqa: PLC0415
    from hearback.reading.word_calibration import WordCalibration  # noqa: PLC0415

    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "assets").mkdir(exist_ok=True)
    table = simulate_table(n_rows, seed=0)
    write_table(table.drop(columns="score"), folder / "data" / "test_metadata.csv")
    placeholder = table[["filename"]].assign(score=0.0)
    write_table(placeholder, folder / "data" / "submission_format.csv")
    weight = 1 / len(FOLDS_OF_MODELS)
    models = tuple(
        ModelConfig(name, tuple(range(n)), weight) for name, n in FOLDS_OF_MODELS.items()
    )
    words = WordCalibration(tuple(FOLDS_OF_MODELS)[:WORD_MODELS], Line(), Line())
    EnsembleConfig(models, None, {"all": 0.5}, {}, 1, "logits", words=words, words_weight=0.3).save(
        folder / "model_configs.json"
    )


def simulate(step: str, folder: Path) -> None:
    """Run a step in this process; afterwards write what the table takes in memory."""
    from hearback.reading.inference.outputs import read_rows  # noqa: PLC0415

    if step == READ:
        metadata, _ = read_rows(folder / "data", Report())
        table = int(metadata.memory_usage(deep=True, index=True).sum())
        write_json(folder / "table.json", {"bytes": table})
        time.sleep(0.5)  # to be measured
        return
    write_submission(SimulatedPool, "simulated", inputs=folder, work=folder)


def write_submission(
    pool: type[SimulatedPool],
    address: str,
    *,
    inputs: Path,
    work: Path,
    n_cpus: float | None = None,
) -> None:
    """Score a test table as `infer.py --launcher ray` does, with `pool` for the cluster's workers.

    `inputs` holds the tables, recordings, references, folds and configuration; the store, the
    submission and the words' scores are written into `work`. `address` and `n_cpus` are those of
    the cluster.
    """
    from hearback.reading.inference.cluster import run as cluster_run  # noqa: PLC0415
    from hearback.reading.inference.outputs import InferenceOptions  # noqa: PLC0415

    cluster_run.WorkerPool = pool  # type: ignore[misc,assignment]
    cluster_run.check_folds = lambda options: None  # the simulated workers need none
    options = InferenceOptions(
        data=inputs / "data",
        tts_data=inputs / "tts_data",
        store=work / "store",
        assets=inputs / "assets",
        config=inputs / "model_configs.json",
        submission=work / "submission.csv",
        device="cpu",
        workers=0,
        words=work / "word_scores.csv",
    )
    cluster_run.write_submission(options, address, n_cpus=n_cpus)


def run(step: str, n_rows: int, folder: Path) -> Cost:
    """Run a step in a process of its own and measure it."""
    import os  # noqa: PLC0415

    command = [sys.executable, "-m", "benchmarks.scale_cluster"]
    command += ["--work", str(folder), "--step", step]
    started = time.monotonic()
    with (folder / "steps.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        with memory_of(process.pid) as peak:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise HearbackError(f"{step} ended with {process.returncode}: see {log.name}")
    wall, cpu = time.monotonic() - started, usage.ru_utime + usage.ru_stime
    cost = Cost(step, n_rows, wall, cpu, peak["own"] / 1e6, peak["file"] / 1e6)
    print(f"{step}, {n_rows} rows: {cpu:.1f} CPU s, {cost.own_megabytes:.0f} MB", flush=True)
    return cost


def report(costs: list[Cost]) -> str:
    """Return the costs as a Markdown table, with their growth between numbers of rows."""
    lines = [
        "| step | rows | seconds | CPU seconds | own MB | MB of files | bytes/row more | growth |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    previous: Mapping[str, Cost] = {}
    for cost in sorted(costs, key=lambda cost: (cost.step, cost.rows)):
        more = growth = ""
        if before := previous.get(cost.step):
            n_bytes = 1e6 * (cost.own_megabytes - before.own_megabytes)
            more = f"{n_bytes / (cost.rows - before.rows):.0f}"
            slope = math.log(cost.cpu_seconds / before.cpu_seconds)
            growth = f"{slope / math.log(cost.rows / before.rows):.2f}"
        previous = {**previous, cost.step: cost}
        lines.append(
            f"| {cost.step} | {cost.rows} | {cost.wall_seconds:.1f} | {cost.cpu_seconds:.1f} | "
            f"{cost.own_megabytes:.0f} | {cost.file_megabytes:.0f} | {more} | {growth} |"
        )
    return "\n".join(lines)


def measure_worker(demo: Path, work: Path) -> str:
    """Return a worker's CPU seconds a row on the test recordings of `make demo`, by task."""
    from hearback.reading.inference.cluster.worker import ClusterWorker  # noqa: PLC0415

    work.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    n_rows = 0

    class OneWorker(SimulatedPool):
        """One true worker in this process, whose time is measured."""

        def __init__(self, *_: object, arguments: tuple[Any, ...], **__: object) -> None:
            self.n_workers = 1
            options, gpu_share = arguments
            self.worker = ClusterWorker(options, gpu_share, 1.0)

        def map(self, method: str, arguments: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
            nonlocal n_rows
            for argument in arguments:
                started = time.process_time()
                result = getattr(self.worker, method)(argument)
                spent = time.process_time() - started
                seconds[method] = seconds.get(method, 0.0) + spent
                n_rows += len(argument.metadata) if method == "decode" else 0
                yield argument, result

    write_submission(OneWorker, "measured", inputs=demo, work=work, n_cpus=1.0)
    of_rows = ("decode", "score", "check", "write_words")
    lines = [f"| {method} | {1000 * seconds[method] / n_rows:.1f} |" for method in of_rows]
    total = sum(seconds[method] for method in of_rows) / n_rows
    head = ["| task | CPU ms a row |", "| --- | ---: |"]
    last = f"{n_rows} rows: {1 / total:.1f} rows a CPU second; loading: {seconds['fit']:.1f} CPU s"
    return "\n".join([*head, *lines, "", last])


if __name__ == "__main__":
    cli.run(main)
