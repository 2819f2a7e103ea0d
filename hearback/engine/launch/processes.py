"""Processes that end with the one that started them.

Only the standard library is used: `cluster` sends this module's functions to machines that need not
be able to import the project.
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

ROOT = Path(__file__).parents[3]  # `project.ROOT`, which may not be imported here
BOUND = Path(__file__).with_name("bound.py")
GRACE_SECONDS = 10.0


class Stopped(BaseException):
    """Somebody, or the system, wants this process to end; holds the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.strsignal(number))
        self.number = number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Leave the block with `Stopped` on Ctrl-C, SIGTERM and a closed terminal.

    What we were started deaf to (nohup) stays so. Only the main thread can do this.
    """
    heard = signal.SIGINT

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        heard = signal.Signals(number)
        raise KeyboardInterrupt  # libraries expect this, and no other

    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(heard) from None
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
    """Run python with `arguments` in a process of its own; its output is added to `log`.

    Without a log it talks to the terminal, without an environment it has ours. The process is in a
    session of its own, so that Ctrl-C reaches it through `stop`, once. When the thread that called
    this ends, the system ends the process, too, also where ours is killed (Linux alone can do so).
    """
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if log is None else log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(BOUND), str(os.getpid()), *arguments],
            env=with_our_modules(os.environ if environment is None else environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if log is None else subprocess.STDOUT,
            start_new_session=True,
        )


def with_our_modules(environment: Mapping[str, str]) -> dict[str, str]:
    """Let `-m` find the project's modules from any folder."""
    paths = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths)}


def stop(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Interrupt processes, and kill those that do not end; return when all have ended."""
    running = [process for process in processes if process.poll() is None]
    try:
        for process in running:
            process.send_signal(signal.SIGINT)
        until = time.monotonic() + GRACE_SECONDS
        for process in running:
            process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:  # also where somebody presses Ctrl-C again
        for process in running:
            process.kill()
            process.wait()


def run_on_shared_folders(
    arguments: Sequence[str], folder: Path, needed: Sequence[Path], log: Path
) -> tuple[int | str, float]:
    """Run python with `arguments` in `folder`; return its exit status and the seconds it took.

    Where this machine does not see all that is `needed`, nothing is run, and what is wrong stands
    in the status's place.
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
