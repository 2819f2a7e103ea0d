"""Report unforeseen errors in one line, and end quietly on Ctrl-C while packages are imported.

Only the standard library is imported here, and quickly: the package imports this module first.
"""

import contextlib
import os
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FrameType, TracebackType

from hearback.engine.project import ROOT, SHIPPED

SHOW_TRACEBACK = "HEARBACK_TRACEBACK"  # environment variable: 1 shows tracebacks
USER_ERROR_STATUS = 2
BUG_STATUS = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED_STATUS = 130  # of a process that Ctrl-C ends, as shells report it

# Parts of the messages of torch's errors that have no class of their own.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "killed by signal: Killed",  # of a loading process, by the system
)
# Of librosa's numba, for a user who can write neither to the packages nor to a home.
_NO_NUMBA_CACHE = "no locator available"
_NUMBA_CURE = (
    "numba has no folder that it can write to; name one with the environment variable "
    "NUMBA_CACHE_DIR, such as NUMBA_CACHE_DIR=/tmp/numba; then run it again"
)
# Cures for lack of memory, by the flag that a step must have.
_MEMORY_CURES = {
    "memory_gb": "a smaller --memory_gb",
    "micro_batch": "smaller parts of batches (--micro_batch N)",
    "jobs": "--jobs 1",
    "workers": "--workers 0",
    "device": "--device cpu",
}


def report(error: BaseException, step: str, flags: Collection[str] = ()) -> int:
    """Print one line on an unforeseen error, on standard error; return the exit status.

    The traceback is written to a file, which the line names; with HEARBACK_TRACEBACK=1 it is
    printed above the line instead.

    Args:
        error: the exception.
        step: the command that was run, such as "python infer.py".
        flags: the step's flags, without dashes: the cure for lack of memory names some of them.
    """
    where = _save_traceback(error)
    if is_out_of_memory(error):
        print(f"{step}: {_describe_memory(error, flags)}{where}", file=sys.stderr)
        return USER_ERROR_STATUS
    if isinstance(error, RuntimeError) and _NO_NUMBA_CACHE in str(error):
        print(f"{step}: {_NUMBA_CURE}{where}", file=sys.stderr)
        return USER_ERROR_STATUS
    name, message = type(error).__name__, message_of(error)
    what = f"{name}: {message}" if message else name
    cure = "this is a bug; please report it with its traceback"
    print(f"{step}: unexpected {what}; {cure}{where}", file=sys.stderr)
    return BUG_STATUS


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the memory of this machine, or of its GPU, was too small."""
    # By name: torch may not be imported, and 2.4 has the class elsewhere than later versions.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in _OUT_OF_MEMORY)


def message_of(error: BaseException) -> str:
    """Return an exception's message in one line, without another process's traceback in it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return ""
    has_traceback = any(line.startswith(("Original Traceback", "Traceback")) for line in lines)
    message = lines[-1] if has_traceback else lines[0]
    return message.removeprefix(f"{type(error).__name__}: ")


def _describe_memory(error: BaseException, flags: Collection[str]) -> str:
    message = message_of(error)
    is_gpu = "CUDA" in message or "CUBLAS" in message
    smaller = [
        cure
        for flag, cure in _MEMORY_CURES.items()
        if flag in flags and (is_gpu or flag != "device")
    ]
    cure = f", or use {' or '.join(smaller)}" if smaller else ""
    said = f" ({message})" if message else ""
    memory = "the GPU's memory" if is_gpu else "memory"
    return f"out of {memory}{said}: end other programs that use it{cure}; then run it again"


def _save_traceback(error: BaseException) -> str:
    """Print or save a traceback; return where it is, for the end of a line."""
    lines = traceback.format_exception(error)
    if os.environ.get(SHOW_TRACEBACK, "") not in ("", "0"):
        print("".join(lines), file=sys.stderr, end="")
        return ""
    try:
        descriptor, name = tempfile.mkstemp(prefix="hearback-traceback-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines([f"{shlex.join(sys.argv)}\nPython {sys.version}\n", *lines])
    except OSError:  # a full disk: the bug must not be lost
        print("".join(lines), file=sys.stderr, end="")
        return ""
    return f" (traceback: {name}; {SHOW_TRACEBACK}=1 shows it here)"


def quiet_interrupts() -> None:
    """Let Ctrl-C end this project's programs with status 130, and without a traceback.

    `cli.run` does so while a step runs. This is for the seconds before, in which scripts import
    torch and more. Programs of others that import the package are not affected.
    """
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not (issubclass(kind, KeyboardInterrupt) and _is_own_program()):
            previous(kind, error, trace)
            return
        with contextlib.suppress(OSError, ValueError):
            print("stopped", file=sys.stderr, flush=True)
            sys.stdout.flush()
        os._exit(INTERRUPTED_STATUS)  # otherwise Python ends with SIGINT, and no status

    sys.excepthook = hook


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise SystemExit in the block on SIGTERM and SIGHUP, so that it removes temporary files.

    SIGHUP is that of a closed terminal. The status is that of a process that the signal ends.
    Signals that are ignored (nohup) or handled otherwise stay so. Only for the main thread.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _is_own_program() -> bool:
    """Return whether this process runs a script of the project, its command, or one of its modules.

    While `python -m` looks for the module, only the command line says which it is.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return spec.name.partition(".")[0] == "hearback"
    if sys.argv[:1] == ["-m"]:
        return any(each.partition(".")[0] == "hearback" for each in sys.orig_argv[1:])
    file = getattr(main, "__file__", None)
    if file is None:  # interactive
        return False
    path = Path(file)
    return path.stem == "hearback" or path.resolve().parent in (ROOT, SHIPPED)
