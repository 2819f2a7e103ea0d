"""Soak test: stop train.py, and kill workers of a Ray cluster, at random times; check the results.

    python -m tests.soak.soak_launch --n 40 --seed 0

Two parts, on toy data and a tiny Whisper with random weights (`tests.toy`), with half of the kills
each:

stop     train.py --jobs 2 receives SIGKILL, SIGTERM or SIGINT, a few times in a row; each time all
         of its trainings must end. Then it runs to its end.
workers  train.py --launcher ray on a local cluster of two nodes with a processor each; the worker
         of a training is killed, and another must take over. Needs Ray.

Finally, all folds must be trained, with the predictions of an undisturbed run, byte for byte. Exits
with status 1 if they are not, or if a process survived. Reads /proc, so it needs Linux.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hearback.engine import cli
from hearback.engine.io import sha256_of
from hearback.engine.launch.cluster import MAX_ATTEMPTS, import_ray
from hearback.engine.project import ROOT
from tests import toy

MODEL, N_FOLDS, N_EPOCHS, N_CLIPS = "model2ds", 3, 12, 72
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MAX_STOPS = 4  # in a row, before a run may finish
MAX_KILLS = MAX_ATTEMPTS - 1  # in one run: it could be one fold's worker each time
SECONDS_TO_END = 10.0  # for child processes of a dead process


class LostError(Exception):
    """A disturbed run did not give the undisturbed result."""


@dataclass(frozen=True)
class Setup:
    """The folders before training, and the result and duration of an undisturbed run."""

    before: Path
    result: dict[str, str]
    seconds: float

    @contextmanager
    def fresh(self, folder: Path) -> Iterator[Path]:
        """Copy the folders to `folder` for the block, then remove them."""
        shutil.copytree(self.before, folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def check(self, process: "subprocess.Popen[str]", folder: Path) -> str:
        """Wait for a run and return its output. Raises LostError if it fails or differs."""
        output, _ = process.communicate()
        if process.returncode:
            raise LostError(f"exit status {process.returncode}: {output[-2000:]}")
        if predictions(folder) != self.result:
            raise LostError("predictions differ from the undisturbed run")
        return output


def begin(folder: Path, *flags: str) -> "subprocess.Popen[str]":
    """Start train.py on a setup's folders."""
    names = ("data", "tts_data", "store", "assets", "runs")
    command = [sys.executable, "train.py", *flags, "--models", MODEL]
    command += [part for name in names for part in (f"--{name}", str(folder / name))]
    command += ["--backbone", str(folder / "backbone"), "--preset", "small", "--device", "cpu"]
    command += ["--n_folds", str(N_FOLDS), "--epochs", str(N_EPOCHS), "--precision", "float32"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def predictions(folder: Path) -> dict[str, str]:
    """Return the digests of the folds' predictions, by name."""
    return {path.name: sha256_of(path) for path in (folder / "assets").glob("*.oof.csv")}


def make_setup(work: Path, rng: np.random.Generator) -> Setup:
    """Write the folders, and train undisturbed on a copy of them."""
    before, folder = work / "before", work / "undisturbed"
    toy.make_corpus(before, N_CLIPS, rng)
    toy.make_backbone(before / "backbone")
    shutil.copytree(before, folder)
    started = time.monotonic()
    output, _ = begin(folder, "--jobs", "2").communicate()
    result = predictions(folder)
    if len(result) != N_FOLDS:
        raise LostError(f"the undisturbed run failed: {output[-2000:]}")
    return Setup(before, result, time.monotonic() - started)


def trainings(folder: Path) -> dict[int, int]:
    """Return the process ids of trainings on a folder, with their parents'."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text()
            status = (process / "status").read_text()
        except OSError:  # it has ended
            continue
        if f"train_{MODEL}.py" in command and str(folder) in command:
            parent = status.partition("\nPPid:\t")[2].split()[0]
            found[int(process.name)] = int(parent)
    return found


def stop(setup: Setup, work: Path, n_kills: int, rng: np.random.Generator) -> str:
    """Stop train.py `n_kills` times; return a summary."""
    killed = finished = with_trainings = 0
    bar = tqdm(total=n_kills, desc="stop", unit="kill")
    while killed < n_kills:
        with setup.fresh(work / "stopped") as folder:
            for _ in range(min(int(rng.integers(1, MAX_STOPS + 1)), n_kills - killed)):
                process = begin(folder, "--jobs", "2")
                try:
                    process.wait(rng.uniform(0, setup.seconds))
                except subprocess.TimeoutExpired:
                    with_trainings += bool(trainings(folder))
                    process.send_signal(SIGNALS[rng.integers(len(SIGNALS))])
                    process.communicate()
                    _check_all_ended(folder)
                    killed += 1
                    bar.update()
                else:
                    setup.check(process, folder)  # faster than the undisturbed run
                    break
            setup.check(begin(folder, "--jobs", "2"), folder)
            finished += 1
    bar.close()
    return f"{killed} stops, {with_trainings} during trainings; {finished} runs finished"


def _check_all_ended(folder: Path) -> None:
    until = time.monotonic() + SECONDS_TO_END
    while left := trainings(folder):
        if time.monotonic() > until:
            raise LostError(f"processes still alive: {sorted(left)}")
        time.sleep(0.05)


def kill_workers(setup: Setup, work: Path, n_kills: int, rng: np.random.Generator) -> str:
    """Kill a cluster's workers `n_kills` times; return a summary."""
    import_ray()
    from ray.cluster_utils import Cluster

    machine: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    head = {**machine, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(**machine)
    killed = resubmitted = finished = resumed = 0
    bar = tqdm(total=n_kills, desc="workers", unit="kill")
    try:
        while killed < n_kills:
            with setup.fresh(work / "cluster") as folder:
                process = begin(folder, "--launcher", "ray", "--address", cluster.address)
                here = _kill_some(process, folder, min(MAX_KILLS, n_kills - killed), setup, rng)
                killed += here
                bar.update(here)
                resubmitted += setup.check(process, folder).count("lost its worker")
                logs = (folder / "runs").glob("*.log")
                resumed += sum(log.read_text().count("resumes after") for log in logs)
                finished += 1
    finally:
        bar.close()
        cluster.shutdown()
    return (
        f"{killed} kills, {resubmitted} trainings submitted again, {resumed} of them resumed; "
        f"{finished} runs finished as undisturbed"
    )


def _kill_some(
    process: "subprocess.Popen[str]",
    folder: Path,
    max_kills: int,
    setup: Setup,
    rng: np.random.Generator,
) -> int:
    """Kill up to `max_kills` workers of a run until it ends; return their number."""
    killed = 0
    while killed < max_kills and process.poll() is None:
        time.sleep(rng.uniform(0, setup.seconds / 3))
        # A training whose worker was killed is reparented until it ends.
        if workers := sorted(filter(_is_worker, set(trainings(folder).values()))):
            os.kill(int(rng.choice(workers)), signal.SIGKILL)
            killed += 1
    return killed


def _is_worker(process: int) -> bool:
    try:
        return "ray::" in Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return False


PARTS: dict[str, Callable[[Setup, Path, int, np.random.Generator], str]] = {
    "stop": stop,
    "workers": kill_workers,
}


def main() -> int:
    """Run the parts, print the table, and return 1 if anything was lost."""
    parser = cli.parser(__doc__)
    parser.add_argument("--n", type=int, default=40, help="number of kills of both parts together")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
    parser.add_argument("--work", type=Path, default=Path("soak/launch"), help="folder to work in")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)
    work = arguments.work.resolve()
    rng = np.random.default_rng(arguments.seed)
    setup = make_setup(work, rng)
    n_lost = 0
    for part in arguments.parts:
        try:
            summary = "kept  " + PARTS[part](setup, work, arguments.n // len(arguments.parts), rng)
        except LostError as error:
            n_lost += 1
            summary = f"LOST  {error}"
        tqdm.write(f"{part:8} {summary}")
    if n_lost:
        return 1
    shutil.rmtree(arguments.work)
    return 0


if __name__ == "__main__":
    cli.run(main)
