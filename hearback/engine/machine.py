"""What parsers and schedulers need to know of a machine, without importing torch."""

import ctypes
import math
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

    In a container it is at most the container's limit minus its use. Cached files are not counted
    as use: the system takes their memory back.
    """
    if sys.platform == "win32":
        return _free_memory_of_windows()
    if not _MEMORY.exists():  # not Linux
        return None
    lines = dict(line.split(":") for line in _MEMORY.read_text(encoding="utf-8").splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024.0
    return min(available, _free_in_container())


def _free_in_container() -> float:
    """Return the bytes that a container's limit leaves (cgroup v2); infinite without a limit."""
    limit = _CGROUP_LIMIT.read_text(encoding="utf-8").strip() if _CGROUP_LIMIT.exists() else "max"
    if limit == "max":
        return math.inf
    use, stat = _CGROUP_LIMIT.with_name("memory.current"), _CGROUP_LIMIT.with_name("memory.stat")
    used = int(use.read_text(encoding="utf-8")) if use.exists() else 0
    if stat.exists():
        counts = dict(line.split() for line in stat.read_text(encoding="utf-8").splitlines())
        used -= sum(int(counts.get(name, 0)) for name in ("active_file", "inactive_file"))
    return max(0.0, float(limit) - max(0, used))


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
