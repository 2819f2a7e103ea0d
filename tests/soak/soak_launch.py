"""Stop train.py, and kill the workers of a Ray cluster, at random moments; nothing may be lost.

    python -m tests.soak.soak_launch --n 40 --seed 0

Two parts, on a toy data set and a tiny Whisper of random weights (`tests.toy`), half of the
kills for each:

stop     train.py --jobs 2 is sent SIGKILL, SIGTERM or SIGINT, a few times in a row; each time, none
         of its trainings may live on. Then it runs to its end.
workers  train.py --launcher ray on a cluster of two machines with a processor each, both here; the
         worker of a training is killed, which another must take up. Needs Ray.

In the end all folds must be trained, with the predictions of an undisturbed run, to the byte. Exit
status 1 where they are not, or a process lived on. Looks for processes in /proc: Linux.
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
from hearback.engine.launch.cluster import MOST_SENDS, import_ray
from tests import toy

HERE = Path(__file__).parents[1]
MODEL, N_FOLDS, N_EPOCHS, N_CLIPS = "model2ds", 3, 12, 72
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MOST_STOPS = 4  # in a row, before a run may end
MOST_KILLS = MOST_SENDS - 1  # in one run: it could be one fold's worker each time
SECONDS_TO_END = 10.0  # for what was started by a process that is gone


class LostError(Exception):
    """A run, disturbed, did not do what it does undisturbed."""


@dataclass(frozen=True)
class World:
    """Folders to start from, and what train.py makes of them undisturbed."""

    before: Path
    result: dict[str, str]
    seconds: float

    @contextmanager
    def fresh(self, folder: Path) -> Iterator[Path]:
        """Give a copy of the folders, and remove it in the end."""
        shutil.copytree(self.before, folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def check(self, process: "subprocess.Popen[str]", folder: Path) -> str:
        """Wait for a run that must end well, and return its output; LostError where it does not."""
        output, _ = process.communicate()
        if process.returncode:
            raise LostError(f"exit status {process.returncode}: {output[-2000:]}")
        if predictions(folder) != self.result:
            raise LostError("other predictions than undisturbed")
        return output


def begin(folder: Path, *flags: str) -> "subprocess.Popen[str]":
    """Start train.py on a world's folders."""
    names = ("data", "tts_data", "store", "assets", "runs")
    command = [sys.executable, "train.py", *flags, "--models", MODEL]
    command += [part for name in names for part in (f"--{name}", str(folder / name))]
    command += ["--backbone", str(folder / "backbone"), "--preset", "small", "--device", "cpu"]
    command += ["--n_folds", str(N_FOLDS), "--epochs", str(N_EPOCHS), "--precision", "float32"]
    return subprocess.Popen(
        command,
        cwd=HERE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def predictions(folder: Path) -> dict[str, str]:
    """Return the digests of the folds' predictions, by name."""
    return {path.name: sha256_of(path) for path in (folder / "assets").glob("*.oof.csv")}


def make_world(work: Path, rng: np.random.Generator) -> World:
    """Make the folders, and train on a copy of them undisturbed."""
    before, folder = work / "before", work / "undisturbed"
    toy.make_corpus(before, N_CLIPS, rng)
    toy.make_backbone(before / "backbone")
    shutil.copytree(before, folder)
    started = time.monotonic()
    output, _ = begin(folder, "--jobs", "2").communicate()
    result = predictions(folder)
    if len(result) != N_FOLDS:
        raise LostError(f"not even undisturbed: {output[-2000:]}")
    return World(before, result, time.monotonic() - started)


def trainings(folder: Path) -> dict[int, int]:
    """Return the processes that train on a folder, each with its parent."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text()
            status = (process / "status").read_text()
        except OSError:  # it has ended meanwhile
            continue
        if f"train_{MODEL}.py" in command and str(folder) in command:
            parent = status.partition("\nPPid:\t")[2].split()[0]
            found[int(process.name)] = int(parent)
    return found


def stop(world: World, work: Path, n_kills: int, rng: np.random.Generator) -> str:
    """Stop train.py `n_kills` times; return what happened, in words."""
    killed = ends = with_trainings = 0
    bar = tqdm(total=n_kills, desc="stop", unit="kill")
    while killed < n_kills:
        with world.fresh(work / "stopped") as folder:
            for _ in range(min(int(rng.integers(1, MOST_STOPS + 1)), n_kills - killed)):
                process = begin(folder, "--jobs", "2")
                try:
                    process.wait(rng.uniform(0, world.seconds))
                except subprocess.TimeoutExpired:
                    with_trainings += bool(trainings(folder))
                    process.send_signal(SIGNALS[rng.integers(len(SIGNALS))])
                    process.communicate()
                    _check_none_is_left(folder)
                    killed += 1
                    bar.update()
                else:
                    world.check(process, folder)  # it was faster than undisturbed
                    break
            world.check(begin(folder, "--jobs", "2"), folder)
            ends += 1
    bar.close()
    return f"{killed} stops, {with_trainings} with trainings at it; {ends} ends as undisturbed"


def _check_none_is_left(folder: Path) -> None:
    until = time.monotonic() + SECONDS_TO_END
    while left := trainings(folder):
        if time.monotonic() > until:
            raise LostError(f"processes live on: {sorted(left)}")
        time.sleep(0.05)


def kill_workers(world: World, work: Path, n_kills: int, rng: np.random.Generator) -> str:
    """Kill a cluster's workers `n_kills` times; return what happened, in words."""
    import_ray()
    from ray.cluster_utils import Cluster  # noqa: PLC0415  (nothing else needs Ray)

    machine: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    head = {**machine, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(**machine)
    killed = sent_again = ends = went_on = 0
    bar = tqdm(total=n_kills, desc="workers", unit="kill")
    try:
        while killed < n_kills:
            with world.fresh(work / "cluster") as folder:
                process = begin(folder, "--launcher", "ray", "--address", cluster.address)
                here = _kill_some(process, folder, min(MOST_KILLS, n_kills - killed), world, rng)
                killed += here
                bar.update(here)
                sent_again += world.check(process, folder).count("lost its worker")
                logs = (folder / "runs").glob("*.log")
                went_on += sum(log.read_text().count("goes on after") for log in logs)
                ends += 1
    finally:
        bar.close()
        cluster.shutdown()
    return (
        f"{killed} kills, {sent_again} trainings sent again, {went_on} of them went on in midst; "
        f"{ends} ends as undisturbed"
    )


def _kill_some(
    process: "subprocess.Popen[str]",
    folder: Path,
    most: int,
    world: World,
    rng: np.random.Generator,
) -> int:
    """Kill workers of a run until it ends, `most` at most; return how many."""
    killed = 0
    while killed < most and process.poll() is None:
        time.sleep(rng.uniform(0, world.seconds / 3))
        # A training whose worker was killed belongs to another process until it is gone.
        if workers := sorted(filter(_is_worker, set(trainings(folder).values()))):
            os.kill(int(rng.choice(workers)), signal.SIGKILL)
            killed += 1
    return killed


def _is_worker(process: int) -> bool:
    try:
        return "ray::" in Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return False


PARTS: dict[str, Callable[[World, Path, int, np.random.Generator], str]] = {
    "stop": stop,
    "workers": kill_workers,
}


def main() -> int:
    """Run the parts, print the table, and return 1 where something was lost."""
    parser = cli.parser(__doc__)
    parser.add_argument("--n", type=int, default=40, help="kills, of both parts together")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
    parser.add_argument("--work", type=Path, default=Path("soak/launch"), help="folder to work in")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)
    work = arguments.work.resolve()
    rng = np.random.default_rng(arguments.seed)
    world = make_world(work, rng)
    n_lost = 0
    for part in arguments.parts:
        try:
            what = "kept  " + PARTS[part](world, work, arguments.n // len(arguments.parts), rng)
        except LostError as error:
            n_lost += 1
            what = f"LOST  {error}"
        tqdm.write(f"{part:8} {what}")
    if n_lost:
        return 1
    shutil.rmtree(arguments.work)
    return 0


if __name__ == "__main__":
    cli.run(main)
