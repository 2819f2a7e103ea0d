"""Read files with libsndfile, and say in our words why it refuses one."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile

from hearback.engine.audio.c_stderr import silenced
from hearback.engine.audio.notes import DAMAGED, UNKNOWN_CODEC

# Samples of all channels per read, 64 MB as float32: a usual clip is read at once.
_BLOCK_SAMPLES = 1 << 24

# Error codes of libsndfile.
_UNKNOWN_FORMAT, _UNKNOWN_ENCODING = 1, 4

# libsndfile keeps the error of a failed open in a global, which other threads' opens overwrite.
_opening = threading.Lock()


def _renew_lock() -> None:
    """Unlock in a forked process: a thread that held the lock does not exist there."""
    global _opening  # noqa: PLW0603
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_lock)


class _Seekable:
    """A file for libsndfile, which seeks in front of the beginning of damaged files.

    An exception in its callback would be printed with a traceback, and go no further.
    """

    def __init__(self, content: BinaryIO) -> None:
        self.read, self.tell, self._seek = content.read, content.tell, content.seek
        self.readinto = content.readinto  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position; leave it where that is impossible."""
        try:
            return self._seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return self.tell()


@contextlib.contextmanager
def open_sound(content: BinaryIO) -> Iterator[soundfile.SoundFile]:
    """Open a file's content from its beginning. Raises soundfile.LibsndfileError.

    Meanwhile C code writes nothing to stderr.
    """
    content.seek(0)
    with silenced():
        with _opening:
            file = soundfile.SoundFile(_Seekable(content))
        with file:
            yield file


def read_blocks(file: soundfile.SoundFile, n_wanted: int) -> Iterator[np.ndarray]:
    """Yield the first samples of a file, (n, channels) float32."""
    n_read = 0
    while n_read < n_wanted:
        n_asked = min(n_wanted - n_read, max(1, _BLOCK_SAMPLES // file.channels))
        block = file.read(n_asked, dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        yield block
        n_read += len(block)


def is_unknown_format(error: soundfile.LibsndfileError) -> bool:
    """Return whether libsndfile knows no format that a file may have."""
    return bool(error.code == _UNKNOWN_FORMAT)


def is_unknown_codec(error: soundfile.LibsndfileError) -> bool:
    """Return whether another decoder may know the encoding that libsndfile does not."""
    # A chunk that describes an unknown codec is "malformed" in its words.
    return error.code in (_UNKNOWN_FORMAT, _UNKNOWN_ENCODING) or "fmt " in error.error_string


def describe(error: soundfile.LibsndfileError, cut: str | None) -> str:
    """Return why libsndfile refuses a recording; `cut` is why it is known to break off."""
    is_encoding = error.code == _UNKNOWN_ENCODING or "unimplemented" in error.error_string
    return cut or (UNKNOWN_CODEC if is_encoding else DAMAGED)
