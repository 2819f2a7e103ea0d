"""Silence C libraries that write to stderr.

libmpg123, which is in libsndfile, writes lines on damaged MP3s that name no file
("[src/libmpg123/layer3.c…] error: …"). libsndfile has no option against it.
"""

import contextlib
import ctypes
import os
import platform
import threading
from collections.abc import Iterator


class _CStderr:
    """The variable `stderr` of glibc; other C libraries may have a constant."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_silencers = 0
        self._before: int | None = None  # its value without silencers
        self._variable: ctypes.c_void_p | None = None
        self._null: int | None = None  # /dev/null, as a FILE*; never closed
        if platform.libc_ver()[0] == "glibc":
            library = ctypes.CDLL(None)
            library.fopen.restype = ctypes.c_void_p
            self._null = library.fopen(b"/dev/null", b"we")
            self._variable = ctypes.c_void_p.in_dll(library, "stderr")
            os.register_at_fork(after_in_child=self._restore)

    @contextlib.contextmanager
    def silenced(self) -> Iterator[None]:
        if self._variable is None or self._null is None:
            yield
            return
        with self._lock:
            self._n_silencers += 1
            if self._n_silencers == 1:
                self._before, self._variable.value = self._variable.value, self._null
        try:
            yield
        finally:
            with self._lock:
                self._n_silencers -= 1
                if self._n_silencers == 0:
                    self._variable.value = self._before

    def _restore(self) -> None:
        """Undo what threads have done that do not exist in this process, which was forked."""
        self._lock = threading.Lock()
        if self._n_silencers and self._variable is not None:
            self._n_silencers, self._variable.value = 0, self._before


_c_stderr = _CStderr()


def silenced() -> contextlib.AbstractContextManager[None]:
    """Drop what C code of all threads writes with `fprintf(stderr, …)` meanwhile.

    Only the C library's variable changes. File descriptor 2 stays, so what Python, C++ streams and
    child processes write is not affected. With another C library than glibc, nothing changes.
    """
    return _c_stderr.silenced()
