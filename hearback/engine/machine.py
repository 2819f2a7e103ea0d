"""What parsers and schedulers need to know of a machine, without importing torch."""

import ctypes
import os
import sys
from pathlib import Path

from hearback.engine.errors import HearbackError

TRAINING_PRECISIONS = ("auto", "float32", "bfloat16", "float16")
PRECISIONS = (*TRAINING_PRECISIONS, "int8")
_MEMORY = Path("/proc/meminfo")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


def count_processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> float | None:
    """Return the main memory that processes can still get, in bytes; None where it is unknown.

    In a container it is at most the container's limit.
    """
    if sys.platform == "win32":
        return _free_memory_of_windows()
    if not _MEMORY.exists():  # not Linux
        return None
    lines = dict(line.split(":") for line in _MEMORY.read_text(encoding="utf-8").splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024.0
    limit = "max"
    if _CGROUP_LIMIT.exists():
        limit = _CGROUP_LIMIT.read_text(encoding="utf-8").strip()
    return available if limit == "max" else min(available, float(limit))


def _free_memory_of_windows() -> float | None:
    """Return the free main memory in bytes, as Windows reports it; None if it does not."""
    # MEMORYSTATUSEX as numbers of 64 bits: its own size, the total memory, the free memory, ...
    status = (ctypes.c_uint64 * 8)(ctypes.sizeof(ctypes.c_uint64) * 8)
    if not vars(ctypes)["windll"].kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return float(status[2])


def check_can_stop_processes(command: str) -> None:
    """Raise HearbackError on Windows, for a command that runs others in processes of their own.

    They are ended by signals (so that they save their work), and with their parent: Windows has
    neither.
    """
    if sys.platform == "win32":
        raise HearbackError(
            f"{command} does not run on Windows, which lacks the signals that end a training with "
            "its parent: use Linux in WSL 2"
        )
