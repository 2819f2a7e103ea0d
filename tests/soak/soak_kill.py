"""Kill every step at random moments, run it again, and see that nothing was lost.

    python -m tests.soak.soak_kill --n 100 --seed 0

Three parts, each on copies of a small data set (the embedded sample, whisper-tiny.en):

kill   SIGKILL to a step and all its processes at a random moment, a few times in a row; then the
       step is run to its end. What it makes must be what an undisturbed run makes, to the byte
       (metadata without their times, the store by what it holds); after each kill, what already has
       its final name must be whole.
twice  two processes of each step at once, by mistake: both end, or the second says why not.
disk   each step on a disk that is full before it is done: it says so, in words, and leaves what was
       there; with more space, the same command gives the undisturbed result. Needs to mount a file
       system of its own, in a namespace where the user is not root.

Exit status 1 where anything was lost.
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
from hearback.engine.audio.store import Store
from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json, sha256_of

HERE = Path(__file__).parents[1]
PARTS = ("kill", "twice", "disk")
MOST_KILLS = 4  # in a row, before a step may end
SHARES_FREE = (0.0, 0.3, 0.6, 0.9)  # of what a step writes, on a disk that is too small
TIMED = ("seconds", "peak_memory_gb")  # of a metadata, and of its epochs: what no run has twice
PLACED = "retrain_command"  # of a metadata: names the folder
PAGE = 4096  # bytes, as a tmpfs counts
MORE = 2**30  # bytes, of a disk that is large enough


@dataclass(frozen=True)
class Step:
    """A script of the pipeline; `makes` are the files and folders that it writes."""

    name: str
    command: tuple[str, ...]
    makes: tuple[str, ...]
    share: float  # of the kills

    def start(self, folder: Path) -> "subprocess.Popen[str]":
        """Start the step on a folder, in a process group of its own."""
        command = [sys.executable, *(part.format(folder=folder) for part in self.command)]
        return subprocess.Popen(
            command,
            cwd=HERE,
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
class Rehearsed:
    """A step, the folder that it starts from, what it makes undisturbed, and how long it takes."""

    step: Step
    before: Path
    result: dict[str, Any]
    seconds: float
    n_bytes: int  # that it writes

    @contextmanager
    def fresh(self, folder: Path) -> Iterator[Path]:
        """Give a copy of the folder that the step starts from, and remove it in the end."""
        shutil.copytree(self.before, folder, symlinks=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def check_end(self, folder: Path) -> None:
        """Raise LostError where a step that has ended did not make what it makes undisturbed."""
        _compare(contents(folder, self.step), self.result)

    def check_whole(self, folder: Path) -> None:
        """Raise LostError where a file with its final name is not whole, of a killed step."""
        there = contents(folder, self.step, under_way=True)
        _compare(there, {name: self.result.get(name) for name in there})


class LostError(Exception):
    """A step, disturbed, did not do what it does undisturbed."""


def contents(folder: Path, step: Step, *, under_way: bool = False) -> dict[str, Any]:
    """Return by name what a step made, to be compared: digests, and metadata without their times.

    Of a step `under_way` the indexes are left out, which grow: the store's and the references'.
    """
    found: dict[str, Any] = {}
    for made in map(folder.joinpath, step.makes):
        if made.name == "store":
            if not under_way:
                found |= _store_contents(made)
            continue
        for path in sorted(made.rglob("*") if made.is_dir() else [made]):
            growing = path.suffix == ".partial" or path.name == "data_paths.csv"
            hidden = path.name.startswith(".")  # locks, and what is not whole yet
            if path.is_file() and not hidden and not (under_way and growing):
                name = path.relative_to(folder).as_posix()
                whole = path.parent.name == "assets" and path.suffix == ".json"
                fold_metadata = whole and not path.name.startswith("tokenizer")
                found[name] = _without_times(read_json(path)) if fold_metadata else sha256_of(path)
    return found


def _store_contents(folder: Path) -> dict[str, str]:
    names = {path.stem for path in folder.glob("*.json")}
    return {f"store/{name}": Store(folder, name).fingerprint() for name in sorted(names)}


def _without_times(value: Any) -> Any:  # noqa: ANN401  (JSON is any of its types)
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not k.endswith(TIMED) and k != PLACED}
        return {k: _without_times(v) for k, v in kept.items()}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def _compare(found: dict[str, Any], expected: dict[str, Any]) -> None:
    differing = [
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    ]
    if differing:
        raise LostError(f"not as undisturbed: {', '.join(sorted(differing))}")


def wait(process: "subprocess.Popen[str]") -> str:
    """Return the output of a step that must end well; raise LostError where it does not."""
    output, _ = process.communicate()
    if process.returncode:
        raise LostError(f"exit status {process.returncode}: {output[-2000:]}")
    return output


def run_dry_run(work: Path, steps: Sequence[Step]) -> list[Rehearsed]:
    """Run all steps undisturbed, one after another, and keep what each starts from and makes."""
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
    subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.DEVNULL)
    rehearsed = []
    for step in tqdm(steps, desc="undisturbed", unit="step"):
        before = work / f"before_{step.name}"
        shutil.copytree(folder, before)
        started = time.monotonic()
        wait(step.start(folder))
        seconds = time.monotonic() - started
        n_bytes = _size(folder) - _size(before)
        rehearsed.append(Rehearsed(step, before, contents(folder, step), seconds, n_bytes))
    return rehearsed


def _size(folder: Path) -> int:
    """Return the bytes that the files of a folder take, in whole pages."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // PAGE) * PAGE for size in sizes)


def kill(rehearsed: Rehearsed, work: Path, n_kills: int, rng: np.random.Generator) -> str:
    """Kill a step `n_kills` times; return how often it went on where it was, in words."""
    killed = ends = went_on = 0
    with tqdm(total=n_kills, desc=f"kill {rehearsed.step.name}", unit="kill") as bar:
        while killed < n_kills:
            with rehearsed.fresh(work / "killed") as folder:
                for _ in range(min(int(rng.integers(1, MOST_KILLS + 1)), n_kills - killed)):
                    process = rehearsed.step.start(folder)
                    try:
                        process.wait(rng.uniform(0, rehearsed.seconds))
                    except subprocess.TimeoutExpired:
                        os.killpg(process.pid, signal.SIGKILL)
                        process.communicate()
                        killed += 1
                        bar.update()
                        rehearsed.check_whole(folder)
                    else:
                        wait(process)  # it was faster than undisturbed
                        break
                output = wait(rehearsed.step.start(folder))
                rehearsed.check_end(folder)
                ends += 1
                went_on += "goes on" in output
    said = f", {went_on} trainings went on in midst" if "train" in rehearsed.step.name else ""
    return f"{killed} kills, {ends} ends as undisturbed{said}"


def run_twice(rehearsed: Rehearsed, work: Path) -> str:
    """Start a step twice at once; return what the second one said."""
    with rehearsed.fresh(work / "twice") as folder:
        processes = [rehearsed.step.start(folder) for _ in range(2)]
        outputs = [process.communicate()[0] for process in processes]
        statuses = [process.returncode for process in processes]
        for status, output in zip(statuses, outputs, strict=True):
            if status and not (status == 2 and "another process" in output):
                raise LostError(f"exit status {status}: {output[-2000:]}")
        if all(statuses):
            raise LostError("neither of two at once came to its end")
        rehearsed.check_end(folder)
    return "one refused, the other undisturbed" if any(statuses) else "both ended, one result"


def fill_disk(rehearsed: Rehearsed, work: Path) -> str:
    """Run a step on disks that are too small for it, then on larger ones; return what happened."""
    refused = 0
    for share in SHARES_FREE:
        mounted = work / "disk"
        mounted.mkdir()
        size = _size(rehearsed.before)
        _mount(mounted, f"size={size + int(share * rehearsed.n_bytes)}")
        try:
            with rehearsed.fresh(mounted / "folder") as folder:
                process = rehearsed.step.start(folder)
                output, _ = process.communicate()
                if process.returncode:
                    in_words = process.returncode == 2 and "No space left" in output
                    if not in_words or "Traceback" in output:
                        raise LostError(f"not in words: {output[-2000:]}")
                    refused += 1
                rehearsed.check_whole(folder)
                _mount(mounted, f"remount,size={size + MORE}")
                wait(rehearsed.step.start(folder))
                rehearsed.check_end(folder)
        finally:
            subprocess.run(["umount", str(mounted)], check=True)
            mounted.rmdir()
    if not refused:
        raise LostError("none of the disks was too small: nothing was shown")
    return f"{refused} of {len(SHARES_FREE)} disks full, said so; then as undisturbed"


def _mount(where: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(where)], check=True)


def enter_namespace(again: Sequence[str]) -> None:
    """Begin again where this process may mount, if it may not here; HearbackError where nowhere."""
    if os.environ.get("HEARBACK_SOAK_NAMESPACE"):
        return
    unshare = shutil.which("unshare")
    own = [str(unshare), "--user", "--map-root-user", "--mount"]
    if unshare is None or subprocess.run([*own, "true"], check=False).returncode:
        raise HearbackError(
            "--parts disk: no namespace of its own can be made here (unshare, of util-linux, as a "
            "user who may); leave the part out, and say that it was not run"
        )
    os.environ["HEARBACK_SOAK_NAMESPACE"] = "1"
    os.execv(unshare, [*own, sys.executable, *again])


def main() -> int:
    """Run the parts, print the table, and return 1 where something was lost."""
    parser = cli.parser(__doc__)
    parser.add_argument("--n", type=int, default=100, help="kills, of all steps together")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="only these")
    names = [step.name for step in STEPS]
    parser.add_argument("--steps", nargs="+", choices=names, default=names, help="only these")
    parser.add_argument("--work", type=Path, default=Path("soak/kill"), help="folder to work in")
    arguments = parser.parse_args()
    if "disk" in arguments.parts:
        enter_namespace(["-m", "tests.soak.soak_kill", *sys.argv[1:]])
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)
    work = arguments.work.resolve()
    n_lost = 0
    for part, step, lost, what in disturb(run_dry_run(work, STEPS), arguments, work):
        n_lost += lost
        tqdm.write(f"{part:6} {step:15} {'LOST' if lost else 'kept':5} {what}")
    if n_lost:
        return 1
    shutil.rmtree(arguments.work)
    return 0


def disturb(
    rehearsed: Sequence[Rehearsed], arguments: argparse.Namespace, work: Path
) -> Iterator[tuple[str, str, bool, str]]:
    """Yield a line of the table for each part and step: what was lost, or what happened."""
    rng = np.random.default_rng(arguments.seed)
    do: dict[str, Callable[[Rehearsed], str]] = {
        "kill": lambda one: kill(one, work, round(one.step.share * arguments.n), rng),
        "twice": lambda one: run_twice(one, work),
        "disk": lambda one: fill_disk(one, work),
    }
    for part in arguments.parts:
        for one in rehearsed:
            if one.step.name not in arguments.steps:
                continue
            try:
                yield part, one.step.name, False, do[part](one)
            except LostError as lost:
                yield part, one.step.name, True, str(lost)


if __name__ == "__main__":
    cli.run(main)
