"""Functions that several test files share."""

import contextlib
import errno
import io
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.project import ROOT
from hearback.engine.training.fold_files import FoldFiles
from hearback.engine.training.trainer import PendingStep, Trainer


def tone(
    hertz: float = 440.0,
    seconds: float = 0.3,
    sample_rate: int = SAMPLE_RATE,
    peak: float = 0.5,
    n_harmonics: int = 1,
) -> np.ndarray:
    """Return a tone, (n,) float32; `peak` is the amplitude of the fundamental."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    harmonics = [
        np.sin(2 * np.pi * number * hertz * times) / number for number in range(1, n_harmonics + 1)
    ]
    return (peak * np.sum(harmonics, axis=0)).astype(np.float32)


def written(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return the time of the last change and the size of all that is in a folder."""
    states = {path: path.stat() for path in folder.rglob("*")}
    return {path: (state.st_mtime_ns, state.st_size) for path, state in states.items()}


def environment_of_scripts() -> dict[str, str]:
    """Return the environment for commands outside the checkout: our modules, one thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run_python(*arguments: object, folder: Path, status: int = 0) -> str:
    """Run python in `folder`, check its exit status, and return its output."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment_of_scripts(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def run_script(script: object, *flags: object, folder: Path, status: int = 0) -> str:
    """Run a script of the checkout's root with `run_python`."""
    return run_python(ROOT / str(script), *flags, folder=folder, status=status)


def run_main(
    main: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    folders: tuple[str, ...],
    *flags: str,
) -> int:
    """Call a step's `main` with a `--NAME folder/NAME` flag for each of `folders`, and `flags`."""
    places = [f"--{name}={folder / name}" for name in folders]
    monkeypatch.setattr(sys, "argv", ["step.py", *places, *flags])
    return main()


def run_step(step: ModuleType, folder: Path, *flags: str) -> tuple[Any, str, str]:
    """Run a step's module as the command line does, with the data and assets in `folder`.

    Returns its exit status, output and errors.
    """
    folders = ["--data", str(folder / "data"), "--assets", str(folder / "assets")]
    output, errors = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        pytest.raises(SystemExit) as ended,
    ):
        patch.setattr(sys, "argv", ["step.py", *folders, *flags])
        runpy.run_path(str(step.__file__), run_name="__main__")
    return ended.value.code, output.getvalue(), errors.getvalue()


def reading_flags(backbone: Path, epochs: int = 1) -> list[object]:
    """Return the flags of a short training of the reading competition."""
    settings = ["--set", "learning_rate=0.01", "--set", "batch_size=4"]
    flags = ["--n_folds", 3, "--backbone", backbone, "--epochs", epochs, "--preset", "small"]
    return [*flags, *settings]


def start_training(*flags: object, folder: Path) -> subprocess.Popen[str]:
    """Start train.py in `folder` on a CPU, without waiting for it."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *map(str, flags), "--device", "cpu"],
        cwd=folder,
        env=environment_of_scripts(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(happened: Callable[[], object], seconds: float = 20) -> None:
    """Wait until `happened` returns a true value; fail after `seconds`."""
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def is_running(process: int) -> bool:
    """Return whether a process, of any parent, is running and not a zombie (Linux)."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def results(files: FoldFiles) -> list[bytes]:
    """Return the contents of a fold's predictions and weights."""
    return [path.read_bytes() for path in (files.oof, files.weights)]


@contextlib.contextmanager
def recorded_steps(kill_at: int | None = None) -> Iterator[list[float]]:
    """Yield the learning rate factors of all steps; raise KeyboardInterrupt at step `kill_at`."""
    training_step, factors = Trainer.training_step, list[float]()

    def recorded(self: Trainer, batch: Any, factor: float) -> PendingStep:
        if len(factors) == kill_at:
            raise KeyboardInterrupt
        factors.append(factor)
        return training_step(self, batch, factor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "training_step", recorded)
        yield factors


def make_read_only(
    monkeypatch: pytest.MonkeyPatch, folder: Path, number: int = errno.EROFS
) -> None:
    """Refuse all writing below `folder`, as a read-only mount does, also to root."""

    def refuse(name: str, is_write: Callable[..., bool]) -> None:
        original = getattr(os, name)

        def guarded(path: Any, *args: Any, **kwargs: Any) -> Any:
            below = isinstance(path, str | os.PathLike) and Path(path).is_relative_to(folder)
            if below and is_write(*args, **kwargs):
                raise OSError(number, os.strerror(number), str(path))
            return original(path, *args, **kwargs)

        monkeypatch.setattr(os, name, guarded)

    def for_writing(flags: int = 0, *_: Any, **__: Any) -> bool:
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))

    refuse("open", for_writing)
    for name in ("mkdir", "unlink", "rename", "replace", "truncate", "utime", "chmod"):
        refuse(name, lambda *_, **__: True)
    original_open = io.open

    def guarded_open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        below = isinstance(file, str | os.PathLike) and Path(file).is_relative_to(folder)
        if below and set(mode) & set("wax+"):
            raise OSError(number, os.strerror(number), str(file))
        return original_open(file, mode, *args, **kwargs)

    monkeypatch.setattr(io, "open", guarded_open)
    monkeypatch.setattr("builtins.open", guarded_open)
