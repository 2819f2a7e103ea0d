"""A rehearsal of the competition's runtime: what submission.zip does there, on this machine.

    python -m hearback.rehearsal --zip demo/submission.zip --data demo/data

The zip is unpacked into an empty folder; data/ beside it holds some of the test recordings, read
only, some of them with a text that has no reference, one of them damaged. There `python main.py`
runs in an environment of nothing but `requirements-runtime.txt`, without a network, without the
project's files, without this process's environment variables. Its submission is compared, row by
row, with the format and with what infer.py gives here.

The network is shut off by a namespace of its own (`unshare`) where the machine allows it. In any
case each process has `hearback.rehearsal_guard`, which refuses sockets and the project's files.
"""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hearback import cli
from hearback.errors import HearbackError
from hearback.files import sha256_of
from hearback.submission import PROJECT, RUNTIME, listed_packages
from hearback.tables import PROBLEMS

GUARD = Path(__file__).with_name("rehearsal_guard.py")
# Said by nobody, so no corpus has them. Rendered, not scored well, is what they must be.
UNKNOWN_TEXTS = ("seven otters hid my kite", "plonkervidge", "a wug in a tin boat")
ARITHMETIC = ("--device", "cpu", "--precision", "float32")  # the same in both environments
TOLERANCE = 1e-4  # of a score
# A namespace without a network, in which data/ is mounted read-only; then the command.
NAMESPACE = ("unshare", "--user", "--map-root-user", "--net", "--mount")
MOUNT = 'mount --bind data data && mount -o remount,bind,ro data && exec "$@"'
LIST_PACKAGES = (
    "import importlib.metadata, json, sys; print(json.dumps([sys.version.split()[0], "
    "{d.metadata['Name']: d.version for d in importlib.metadata.distributions()}]))"
)


@dataclass(frozen=True)
class Stage:
    """Where a rehearsal plays: `runtime` is the folder of main.py, the rest is behind it.

    `unknown` and `damaged` are the filenames of the recordings that were made so.
    """

    runtime: Path
    backstage: Path
    unknown: tuple[str, ...]
    damaged: str

    @property
    def data(self) -> Path:
        """The smoke clips."""
        return self.runtime / "data"

    @property
    def guard_log(self) -> Path:
        """What the guard refused."""
        return self.backstage / "refused.txt"


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


def set_stage(archive: Path, data: Path, folder: Path, n_clips: int) -> Stage:
    """Unpack the zip into an empty folder and put smoke clips beside it."""
    runtime, backstage = folder / "runtime", folder / "backstage"
    for new in (runtime, backstage / "guard", backstage / "home", backstage / "tmp"):
        new.mkdir(parents=True)
    if not archive.is_file():
        raise HearbackError(f"{archive}: not there; pack it with python -m hearback.submission")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(runtime)
    shutil.copyfile(GUARD, backstage / "guard" / "sitecustomize.py")
    metadata = _choose_clips(data / "test_metadata.csv", n_clips)
    texts = UNKNOWN_TEXTS if (runtime / "packages").is_dir() else ()
    known = pd.read_csv(runtime / "tts_data" / "data_paths.csv", dtype=str)["text"]
    if not known[known.isin(texts)].empty:
        raise HearbackError(f"{archive}: has references of {', '.join(texts)}; choose other texts")
    metadata.loc[: len(texts) - 1, "expected_text"] = texts
    names = metadata["filename"].tolist()
    for name in names:
        target = runtime / "data" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / name, target)
    damaged = names[-1]
    (runtime / "data" / damaged).write_bytes((data / damaged).read_bytes()[:30])
    metadata.to_csv(runtime / "data" / "test_metadata.csv", index=False)
    # In another order than the metadata's.
    wanted = metadata[["filename"]][::-1].assign(score=0.0)
    wanted.to_csv(runtime / "data" / "submission_format.csv", index=False)
    return Stage(runtime, backstage, tuple(names[: len(texts)]), damaged)


def _choose_clips(path: Path, n_clips: int) -> pd.DataFrame:
    """Return rows of a metadata table, evenly from all of it."""
    if not path.is_file():
        raise HearbackError(f"{path}: not there; give --data the folder of test recordings")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if len(table) <= len(UNKNOWN_TEXTS):
        raise HearbackError(f"{path}: {len(table)} rows are too few for a rehearsal")
    return table.iloc[:: max(1, len(table) // n_clips)].head(n_clips).reset_index(drop=True)


def can_unshare() -> bool:
    """Return whether this machine lets a process have a network and mounts of its own."""
    try:
        return not subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode
    except OSError:
        return False


def play(stage: Stage, python: Path, *, namespace: bool) -> None:
    """Run main.py as the runtime does; HearbackError where it fails or does what it must not."""
    command: list[str | Path] = [python.absolute(), "main.py", *ARITHMETIC]
    if namespace:
        command = [*NAMESPACE, "sh", "-c", MOUNT, "sh", *command]
    environment = {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "HOME": str(stage.backstage / "home"),
        "TMPDIR": str(stage.backstage / "tmp"),
        "PYTHONPATH": str(stage.backstage / "guard"),
        "HEARBACK_GUARD_LOG": str(stage.guard_log),
        "HEARBACK_GUARD_PROJECT": str(PROJECT),
        **{name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ},
    }
    before = _digests(stage.data)
    _set_writable(stage.data, False)
    try:
        done = subprocess.run(command, cwd=stage.runtime, env=environment, check=False)
    finally:
        _set_writable(stage.data, True)
    faults = stage.guard_log.read_text().splitlines() if stage.guard_log.exists() else []
    if done.returncode:
        faults.append(f"main.py ended with status {done.returncode}")
    if _digests(stage.data) != before:
        faults.append("data/ was changed")
    if left := [path.name for path in (stage.backstage / "tmp").iterdir()]:
        faults.append(f"left in the folder of temporary files: {', '.join(left)}")
    if faults:
        raise HearbackError("\n".join(["the rehearsal failed:", *faults]))


def _digests(folder: Path) -> dict[Path, str]:
    return {path: sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _set_writable(folder: Path, writable: bool) -> None:
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | 0o200 if writable else mode & ~0o222)


def score_here(stage: Stage) -> Path:
    """Run the project's infer.py on the same recordings and folds; return its submission."""
    folder = stage.backstage / "here"
    shutil.copytree(stage.runtime / "tts_data", folder / "tts_data")
    paths = {
        "data": stage.data,
        "tts_data": folder / "tts_data",
        "store": folder / "store",
        "assets": stage.runtime / "assets",
        "config": stage.runtime / "model_configs.json",
        "submission": folder / "submission.csv",
    }
    flags = [part for name, path in paths.items() for part in (f"--{name}", str(path))]
    command = [sys.executable, str(PROJECT / "infer.py"), *flags, *ARITHMETIC]
    done = subprocess.run(command, cwd=PROJECT, check=False)
    if done.returncode:
        raise HearbackError(f"infer.py of this environment ended with status {done.returncode}")
    return paths["submission"]


def compare(submission: Path, wanted: Path, expected: Path) -> tuple[list[str], float]:
    """Compare a submission, row by row, with its format and with expected scores.

    Returns what is wrong, and the largest difference of a score.
    """
    faults, largest = [], 0.0
    rows, format_rows, expected_rows = map(_read_rows, (submission, wanted, expected))
    scores = dict(expected_rows[1:])
    if len(rows) != len(format_rows):
        faults.append(f"{len(rows) - 1} rows, not {len(format_rows) - 1}")
    if rows[:1] != [["filename", "score"]]:
        faults.append(f"header {rows[:1]}, not filename,score")
    for line, (row, wanted_row) in enumerate(zip(rows[1:], format_rows[1:], strict=False), 2):
        if len(row) != 2 or row[0] != wanted_row[0]:
            faults.append(f"line {line}: {row}, not the score of {wanted_row[0]}")
            continue
        score = _as_number(row[1])
        if not 0 <= score <= 1:
            faults.append(f"line {line}: {row[1]} is no probability")
        difference = abs(score - _as_number(scores.get(row[0], "nan")))
        largest = max(largest, difference)
        if not difference <= TOLERANCE:  # so said, NaN is a fault too
            faults.append(f"line {line}: {row[0]} {row[1]}, here {scores.get(row[0])}")
    return faults, largest


def _read_rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def listed_problems(path: Path) -> set[str]:
    """Return the recordings that a table of problems names; none where there is no table."""
    return set(pd.read_csv(path, dtype=str)["filename"]) if path.exists() else set()


def rehearse(
    archive: Path, data: Path, python: Path, n_clips: int, *, namespace: bool
) -> Iterable[str]:
    """Play the runtime and compare; return lines that tell of it, or raise HearbackError."""
    with tempfile.TemporaryDirectory(prefix="hearback-rehearsal-") as folder:
        stage = set_stage(archive, data, Path(folder), n_clips)
        start = time.monotonic()
        play(stage, python, namespace=namespace)
        seconds = time.monotonic() - start
        submission = stage.runtime / "submission.csv"
        wanted = stage.data / "submission_format.csv"
        faults, largest = compare(submission, wanted, score_here(stage))
        problems = listed_problems(submission.with_name(PROBLEMS))
        if problems != {stage.damaged}:
            faults.append(
                f"{PROBLEMS} names {sorted(problems)}, and {stage.damaged} alone is damaged"
            )
        if faults:
            raise HearbackError("\n".join(["the submission is not as it must be:", *faults]))
        n_rows = len(_read_rows(wanted)) - 1
    return [
        f"{n_rows} rows in the order of the format, {len(stage.unknown)} with texts that were "
        "rendered there, one damaged, listed and at its base rate",
        f"main.py took {seconds:.0f} s; scores are those of this environment, to {largest:.1e}",
    ]


def main() -> None:
    """Parse and rehearse."""
    parser = cli.parser("Play the competition's runtime, and compare what main.py writes there.")
    add = parser.add_argument
    add("--zip", type=Path, default=Path("submission.zip"), help="what would be submitted")
    add("--data", type=Path, default=Path("data"), help="folder of test recordings")
    add(
        "--python",
        type=Path,
        default=Path(".venv-runtime/bin/python"),
        help="of an environment with requirements-runtime.txt alone",
    )
    add("--clips", type=int, default=30, help="recordings to score")
    arguments = parser.parse_args()
    environment = check_environment(arguments.python)
    namespace = can_unshare()
    shut_off: Sequence[str] = (
        ("a network namespace", "a read-only mount") if namespace else ("no namespace to be had",)
    )
    told = rehearse(
        arguments.zip, arguments.data, arguments.python, arguments.clips, namespace=namespace
    )
    print(f"rehearsed in {environment}; {', '.join(shut_off)}, and a guard on sockets and files")
    for line in told:
        print(line)


if __name__ == "__main__":
    cli.run(main)
