"""Errors that no one foresaw, and Ctrl-C before a step runs."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hearback.engine import cli, failures
from hearback.engine.project import ROOT
from tests.helpers import environment_of_scripts

FILE = re.compile(r"\(traceback: (\S+hearback-traceback-\S+\.txt); HEARBACK_TRACEBACK=1 shows")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files; tracebacks are not shown."""
    monkeypatch.delenv(failures.SHOW_TRACEBACK, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["infer.py", "--data", "my data"])
    monkeypatch.setattr(cli, "_program", [])
    monkeypatch.setattr(cli, "_flags", set())
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=None))  # type: ignore[arg-type]
    return tmp_path


def run(error: BaseException, *flags: str) -> int | str | None:
    def main() -> None:
        steps = cli.parser(None)
        for flag in flags:
            steps.add_argument(flag)
        steps.parse_args([])
        raise error

    with pytest.raises(SystemExit) as stopped:
        cli.run(main)
    return stopped.value.code


def test_a_bug_is_one_line_and_its_traceback_is_in_a_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(KeyError("grade")) == failures.BUG_STATUS == 70
    (line,) = capsys.readouterr().err.splitlines()
    start = "python infer.py: unexpected KeyError: 'grade'; this is a bug; please report it"
    assert line.startswith(start)
    found = FILE.search(line)
    assert found is not None and Path(found[1]).parent == folder
    text = Path(found[1]).read_text()
    assert text.startswith("infer.py --data 'my data'\nPython ")
    assert "Traceback" in text and text.endswith("KeyError: 'grade'\n")


def test_the_environment_shows_the_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(failures.SHOW_TRACEBACK, "1")
    assert run(ZeroDivisionError()) == 70
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") and "(traceback:" not in shown
    assert shown.splitlines()[-1].startswith("python infer.py: unexpected ZeroDivisionError; ")
    assert list(folder.iterdir()) == []


def test_a_traceback_that_cannot_be_saved_is_shown(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(folder / "missing"))
    assert run(ZeroDivisionError()) == 70
    assert capsys.readouterr().err.startswith("Traceback")


def allocate() -> None:
    np.empty(2**60, np.int8)


def allocate_in_torch() -> None:
    torch.empty(2**58, dtype=torch.int8)


@pytest.mark.parametrize("allocation", [allocate, allocate_in_torch])
def test_lack_of_memory_has_a_cure(
    allocation: Callable[[], None], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as failed:
        allocation()
    assert run(failed.value, "--memory_gb", "--workers", "--device") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python infer.py: out of memory (")
    cure = "end other programs that use it, or use a smaller --memory_gb or --workers 0; then run"
    assert cure in line
    assert FILE.search(line)


@pytest.mark.parametrize(
    "message", ["CUDA out of memory. Tried to allocate 2 GiB.", "CUDA error: out of memory"]
)
def test_lack_of_a_gpus_memory_names_it(
    message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(torch.cuda.OutOfMemoryError(message), "--micro_batch", "--device") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"out of the GPU's memory ({message})" in line
    assert "use smaller parts of batches (--micro_batch N) or --device cpu; then" in line


def test_a_step_without_such_flags_is_offered_none(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(MemoryError()) == 2
    assert "out of memory: end other programs that use it; then run it again" in (
        capsys.readouterr().err
    )


def test_other_runtime_errors_are_bugs() -> None:
    assert not failures.is_out_of_memory(RuntimeError("shapes differ"))
    assert not failures.is_out_of_memory(ValueError("out of memory"))


OF_A_WORKER = """Caught KeyError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "dataset.py", line 3, in get
KeyError: 'grade'
"""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError(), ""),
        (ValueError("first\nsecond"), "first"),
        (KeyError(OF_A_WORKER), repr(OF_A_WORKER)),  # a KeyError quotes its message
        (RuntimeError(OF_A_WORKER), "KeyError: 'grade'"),
        (ValueError(OF_A_WORKER.replace("KeyError: 'grade'", "ValueError: grade")), "grade"),
    ],
)
def test_a_message_has_one_line(error: Exception, message: str) -> None:
    assert failures.message_of(error) == message


# Ctrl-C while modules are imported: in the place of one a module that waits.

WAITING = """
import signal, os, time
print("importing", flush=True)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
os.kill(os.getpid(), signal.SIGINT)
time.sleep(60)
"""
OWN = {
    "infer.py": (str(ROOT / "infer.py"), "--help"),
    "train_modeltok.py": (str(ROOT / "train_modeltok.py"), "--help"),
    "hearback": ("-m", "hearback", "infer", "--help"),
    "a module": ("-m", "hearback.reading.baselines.train", "--help"),
    "a recipe": ("-m", "hearback.songs.recipes.cnn4", "--help"),
}


def interrupted(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run python with a module that receives Ctrl-C; return its status and its errors."""
    (folder / "argparse.py").write_text(WAITING)  # which every step imports
    environment = {
        **environment_of_scripts(),
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
    }
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout == "importing\n"
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", OWN)
def test_ctrl_c_during_imports_prints_no_traceback(name: str, tmp_path: Path) -> None:
    assert interrupted(tmp_path, *OWN[name]) == (130, "stopped\n")


def test_programs_of_others_keep_their_traceback(tmp_path: Path) -> None:
    status, shown = interrupted(tmp_path, "-c", "import hearback, argparse")
    assert status == -signal.SIGINT
    assert shown.rstrip().endswith("KeyboardInterrupt") and "Traceback" in shown


def test_no_folder_for_numba_names_the_cure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "cannot cache function '__o_fold': no locator available for file 'notation.py'"
    assert run(RuntimeError(message)) == 2
    assert "NUMBA_CACHE_DIR=/tmp/numba; then run it again (traceback" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_ended_removes_its_temporary_files(
    tmp_path: Path, number: signal.Signals
) -> None:
    code = (
        "import os, signal, tempfile; from hearback.engine.failures import ended_by_signals\n"
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"  # nohup, perhaps around the tests
        f"with ended_by_signals(), tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
    )
    environment = environment_of_scripts()
    ended = subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=False)
    assert ended.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_signals_that_are_ignored_stay_so() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with failures.ended_by_signals():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
