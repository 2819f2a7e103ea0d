"""The memory budget for loaded models."""

import ctypes
import os
import sys
from pathlib import Path

import torch

from hearback.engine.errors import HearbackError

GB = 1e9
SHARE_FOR_MODELS = 0.5  # of the free memory; activations need the rest
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container
_MEMORY = Path("/proc/meminfo")


def memory_for_models(device: torch.device, memory_gb: float | None) -> float:
    """Return the memory budget for loaded models, in bytes; by default half of the free memory.

    Raises HearbackError if the free memory is unknown or `memory_gb` is not positive.
    """
    if memory_gb is not None:
        if not memory_gb > 0:
            raise HearbackError(f"--memory_gb {memory_gb:g}: must be above zero")
        return memory_gb * GB
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return SHARE_FOR_MODELS * free
    return SHARE_FOR_MODELS * _free_memory()


def _free_memory() -> float:
    """Return the free main memory in bytes, or the total if only that is known."""
    if sys.platform == "win32":
        return _free_memory_of_windows()
    if not _MEMORY.exists():  # not Linux
        if not hasattr(os, "sysconf"):
            raise HearbackError("the size of the memory is unknown on this system: set --memory_gb")
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    lines = dict(line.split(":") for line in _MEMORY.read_text(encoding="utf-8").splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    limit = "max"
    if _CGROUP_LIMIT.exists():
        limit = _CGROUP_LIMIT.read_text(encoding="utf-8").strip()
    return available if limit == "max" else min(available, int(limit))


def _free_memory_of_windows() -> float:
    """Return the free main memory in bytes, as Windows reports it."""
    # MEMORYSTATUSEX as numbers of 64 bits: its own size, the total memory, the free memory, ...
    status = (ctypes.c_uint64 * 8)(ctypes.sizeof(ctypes.c_uint64) * 8)
    if not vars(ctypes)["windll"].kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        raise HearbackError("the size of the memory is unknown on this system: set --memory_gb")
    return float(status[2])
