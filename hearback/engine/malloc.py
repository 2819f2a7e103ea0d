"""Configure glibc's malloc to keep freed memory."""

import ctypes
import os
import sys

# Constants of malloc.h, for mallopt(3), which takes C integers.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MAX_BYTES = 2**31 - 1
_MAX_BYTES_BEFORE_2_35 = 2**25  # the highest mmap threshold that older glibc accepts


def keep_freed_memory() -> bool:
    """Let the C library reuse the memory of freed tensors; return whether it does so now.

    By default glibc returns large blocks to the kernel, and every step requests them again. The
    kernel then clears each page, which may take longer than the matrix product that fills it
    (docs/results/performance.md). Changes nothing with another C library, or if the environment
    already configures malloc.
    """
    if sys.platform != "linux" or any(map(configures_malloc, os.environ)):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not mallopt(_TRIM_THRESHOLD, _MAX_BYTES):
        return False
    return any(
        mallopt(_MMAP_THRESHOLD, n_bytes) for n_bytes in (_MAX_BYTES, _MAX_BYTES_BEFORE_2_35)
    )


def configures_malloc(variable: str) -> bool:
    """Return whether an environment variable configures glibc's malloc."""
    return variable == "GLIBC_TUNABLES" or variable.startswith("MALLOC_")
