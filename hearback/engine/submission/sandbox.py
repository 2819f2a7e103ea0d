"""A sandbox that imitates a competition's runtime: a dry run of submission.zip.

The zip is unpacked into an empty folder, with some recordings in its data/, read-only, one of them
damaged. `python main.py` runs there in an environment with only `requirements/runtime.txt`, without
a network, the project's files or this process's environment variables. Its submission is compared
with the project's own scores of the same recordings. A competition subclasses `DryRun`.

If the machine allows it, namespaces (`unshare`) block the network and writes to data/. In any case
each process loads `hearback.engine.submission.sandbox_guard`, which refuses sockets and project
files.
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
from hearback.engine.submission.archive import RUNTIME, RUNTIME_NAME, listed_packages
from hearback.engine.submission.runtime import flags_of

GUARD = Path(__file__).with_name("sandbox_guard.py")
ARITHMETIC = ("--device", "cpu", "--precision", "float32")  # the same in both environments
TOLERANCE = 1e-4  # of a probability
INTACT_BYTES = 30  # of the damaged recording
# Start a command in namespaces without a network and with data/ mounted read-only.
NAMESPACE = ("unshare", "--user", "--map-root-user", "--net", "--mount")
MOUNT = 'mount --bind data data && mount -o remount,bind,ro data && exec "$@"'
LIST_PACKAGES = (
    "import importlib.metadata, json, sys; print(json.dumps([sys.version.split()[0], "
    "{d.metadata['Name']: d.version for d in importlib.metadata.distributions()}]))"
)


@dataclass(frozen=True)
class Sandbox:
    """The folders of a dry run: `runtime` contains main.py, `workdir` the dry run's own files.

    `damaged` is the filename of the damaged recording.
    """

    runtime: Path
    workdir: Path
    damaged: str

    @property
    def data(self) -> Path:
        """The folder of recordings to score."""
        return self.runtime / "data"

    @property
    def guard_log(self) -> Path:
        """The guard's log of refusals."""
        return self.workdir / "refused.txt"

    @property
    def submission(self) -> Path:
        """The submission that main.py writes."""
        return self.runtime / "submission.csv"

    @property
    def submission_here(self) -> Path:
        """The submission of this environment, which `DryRun.compare` writes."""
        return self.workdir / "here" / "submission.csv"


S = TypeVar("S", bound=Sandbox)


@dataclass(frozen=True)
class DryRun(ABC, Generic[S]):
    """A dry run of the submission.zip `archive` on `n_clips` of the recordings in `data`."""

    archive: Path
    data: Path
    n_clips: int

    @abstractmethod
    def set_up(self, folder: Path) -> S:
        """Unpack the zip into a new folder with some of the recordings beside it."""

    @abstractmethod
    def compare(self, sandbox: S) -> tuple[list[str], float]:
        """Return the submission's faults and the largest difference of a probability."""

    @abstractmethod
    def describe(self, sandbox: S) -> str:
        """Return a line about the recordings that were scored."""


def check_environment(python: Path) -> str:
    """Return the versions in the environment of `python`.

    Raises HearbackError if its packages are not exactly the runtime's.
    """
    try:
        done = subprocess.run(
            [python, "-I", "-c", LIST_PACKAGES], capture_output=True, text=True, check=True
        )
    except OSError as error:
        raise HearbackError(
            f"{python}: {error.strerror}; make test-submission builds this environment of Python "
            "3.12, or name another one's interpreter with --python"
        ) from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"exit status {error.returncode}"]
        raise HearbackError(
            f"{python} cannot list its packages: {lines[-1]}; delete its folder and run make "
            "test-submission"
        ) from None
    version, found = json.loads(done.stdout)
    installed = {name.lower().replace("_", "-"): release for name, release in found.items()}
    pins = listed_packages(RUNTIME)
    faults = [] if version.startswith("3.12.") else [f"Python {version}, not 3.12"]
    for name in sorted(pins.keys() | installed.keys()):
        release = installed.get(name, "not there").partition("+")[0]  # 2.4.1+cpu is 2.4.1
        # Dependencies of PyPI's torch, and pip.
        is_ignored = name.startswith("nvidia-") or name in ("triton", "pip")
        if not is_ignored and release != pins.get(name):
            faults.append(f"{name} {release}, where {RUNTIME_NAME} has {pins.get(name, 'none')}")
    if faults:
        lines = [f"{python} differs from the runtime:", *(f"  {line}" for line in faults)]
        raise HearbackError("\n".join([*lines, "delete its folder and run make test-submission"]))
    return f"Python {version}, torch {installed['torch']}, transformers {pins['transformers']}"


def unpack(archive: Path, folder: Path, pack_command: str) -> tuple[Path, Path]:
    """Unpack a zip into a new folder; return the sandbox's `runtime` and `workdir`."""
    runtime, workdir = folder / "runtime", folder / "workdir"
    for new in (runtime, workdir / "guard", workdir / "home", workdir / "tmp"):
        new.mkdir(parents=True)
    if not archive.is_file():
        raise HearbackError(f"{archive}: not there; pack it with {pack_command}")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(runtime)
    shutil.copyfile(GUARD, workdir / "guard" / "sitecustomize.py")
    return runtime, workdir


def evenly_spaced(n_rows: int, n_chosen: int) -> range:
    """Return about `n_chosen` evenly spaced indices of `n_rows` rows."""
    return range(n_rows)[:: max(1, n_rows // n_chosen)][:n_chosen]


def copy_clips(data: Path, names: Sequence[str], runtime: Path) -> str:
    """Copy recordings to the data/ of a runtime, damage the last one and return its name."""
    for name in names:
        target = runtime / "data" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / name, target)
    damaged = names[-1]
    (runtime / "data" / damaged).write_bytes((data / damaged).read_bytes()[:INTACT_BYTES])
    return damaged


def can_unshare() -> bool:
    """Return whether this machine allows network and mount namespaces."""
    try:
        return not subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode
    except OSError:
        return False


def run_main(sandbox: Sandbox, python: Path, *, namespace: bool) -> None:
    """Run main.py as the runtime does; raise HearbackError if it fails or violates a rule."""
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
        faults.append(f"temporary files were left: {', '.join(left)}")
    if faults:
        raise HearbackError("\n".join(["the dry run failed:", *faults]))


def _digests(folder: Path) -> dict[Path, str]:
    return {path: sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _set_writable(folder: Path, writable: bool) -> None:
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | 0o200 if writable else mode & ~0o222)


def run_here(command: Sequence[str], **paths: Path) -> None:
    """Run a module of the project in this environment, with a flag for each path.

    `command` are the module and its arguments, as after `python -m`.
    """
    whole = [sys.executable, "-m", *command, *flags_of(paths), *ARITHMETIC]
    done = subprocess.run(whole, cwd=ROOT, check=False)
    if done.returncode:
        raise HearbackError(
            f"{' '.join(command)} in this environment ended with status {done.returncode}"
        )


def listed_problems(path: Path) -> set[str]:
    """Return the recordings in a table of problems; none where there is no table."""
    if not path.exists():
        return set()
    return set(pd.read_csv(path, dtype=str)["filename"].dropna())


def run_dry_run(dry_run: DryRun[S], python: Path, *, namespace: bool) -> Iterable[str]:
    """Run main.py in a sandbox and compare; return lines to print, or raise HearbackError."""
    with tempfile.TemporaryDirectory(prefix="hearback-dry-run-") as folder:
        sandbox = dry_run.set_up(Path(folder))
        start = time.monotonic()
        run_main(sandbox, python, namespace=namespace)
        seconds = time.monotonic() - start
        faults, largest = dry_run.compare(sandbox)
        problems, expected = (
            listed_problems(path.with_name(PROBLEMS))
            for path in (sandbox.submission, sandbox.submission_here)
        )
        if problems != expected or sandbox.damaged not in problems:
            faults.append(
                f"{PROBLEMS} lists {sorted(problems)}; here {sorted(expected)}, and "
                f"{sandbox.damaged} is damaged"
            )
        if faults:
            raise HearbackError("\n".join(["the submission is wrong:", *faults]))
        return [
            dry_run.describe(sandbox),
            f"main.py took {seconds:.0f} s; its scores equal this environment's to {largest:.1e}",
        ]


def add_arguments(parser: argparse.ArgumentParser, data: Path) -> None:
    """Add the flags of a dry run; `data` is the default folder of recordings."""
    add = parser.add_argument
    add("--zip", type=Path, default=Path("submission.zip"), help="zip to try")
    add("--data", type=Path, default=data, help="folder of test recordings")
    add(
        "--python",
        type=Path,
        default=Path(".venv-runtime/bin/python"),
        help="interpreter of an environment with only requirements/runtime.txt",
    )
    add("--clips", type=int, default=30, help="number of recordings to score")


def check_submission(dry_run: DryRun[S], python: Path) -> None:
    """Do a dry run in the environment of `python` and print the result."""
    environment = check_environment(python)
    namespace = can_unshare()
    lines = run_dry_run(dry_run, python, namespace=namespace)
    isolation = "a network namespace, a read-only mount" if namespace else "no namespace available"
    print(f"dry run in {environment}; {isolation}, and a guard on sockets and files")
    for line in lines:
        print(line)
