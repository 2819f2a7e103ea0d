"""The device that a model is on, and what it holds."""

import ctypes
import os
import sys

import torch

from hearback.errors import HearbackError

# Of malloc.h, for mallopt(3), which takes C integers.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST_BYTES = 2**31 - 1
_MOST_BYTES_BEFORE_2_35 = 2**25  # glibc refused a higher threshold for mmap


def choose_device(name: str | None) -> torch.device:
    """Return the device asked for, or a GPU where there is one and the CPU where not.

    For a CPU, memory that is freed is kept from then on (`keep_freed_memory`). Raises HearbackError
    for a device that this machine does not have.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise HearbackError(f"--device {name}: {str(error).splitlines()[0]}") from None
    if device.type == "cpu":
        keep_freed_memory()
    return device


def keep_freed_memory() -> bool:
    """Let the C library keep what tensors free, for the next ones; return whether it does so now.

    glibc hands large blocks back to the kernel, and every step asks for them again: the kernel then
    clears each page anew, which may take longer than the matrix product that fills it
    (docs/performance.md). Nothing is changed for another C library, nor where the environment says
    how malloc is to work.
    """
    if sys.platform != "linux" or any(map(rules_malloc, os.environ)):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not mallopt(_TRIM_THRESHOLD, _MOST_BYTES):
        return False
    return any(
        mallopt(_MMAP_THRESHOLD, n_bytes) for n_bytes in (_MOST_BYTES, _MOST_BYTES_BEFORE_2_35)
    )


def rules_malloc(variable: str) -> bool:
    """Return whether an environment variable says how glibc's malloc is to work."""
    return variable == "GLIBC_TUNABLES" or variable.startswith("MALLOC_")


def default_workers(device: torch.device) -> int:
    """Return how many processes load and augment: none on a CPU, whose cores the model wants."""
    return min(8, torch.get_num_threads()) if device.type == "cuda" else 0


def device_name(device: torch.device) -> str:
    """Return the device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def peak_memory_gb(device: torch.device) -> float:
    """Return the most memory that this process has held so far, on the device, in GB (10⁹ bytes).

    On a CPU that is the process's resident set; NaN on Windows, which does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if sys.platform == "win32":
        return float("nan")
    import resource  # noqa: PLC0415  (not on Windows)

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
