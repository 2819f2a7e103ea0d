"""A stage on which a competition's runtime is played: what submission.zip does there.

The zip is unpacked into an empty folder; beside it data/ holds some recordings, read-only, one of
them damaged. There `python main.py` runs in an environment of nothing but
`requirements/runtime.txt`, without a network, without the project's files, without this process's
environment variables. Its submission is compared with what the project itself makes of the same
recordings. What a competition has of its own is a `DryRun` (`hearback.reading.submission.dry_run`, `hearback.songs.submission.dry_run`).

The network is shut off by a namespace of its own (`unshare`) where the machine allows it. In any
case each process has `hearback.engine.submission.sandbox_guard`, which refuses sockets and the project's files.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import pandas as pd

from hearback.engine.data.tables import PROBLEMS
from hearback.engine.errors import HearbackError
from hearback.engine.io import sha256_of
from hearback.engine.project import ROOT
from hearback.engine.submission.archive import RUNTIME, listed_packages
from hearback.engine.submission.runtime import flags_of

GUARD = Path(__file__).with_name("sandbox_guard.py")
ARITHMETIC = ("--device", "cpu", "--precision", "float32")  # the same in both environments
TOLERANCE = 1e-4  # of a probability
INTACT_BYTES = 30  # of a recording that is damaged
# A namespace without a network, in which data/ is mounted read-only; then the command.
NAMESPACE = ("unshare", "--user", "--map-root-user", "--net", "--mount")
MOUNT = 'mount --bind data data && mount -o remount,bind,ro data && exec "$@"'
LIST_PACKAGES = (
    "import importlib.metadata, json, sys; print(json.dumps([sys.version.split()[0], "
    "{d.metadata['Name']: d.version for d in importlib.metadata.distributions()}]))"
)


@dataclass(frozen=True)
class Sandbox:
    """Where a dry run plays: `runtime` is the folder of main.py, the rest is behind it.

    `damaged` is the filename of the recording that was made so.
    """

    runtime: Path
    workdir: Path
    damaged: str

    @property
    def data(self) -> Path:
        """The smoke clips."""
        return self.runtime / "data"

    @property
    def guard_log(self) -> Path:
        """What the guard refused."""
        return self.workdir / "refused.txt"

    @property
    def submission(self) -> Path:
        """What main.py writes."""
        return self.runtime / "submission.csv"


S = TypeVar("S", bound=Sandbox)


@dataclass(frozen=True)
class DryRun(ABC, Generic[S]):
    """What is rehearsed: `archive` is submission.zip, on `n_clips` of the recordings in `data`."""

    archive: Path
    data: Path
    n_clips: int

    @abstractmethod
    def set_up(self, folder: Path) -> S:
        """Unpack the zip into a new folder and put smoke clips beside it."""

    @abstractmethod
    def compare(self, sandbox: S) -> tuple[list[str], float]:
        """Return what is wrong with the submission, and the largest difference of a probability."""

    @abstractmethod
    def describe(self, sandbox: S) -> str:
        """Return what was played, in a few words."""


def check_environment(python: Path) -> str:
    """Return what the environment of `python` is; HearbackError where it is not the runtime's."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", LIST_PACKAGES], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise HearbackError(f"{python}: {error}; build it with make test-submission") from None
    version, found = json.loads(done.stdout)
    installed = {name.lower().replace("_", "-"): what for name, what in found.items()}
    pins = listed_packages(RUNTIME)
    faults = [] if version.startswith("3.12.") else [f"Python {version}, not 3.12"]
    for name in sorted(pins.keys() | installed.keys()):
        there = installed.get(name, "not there").partition("+")[0]  # 2.4.1+cpu is 2.4.1
        # What PyPI's torch brings, and venv.
        free = name.startswith("nvidia-") or name in ("triton", "pip")
        if not free and there != pins.get(name):
            faults.append(f"{name} {there}, where {RUNTIME.name} has {pins.get(name, 'none')}")
    if faults:
        lines = [f"{python} is not the runtime's:", *(f"  {line}" for line in faults)]
        raise HearbackError("\n".join([*lines, "delete its folder and run make test-submission"]))
    return f"Python {version}, torch {installed['torch']}, transformers {pins['transformers']}"


def unpack(archive: Path, folder: Path, packed_by: str) -> tuple[Path, Path]:
    """Unpack a zip into a new folder; return where it lies, and where all else may."""
    runtime, workdir = folder / "runtime", folder / "workdir"
    for new in (runtime, workdir / "guard", workdir / "home", workdir / "tmp"):
        new.mkdir(parents=True)
    if not archive.is_file():
        raise HearbackError(f"{archive}: not there; pack it with {packed_by}")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(runtime)
    shutil.copyfile(GUARD, workdir / "guard" / "sitecustomize.py")
    return runtime, workdir


def evenly(n_rows: int, n_chosen: int) -> range:
    """Return the places of about `n_chosen` of some rows, evenly from all of them."""
    return range(n_rows)[:: max(1, n_rows // n_chosen)][:n_chosen]


def copy_clips(data: Path, names: Sequence[str], runtime: Path) -> str:
    """Copy recordings to the data/ of a runtime, the last one damaged; return its name."""
    for name in names:
        target = runtime / "data" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / name, target)
    damaged = names[-1]
    (runtime / "data" / damaged).write_bytes((data / damaged).read_bytes()[:INTACT_BYTES])
    return damaged


def can_unshare() -> bool:
    """Return whether this machine lets a process have a network and mounts of its own."""
    try:
        return not subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode
    except OSError:
        return False


def run_main(sandbox: Sandbox, python: Path, *, namespace: bool) -> None:
    """Run main.py as the runtime does; HearbackError where it fails or does what it must not."""
    command: list[str | Path] = [python.absolute(), "main.py", *ARITHMETIC]
    if namespace:
        command = [*NAMESPACE, "sh", "-c", MOUNT, "sh", *command]
    environment = {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "HOME": str(sandbox.workdir / "home"),
        "TMPDIR": str(sandbox.workdir / "tmp"),
        "PYTHONPATH": str(sandbox.workdir / "guard"),
        "HEARBACK_GUARD_LOG": str(sandbox.guard_log),
        "HEARBACK_GUARD_PROJECT": str(ROOT),
        **{name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ},
    }
    before = _digests(sandbox.data)
    _set_writable(sandbox.data, False)
    try:
        done = subprocess.run(command, cwd=sandbox.runtime, env=environment, check=False)
    finally:
        _set_writable(sandbox.data, True)
    faults = sandbox.guard_log.read_text().splitlines() if sandbox.guard_log.exists() else []
    if done.returncode:
        faults.append(f"main.py ended with status {done.returncode}")
    if _digests(sandbox.data) != before:
        faults.append("data/ was changed")
    if left := [path.name for path in (sandbox.workdir / "tmp").iterdir()]:
        faults.append(f"left in the folder of temporary files: {', '.join(left)}")
    if faults:
        raise HearbackError("\n".join(["the dry run failed:", *faults]))


def _digests(folder: Path) -> dict[Path, str]:
    return {path: sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _set_writable(folder: Path, writable: bool) -> None:
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | 0o200 if writable else mode & ~0o222)


def run_here(command: Sequence[str], **paths: Path) -> None:
    """Run a step in this environment, with a flag for each path, and in the same arithmetic."""
    whole = [sys.executable, *command, *flags_of(paths), *ARITHMETIC]
    done = subprocess.run(whole, cwd=ROOT, check=False)
    if done.returncode:
        raise HearbackError(
            f"{command[-1]} of this environment ended with status {done.returncode}"
        )


def listed_problems(path: Path) -> set[str]:
    """Return the recordings that a table of problems names; none where there is no table."""
    return set(pd.read_csv(path, dtype=str)["filename"]) if path.exists() else set()


def run_dry_run(dry_run: DryRun[S], python: Path, *, namespace: bool) -> Iterable[str]:
    """Play the runtime and compare; return lines that tell of it, or raise HearbackError."""
    with tempfile.TemporaryDirectory(prefix="hearback-dry run-") as folder:
        sandbox = dry_run.set_up(Path(folder))
        start = time.monotonic()
        run_main(sandbox, python, namespace=namespace)
        seconds = time.monotonic() - start
        faults, largest = dry_run.compare(sandbox)
        problems = listed_problems(sandbox.submission.with_name(PROBLEMS))
        if problems != {sandbox.damaged}:
            faults.append(
                f"{PROBLEMS} names {sorted(problems)}, and {sandbox.damaged} alone is damaged"
            )
        if faults:
            raise HearbackError("\n".join(["the submission is not as it must be:", *faults]))
        return [
            dry_run.describe(sandbox),
            f"main.py took {seconds:.0f} s; scores are those of this environment, to {largest:.1e}",
        ]


def declare(parser: argparse.ArgumentParser, data: Path) -> None:
    """Declare the flags of any dry run; `data` is where the recordings usually lie."""
    add = parser.add_argument
    add("--zip", type=Path, default=Path("submission.zip"), help="what would be submitted")
    add("--data", type=Path, default=data, help="folder of test recordings")
    add(
        "--python",
        type=Path,
        default=Path(".venv-runtime/bin/python"),
        help="of an environment with requirements/runtime.txt alone",
    )
    add("--clips", type=int, default=30, help="recordings to score")


def show(dry_run: DryRun[S], python: Path) -> None:
    """Dry-run, and print what came of it."""
    environment = check_environment(python)
    namespace = can_unshare()
    shut_off = (
        ("a network namespace", "a read-only mount") if namespace else ("no namespace to be had",)
    )
    told = run_dry_run(dry_run, python, namespace=namespace)
    print(f"rehearsed in {environment}; {', '.join(shut_off)}, and a guard on sockets and files")
    for line in told:
        print(line)
