"""Files: atomic writes, JSON, and SHA-256 digests that are cached while files are unchanged."""

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any

from hearback.engine.errors import HearbackError

STANDARD_OUTPUT = Path("-")  # on a command line, in place of a file


class DigestCache:
    """SHA-256 digests of files, cached in a JSON file.

    Digesting the weights of sixty folds of whisper-medium reads tens of gigabytes. A cached digest
    is valid only while its file's size, modification time (mtime) and change time (ctime, which no
    program can set) are unchanged. The JSON file can be deleted at any time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cached: dict[str, dict[str, Any]] = {}
        if path.exists():
            try:
                self._cached = dict(read_json(path))
            except (ValueError, TypeError):  # damaged: compute the digests again
                self._cached = {}
        self._current: dict[str, dict[str, Any]] = {}

    def sha256(self, path: Path) -> str:
        """Return the file's SHA-256 in hexadecimal."""
        before = _state(path)
        entry = self._cached.get(str(path.absolute()))
        if not isinstance(entry, dict) or entry.get("state") != before or "sha256" not in entry:
            entry = {"sha256": sha256_of(path), "state": before}
            if _state(path) != before:  # the file was written to in the meantime
                return entry["sha256"]
        self._current[str(path.absolute())] = entry
        return entry["sha256"]

    def save(self) -> None:
        """Write the digests computed or used so far, and cached ones of files that still exist."""
        existing = {path: entry for path, entry in self._cached.items() if Path(path).exists()}
        if (digests := {**existing, **self._current}) != self._cached:
            try:
                write_json(self._path, digests)
            except OSError as error:  # without a cache, digests are computed again
                if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                    raise


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


_MAX_PREFIX = 48  # characters of a file's name in its temporary name: the limit is 255 bytes


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading. Raises OSError for pipes and devices: they may not end."""
    # Without O_NONBLOCK, opening a pipe blocks until another process opens it for writing.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a file", str(path))
    return os.fdopen(descriptor, "rb")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block raises no error.

    If the process is killed in the block or the disk is full, `path` stays unchanged. The temporary
    name starts with a dot and ends with `path`'s suffix, for writers that choose a format by it.
    """
    check_is_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.stem[:_MAX_PREFIX]}-", suffix=path.suffix, dir=path.parent
        )
    except OSError as error:  # of a name that the user does not know
        error.filename = str(path)
        raise
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp's 0600 would hide the file from other users of a shared machine.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename is None:  # errors of writing, unlike opening, name no file
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory beside `path`; rename it to `path` if the block succeeds.

    Raises HearbackError if `path` exists.
    """
    if path.exists():
        raise HearbackError(f"{path} exists already: remove it or choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    complete = temporary / "complete"  # with the usual permissions; mkdtemp's are 0700
    try:
        complete.mkdir()
        yield complete
        complete.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_is_file(path: Path) -> None:
    """Raise HearbackError if a folder, a device or a pipe is in the place of an output file.

    The system's administrator could replace a device, such as /dev/null, by the file.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise HearbackError(f"{path}: is {kind}, and cannot be replaced; name a file")


def check_writable(path: Path) -> None:
    """Create the folder of an output file; call it before long work.

    Raises HearbackError if the folder cannot be created or written to, or the file be replaced.
    """
    check_is_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise HearbackError(
            f"{path}: cannot be written ({error.strerror}); choose a path in a writable folder"
        ) from None


def check_apart(outputs: Iterable[Path], flags: str) -> None:
    """Raise HearbackError if an output file would replace another one; `flags` choose them."""
    seen: set[str] = set()
    for path in outputs:
        name = os.path.realpath(path)
        if name in seen:
            raise HearbackError(f"{path}: would be written twice; choose another file with {flags}")
        seen.add(name)


def check_not_read(outputs: Iterable[Path], inputs: Iterable[str | Path], flags: str) -> None:
    """Raise HearbackError if an output file would replace an input; `flags` choose the outputs."""
    there = [path for path in outputs if path.exists()]
    if not there:
        return
    read = set(map(_caseless, inputs))
    for path in there:
        if _caseless(path) in read:
            raise HearbackError(
                f"{path}: is read, and would be replaced by the scores; choose another file with "
                f"{flags}"
            )


def _caseless(path: str | Path) -> str:
    """Return where a path leads to, without case: clip.txt and clip.TXT may be one file."""
    return os.path.realpath(path).casefold()


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401  (any JSON type)
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Read a JSON file. Raises OSError if it is no regular file, ValueError if it is not JSON."""
    with open_file(path) as file:
        return parse_json(file.read())


def parse_json(content: bytes) -> Any:  # noqa: ANN401
    """Parse the content of a JSON file. Raises ValueError if it is not JSON."""
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal; reads in blocks."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_sha256(path: Path) -> str:
    """Return `sha256_of` a file, computed once for all folds of this process that use it."""
    status = path.stat()
    return _sha256_of_state(path, status.st_mtime_ns, status.st_size)


@lru_cache
def _sha256_of_state(path: Path, _modified_ns: int, _n_bytes: int) -> str:
    return sha256_of(path)
