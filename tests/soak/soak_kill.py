"""Soak test: kill every step at random times, run it again, and check that nothing is lost.

    python -m tests.soak.soak_kill --n 100 --seed 0

Three parts, each on copies of a small data set (the embedded sample, whisper-tiny.en):

kill   SIGKILL a step and all its processes at a random time, a few times in a row; then run it to
       its end. Its outputs must equal those of an undisturbed run, byte for byte (metadata without
       times, the store by its content); after each kill, files with final names must be complete.
twice  run two processes of each step at once: both succeed, or the second reports the conflict.
disk   run each step on a disk that fills up: it must report that clearly and keep existing files;
       with more space, the same command must give the undisturbed result. Mounts a file system, in
       a namespace of its own unless the user is root.

Exits with status 1 if anything was lost.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hearback.engine import cli
from hearback.engine.audio.store import FileStore
from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json, sha256_of
from hearback.engine.project import ROOT

PARTS = ("kill", "twice", "disk")
MAX_KILLS = 4  # in a row, before a step may finish
SHARES_FREE = (0.0, 0.3, 0.6, 0.9)  # free space relative to a step's output
TIMED = ("seconds", "peak_memory_gb")  # keys of metadata that vary from run to run
COMMAND = "retrain_command"  # key of metadata that contains the folder
PAGE = 4096  # bytes, the allocation unit of a tmpfs
ENOUGH = 2**30  # bytes of free space


@dataclass(frozen=True)
class Step:
    """A script of the pipeline; `outputs` are the files and folders that it writes."""

    name: str
    command: tuple[str, ...]
    outputs: tuple[str, ...]
    share: float  # of the kills

    def start(self, folder: Path) -> "subprocess.Popen[str]":
        """Start the step on a folder, in a process group of its own."""
        command = [sys.executable, *(part.format(folder=folder) for part in self.command)]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


FOLDERS = (
    *("--data", "{folder}/data", "--tts_data", "{folder}/tts_data"),
    *("--store", "{folder}/store"),
)
TRAINING = (
    *("--fold", "0", *FOLDERS, "--assets", "{folder}/assets", "--runs", "{folder}/runs"),
    *("--backbone", "assets/whisper-tiny.en", "--preset", "small", "--n_folds", "3"),
    *("--device", "cpu", "--precision", "float32", "--checkpoint_minutes", "0.02"),
)
CONFIG = ("--assets", "{folder}/assets", "--config", "{folder}/model_configs.json")
STEPS = (
    Step("preprocess", ("preprocess.py", *FOLDERS, "--jobs", "2"), ("tts_data", "store"), 0.25),
    Step("train_modeltok", ("train_modeltok.py", *TRAINING), ("assets",), 0.2),
    Step("train_model2ds", ("train_model2ds.py", *TRAINING, "--workers", "1"), ("assets",), 0.2),
    Step(
        "get_config",
        ("get_config.py", "--data", "{folder}/data", *CONFIG),
        ("model_configs.json",),
        0.1,
    ),
    Step(
        "infer",
        (
            *("infer.py", *FOLDERS, *CONFIG, "--submission", "{folder}/submission.csv", "--words"),
            *("--device", "cpu", "--precision", "float32"),
        ),
        ("submission.csv", "word_scores.csv", "store"),
        0.25,
    ),
)


@dataclass(frozen=True)
class UndisturbedRun:
    """An undisturbed run of a step: the folder before it, its outputs, and its duration."""

    step: Step
    before: Path
    result: dict[str, Any]
    seconds: float
    n_bytes: int  # written

    @contextmanager
    def fresh(self, folder: Path) -> Iterator[Path]:
        """Copy the folder before the step to `folder` for the block, then remove it."""
        shutil.copytree(self.before, folder, symlinks=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def check_end(self, folder: Path) -> None:
        """Raise LostError if the outputs of a finished step differ from the undisturbed ones."""
        _compare(contents(folder, self.step), self.result)

    def check_partial(self, folder: Path) -> None:
        """Raise LostError if a killed step left an incomplete file with a final name."""
        found = contents(folder, self.step, unfinished=True)
        _compare(found, {name: self.result.get(name) for name in found})


class LostError(Exception):
    """A disturbed step did not give the undisturbed result."""


def contents(folder: Path, step: Step, *, unfinished: bool = False) -> dict[str, Any]:
    """Return a step's outputs by name, for comparison: digests, and metadata without times.

    For an unfinished step, growing indexes are excluded: the store's and the references'.
    """
    found: dict[str, Any] = {}
    for output in map(folder.joinpath, step.outputs):
        if output.name == "store":
            if not unfinished:
                found |= _store_contents(output)
            continue
        for path in sorted(output.rglob("*") if output.is_dir() else [output]):
            growing = path.suffix == ".checkpoint" or path.name == "data_paths.csv"
            hidden = path.name.startswith(".")  # locks and temporary files
            if path.is_file() and not hidden and not (unfinished and growing):
                name = path.relative_to(folder).as_posix()
                is_json = path.parent.name == "assets" and path.suffix == ".json"
                fold_metadata = is_json and not path.name.startswith("tokenizer")
                found[name] = _without_times(read_json(path)) if fold_metadata else sha256_of(path)
    return found


def _store_contents(folder: Path) -> dict[str, str]:
    names = {path.stem for path in folder.glob("*.json")}
    return {f"store/{name}": FileStore(folder, name).fingerprint() for name in sorted(names)}


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not k.endswith(TIMED) and k != COMMAND}
        return {k: _without_times(v) for k, v in kept.items()}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def _compare(found: dict[str, Any], expected: dict[str, Any]) -> None:
    differing = [
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    ]
    if differing:
        raise LostError(f"differs from the undisturbed run: {', '.join(sorted(differing))}")


def wait(process: "subprocess.Popen[str]") -> str:
    """Return the output of a step; raise LostError if it fails."""
    output, _ = process.communicate()
    if process.returncode:
        raise LostError(f"exit status {process.returncode}: {output[-2000:]}")
    return output


def run_undisturbed(work: Path, steps: Sequence[Step]) -> list[UndisturbedRun]:
    """Run all steps undisturbed, in order, and keep the folder before each and its outputs."""
    folder = work / "undisturbed"
    sample = (
        "-m",
        "hearback.reading.corpora.sample",
        folder / "data",
        "--n_train",
        "48",
        "--n_test",
        "12",
    )
    command = [sys.executable, *map(str, sample), "--speakers", "12"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    runs = []
    for step in tqdm(steps, desc="undisturbed", unit="step"):
        before = work / f"before_{step.name}"
        shutil.copytree(folder, before)
        started = time.monotonic()
        wait(step.start(folder))
        seconds = time.monotonic() - started
        n_bytes = _size(folder) - _size(before)
        runs.append(UndisturbedRun(step, before, contents(folder, step), seconds, n_bytes))
    return runs


def _size(folder: Path) -> int:
    """Return the size of a folder's files in bytes, rounded up to pages."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // PAGE) * PAGE for size in sizes)


def kill(undisturbed: UndisturbedRun, work: Path, n_kills: int, rng: np.random.Generator) -> str:
    """Kill a step `n_kills` times; return a summary."""
    killed = finished = resumed = 0
    with tqdm(total=n_kills, desc=f"kill {undisturbed.step.name}", unit="kill") as bar:
        while killed < n_kills:
            with undisturbed.fresh(work / "killed") as folder:
                for _ in range(min(int(rng.integers(1, MAX_KILLS + 1)), n_kills - killed)):
                    process = undisturbed.step.start(folder)
                    try:
                        process.wait(rng.uniform(0, undisturbed.seconds))
                    except subprocess.TimeoutExpired:
                        os.killpg(process.pid, signal.SIGKILL)
                        process.communicate()
                        killed += 1
                        bar.update()
                        undisturbed.check_partial(folder)
                    else:
                        wait(process)  # faster than the undisturbed run
                        break
                output = wait(undisturbed.step.start(folder))
                undisturbed.check_end(folder)
                finished += 1
                resumed += "resumes after" in output
    more = f", {resumed} trainings resumed" if "train" in undisturbed.step.name else ""
    return f"{killed} kills, {finished} runs finished as undisturbed{more}"


def run_twice(undisturbed: UndisturbedRun, work: Path) -> str:
    """Run a step twice at once; return a summary."""
    with undisturbed.fresh(work / "twice") as folder:
        processes = [undisturbed.step.start(folder) for _ in range(2)]
        outputs = [process.communicate()[0] for process in processes]
        statuses = [process.returncode for process in processes]
        for status, output in zip(statuses, outputs, strict=True):
            if status and not (status == 2 and "another process" in output):
                raise LostError(f"exit status {status}: {output[-2000:]}")
        if all(statuses):
            raise LostError("neither of two simultaneous runs succeeded")
        undisturbed.check_end(folder)
    return "one refused, one succeeded" if any(statuses) else "both succeeded, same result"


def fill_disk(undisturbed: UndisturbedRun, work: Path) -> str:
    """Run a step on disks that are too small, then with more space; return a summary."""
    refused = 0
    for share in SHARES_FREE:
        mounted = work / "disk"
        mounted.mkdir()
        size = _size(undisturbed.before)
        _mount(mounted, f"size={size + int(share * undisturbed.n_bytes)}")
        try:
            with undisturbed.fresh(mounted / "folder") as folder:
                process = undisturbed.step.start(folder)
                output, _ = process.communicate()
                if process.returncode:
                    reported = process.returncode == 2 and "No space left" in output
                    if not reported or "Traceback" in output:
                        raise LostError(f"unclear error: {output[-2000:]}")
                    refused += 1
                undisturbed.check_partial(folder)
                _mount(mounted, f"remount,size={size + ENOUGH}")
                wait(undisturbed.step.start(folder))
                undisturbed.check_end(folder)
        finally:
            subprocess.run(["umount", str(mounted)], check=True)
            mounted.rmdir()
    if not refused:
        raise LostError("none of the disks was too small: nothing was tested")
    return f"{refused} of {len(SHARES_FREE)} full disks reported, then as undisturbed"


def _mount(where: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(where)], check=True)


def enter_namespace(arguments: Sequence[str]) -> None:
    """Re-execute in a namespace that allows mounting. HearbackError if impossible."""
    if os.environ.get("HEARBACK_SOAK_NAMESPACE"):
        return
    unshare = shutil.which("unshare")
    own = [str(unshare), "--user", "--map-root-user", "--mount"]
    if unshare is None or subprocess.run([*own, "true"], check=False).returncode:
        raise HearbackError(
            "--parts disk: cannot create a mount namespace here (it needs util-linux's unshare, "
            "and permission); leave out this part, and report that it was not run"
        )
    os.environ["HEARBACK_SOAK_NAMESPACE"] = "1"
    os.execv(unshare, [*own, sys.executable, *arguments])


def main() -> int:
    """Run the parts, print the table, and return 1 if anything was lost."""
    parser = cli.parser(__doc__)
    parser.add_argument("--n", type=int, default=100, help="number of kills of all steps together")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    names = [step.name for step in STEPS]
    parser.add_argument("--steps", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--work", type=Path, default=Path("soak/kill"), help="folder to work in")
    arguments = parser.parse_args()
    if "disk" in arguments.parts:
        enter_namespace(["-m", "tests.soak.soak_kill", *sys.argv[1:]])
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)
    work = arguments.work.resolve()
    n_lost = 0
    for part, step, lost, summary in disturb(run_undisturbed(work, STEPS), arguments, work):
        n_lost += lost
        tqdm.write(f"{part:6} {step:15} {'LOST' if lost else 'kept':5} {summary}")
    if n_lost:
        return 1
    shutil.rmtree(arguments.work)
    return 0


def disturb(
    runs: Sequence[UndisturbedRun], arguments: argparse.Namespace, work: Path
) -> Iterator[tuple[str, str, bool, str]]:
    """Yield a row of the table for each part and step: part, step, whether lost, summary."""
    rng = np.random.default_rng(arguments.seed)
    do: dict[str, Callable[[UndisturbedRun], str]] = {
        "kill": lambda run: kill(run, work, round(run.step.share * arguments.n), rng),
        "twice": lambda run: run_twice(run, work),
        "disk": lambda run: fill_disk(run, work),
    }
    for part in arguments.parts:
        for run in runs:
            if run.step.name not in arguments.steps:
                continue
            try:
                yield part, run.step.name, False, do[part](run)
            except LostError as lost:
                yield part, run.step.name, True, str(lost)


if __name__ == "__main__":
    cli.run(main)
