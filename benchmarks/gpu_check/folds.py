"""Sections `fold`, `resume` and `two`: a fold of modeltok, a kill and a resume, two folds at once.

The two folds share a GPU. The sections run the scripts that a user runs.
"""

import math
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.setting import STRICT, Setting
from hearback.engine.devices import device_name
from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json
from hearback.engine.launch.processes import ROOT
from hearback.engine.training.fold_files import FoldFiles

MODEL = "modeltok"
POLL_SECONDS = 0.01
MAX_STARTS = 3  # of a training that ends before it can be killed
# On a GPU some kernels add in another order from run to run; on a CPU none does.
SAME_PREDICTIONS = {"cuda": 0.01, "cpu": 0.0}


def train_fold(setting: Setting, record: Record) -> None:
    """Train a fold, and check that it learned something."""
    clear(setting, "fold")
    seconds = run(setting, "fold", script(setting, 0))
    metadata = read_fold(setting, "fold", 0)
    loss, base = metadata["log_loss"], metadata["base_rate_log_loss"]
    record.check("log loss", math.isfinite(loss), f"{loss:.4f}", "a number")
    if setting.is_pretrained:
        record.check("log loss, pretrained", loss < base, f"{loss:.4f}", f"below {base:.4f}")
    expected = device_name(setting.torch_device).partition(",")[0]
    is_there = metadata["device"].startswith(expected)
    record.check("device", is_there, metadata["device"], expected)
    record.row(**describe(metadata), seconds_in_all=round(seconds, 1))


def kill_and_resume(setting: Setting, record: Record) -> None:
    """Kill a training after its first checkpoint; the next run must end as an undisturbed one."""
    expected = predictions(setting, "fold")
    clear(setting, "resume")
    checkpoint = files(setting, "resume", 0).checkpoint
    command = (*script(setting, 0), "--checkpoint_minutes", "0")
    for _ in range(MAX_STARTS):
        if was_killed := kill_after(setting, "resume", command, checkpoint):
            break
        files(setting, "resume", 0).metadata.unlink(missing_ok=True)
    record.check("killed after a checkpoint", was_killed, str(was_killed), "True")
    run(setting, "resume", command)
    log = log_path(setting, "resume").read_text(errors="replace")
    resumed = [line for line in log.splitlines() if "resumes after" in line]
    record.check("resumed", bool(resumed), resumed[-1] if resumed else "from the start", "resumed")
    difference = float(np.abs(predictions(setting, "resume") - expected).max())
    limit = SAME_PREDICTIONS[setting.torch_device.type]
    record.at_most("out-of-fold predictions, against the undisturbed fold", difference, limit)


def train_two_folds(setting: Setting, record: Record) -> None:
    """Train two folds at once, by train.py."""
    is_gpu = setting.is_gpu
    gpu = setting.torch_device.index or 0
    where = ("--gpus", str(gpu)) if is_gpu else ("--device", "cpu")
    if setting.device == STRICT:
        record.note("Two folds ran on the CPU: processes of train.py know no strict device.")
    command = ("train.py", "--models", MODEL, "--folds", "1", "2", "--jobs", "2", *where)
    clear(setting, "two")
    seconds = run(setting, "two", [*command, *flags(setting)])
    for fold in (1, 2):
        metadata = read_fold(setting, "two", fold)
        loss = metadata["log_loss"]
        record.check(f"fold {fold}: log loss", math.isfinite(loss), f"{loss:.4f}", "a number")
        record.row(**describe(metadata), seconds_in_all=round(seconds, 1))


def describe(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return a row on a trained fold."""
    names = ("fold", "log_loss", "base_rate_log_loss", "precision", "peak_memory_gb", "seconds")
    return {name: metadata[name] for name in names}


def script(setting: Setting, fold: int) -> tuple[str, ...]:
    """Return python's arguments that train a fold on the device."""
    strict = ("-m", "benchmarks.gpu_check.strict") if setting.device == STRICT else ()
    device = "cpu:1" if setting.device == STRICT else setting.device
    command = (f"train_{MODEL}.py", "--fold", str(fold), "--device", device)
    return (*strict, *command, *flags(setting))


def flags(setting: Setting) -> list[str]:
    """Return the flags of every training; `run` adds the folders that it writes to."""
    return [
        *("--data", str(setting.data), "--store", str(setting.store)),
        *("--backbone", str(setting.backbone), "--n_folds", "3"),
        *("--epochs", str(setting.sizes.n_epochs)),
    ]


def clear(setting: Setting, name: str) -> None:
    """Remove what an earlier check has left in the folder of this name, and its log."""
    shutil.rmtree(setting.work / name, ignore_errors=True)
    log_path(setting, name).unlink(missing_ok=True)


def run(setting: Setting, name: str, command: Sequence[str]) -> float:
    """Run python with `command` on the folder of this name; return the seconds that it took.

    Raises HearbackError with the last line of its output if it fails.
    """
    started = time.monotonic()
    process = start(setting, name, command)
    try:
        status = process.wait()
    finally:
        process.kill()
    if status:
        lines = log_path(setting, name).read_text(errors="replace").strip().splitlines()
        raise HearbackError(f"status {status}: {lines[-1] if lines else 'no output'}")
    return time.monotonic() - started


def start(setting: Setting, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start python with `command` on the folder of this name; its output is added to a log."""
    folder = setting.work / name
    folders = ("--assets", str(folder / "assets"), "--runs", str(folder / "runs"))
    with log_path(setting, name).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *command, *folders],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def kill_after(setting: Setting, name: str, command: Sequence[str], path: Path) -> bool:
    """Start a training and kill it when `path` appears; return False if it ended before."""
    process = start(setting, name, command)
    try:
        while not path.exists():
            if process.poll() is not None:
                return False
            time.sleep(POLL_SECONDS)
    finally:
        process.kill()
        process.wait()
    return path.exists()  # it could have ended just now, and removed it


def log_path(setting: Setting, name: str) -> Path:
    """Return the path of the output of a training."""
    return setting.work / f"{name}.training.log"


def files(setting: Setting, name: str, fold: int) -> FoldFiles:
    """Return the files of a fold in the folder of this name."""
    return FoldFiles(setting.work / name / "assets", MODEL, fold)


def read_fold(setting: Setting, name: str, fold: int) -> dict[str, Any]:
    """Return a fold's metadata."""
    metadata: dict[str, Any] = read_json(files(setting, name, fold).metadata)
    return metadata


def predictions(setting: Setting, name: str) -> np.ndarray:
    """Return the out-of-fold predictions of fold 0, (rows,). HearbackError if it is missing."""
    path = files(setting, name, 0).oof
    if not path.exists():
        raise HearbackError(f"{path} is missing: the section that trains it has failed")
    return pd.read_csv(path)["pred"].to_numpy()
