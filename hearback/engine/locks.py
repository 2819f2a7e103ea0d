"""Locks of folders that several processes write to."""

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

from filelock import FileLock, Timeout

from hearback.engine.errors import HearbackError

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class ReadOnlyFolderError(HearbackError):
    """A folder that cannot be written to."""


_refusal: ContextVar[str | None] = ContextVar("refusal", default=None)


@contextmanager
def refused(cure: str) -> Iterator[None]:
    """In this block, treat all folders as read-only; `cure` is what to do about it."""
    token = _refusal.set(cure)
    try:
        yield
    finally:
        _refusal.reset(token)


def are_refused() -> bool:
    """Return whether nothing may be written now."""
    return _refusal.get() is not None


@contextmanager
def write_lock(path: Path, cure: str, *, timeout: float = -1) -> Iterator[None]:
    """Hold the lock file `path`, whose folder is created; the system frees a killed process's lock.

    Args:
        path: the lock file, in the folder that will be written to.
        cure: what to do if the folder cannot be written to.
        timeout: seconds to wait for another process; by default without an end.

    Raises:
        ReadOnlyFolderError: the folder cannot be written to, or its disk has no locks; or writing
            is `refused`.
        Timeout: another process holds the lock.
    """
    if (refusal := _refusal.get()) is not None:
        name = path.name.removeprefix(".").removesuffix(".lock")
        raise ReadOnlyFolderError(
            f"{path.parent}: {name} is missing there, incomplete, or not up to date, and {refusal}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path).acquire(timeout=timeout)
    except OSError as error:
        if error.errno not in READ_ONLY or isinstance(error, TimeoutError):
            raise
        raise ReadOnlyFolderError(
            f"{path.parent}: cannot be written to ({error.strerror}); {cure}"
        ) from None
    except NotImplementedError:
        raise ReadOnlyFolderError(f"{path.parent}: its disk has no file locks; {cure}") from None
    with lock:
        yield


@contextmanager
def exclusive_lock(path: Path, cure: str, busy: str) -> Iterator[None]:
    """Hold a `write_lock` that is not waited for.

    Raises HearbackError with `busy`, what to do then, if another process holds it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(write_lock(path, cure, timeout=0))
        except Timeout:
            raise HearbackError(f"{path}: {busy}") from None
        yield
