"""The device that a model is on, and what it holds."""

import ctypes
import os
import sys

# Of malloc.h, for mallopt(3), which takes C integers.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST_BYTES = 2**31 - 1
_MOST_BYTES_BEFORE_2_35 = 2**25  # glibc refused a higher threshold for mmap


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
