"""Digests that are remembered as long as their files stay as they are."""

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any


class KnownDigests:
    """The SHA-256 of files, of which a JSON file remembers those that were asked for before.

    To digest the weights of sixty folds of whisper-medium is to read tens of gigabytes. A digest is
    believed only while its file's size, its time of modification and that of its last change of any
    kind (which no program can set) are what they were when it was read. What is remembered can be
    deleted at any time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, Any]] = {}
        if path.exists():
            try:
                self._known = dict(read_json(path))
            except (ValueError, TypeError):  # nothing that could not be found out again
                self._known = {}
        self._found: dict[str, dict[str, Any]] = {}

    def of(self, path: Path) -> str:
        """Return the file's SHA-256 in hexadecimal."""
        before = _state(path)
        known = self._known.get(str(path.absolute()))
        if not isinstance(known, dict) or known.get("state") != before or "sha256" not in known:
            known = {"sha256": sha256_of(path), "state": before}
            if _state(path) != before:  # it was written to meanwhile
                return known["sha256"]
        self._found[str(path.absolute())] = known
        return known["sha256"]

    def keep(self) -> None:
        """Remember what was asked for, and what was known of other files that are still there."""
        others = {path: known for path, known in self._known.items() if Path(path).exists()}
        if (digests := {**others, **self._found}) != self._known:
            write_json(self._path, digests)


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


_MOST_LETTERS = 48  # of a name that a temporary name repeats: file systems have 255 bytes for it


def open_file(path: Path) -> BufferedReader:
    """Open a file for reading. Raises OSError where it is none: a pipe or a device never ends."""
    # Without O_NONBLOCK, to open a pipe waits for somebody who writes to it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a file", str(path))
    return os.fdopen(descriptor, "rb")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there when the block ends without an error.

    A process killed in the block leaves `path` as it was, and so does a disk that is full. The
    temporary name starts with a dot and ends with `path`'s suffix, so that writers which choose a
    format by suffix still work.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(
        prefix=f".{path.stem[:_MOST_LETTERS]}-", suffix=path.suffix, dir=path.parent
    )
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp's 0600 would keep the file from the others of a shared machine.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename is None:  # of writing, where only opening names the file
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401  (JSON is any of its types)
    """Write `value` as indented JSON, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Read a JSON file. Raises OSError where it is none, ValueError where it is not JSON."""
    with open_file(path) as file:
        content = file.read()
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal, read in blocks."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
