"""Child processes that never become orphans: they end when their parent ends.

Uses only the standard library: `cluster` sends this module's functions to machines that may be
unable to import the project.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[3]  # `project.ROOT`, which cannot be imported here
BOUND = Path(__file__).with_name("bound.py")
GRACE_SECONDS = 10.0
_STOP_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []),  # Windows has none
)
SHOW_TRACEBACK = "HEARBACK_TRACEBACK"  # `failures.SHOW_TRACEBACK`, which cannot be imported here


class Stopped(BaseException):
    """This process was asked to end by a signal; holds the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.strsignal(number))
        self.number = number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` in the block on Ctrl-C (SIGINT), SIGTERM and, except on Windows, SIGHUP.

    Signals that are already ignored (nohup) stay ignored. Only for the main thread.
    """
    received = signal.SIGINT

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = signal.Signals(number)
        raise KeyboardInterrupt  # the exception that libraries expect

    numbers = [number for number in _STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(received) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    log: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start python with `arguments`; append its output to `log`, or print it if None.

    `environment` defaults to this process's. The child has its own session, so that Ctrl-C reaches
    it only once, through `stop`. On Linux the system ends the child when the calling thread ends,
    also if this process is killed.
    """
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    environment = with_project_path(os.environ if environment is None else environment)
    if log is not None:  # tracebacks too: this may be another machine's temporary folder
        environment = {SHOW_TRACEBACK: "1", **environment}
    with nullcontext() if log is None else log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(BOUND), str(os.getpid()), *arguments],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if log is None else subprocess.STDOUT,
            start_new_session=True,
        )


def with_project_path(environment: Mapping[str, str]) -> dict[str, str]:
    """Add the project to PYTHONPATH, so that `-m` finds its modules from any folder."""
    paths = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths)}


def stop(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Interrupt processes, kill those that do not end in time, and wait for all of them."""
    running = [process for process in processes if process.poll() is None]
    try:
        for process in running:
            process.send_signal(signal.SIGINT)
        until = time.monotonic() + GRACE_SECONDS
        for process in running:
            process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:  # also after a second Ctrl-C
        for process in running:
            process.kill()
            process.wait()


def run_on_shared_folders(
    arguments: Sequence[str], folder: Path, needed: Sequence[Path], log: Path
) -> tuple[int | str, float]:
    """Run python with `arguments` in `folder`; return its exit status and the seconds it took.

    If this machine lacks `folder` or a `needed` path, nothing is run and an error message is
    returned in place of the status.
    """
    if missing := [str(path) for path in (folder, *needed) if not path.exists()]:
        return f"{socket.gethostname()} does not see {', '.join(missing)}: share the folder", 0.0
    started = time.monotonic()
    process = start(arguments, folder=folder, log=log)
    try:
        status = process.wait()
    finally:
        stop([process])
    return status, time.monotonic() - started
