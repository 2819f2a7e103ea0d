"""Requests to the hub: what a commit holds, and files that are fetched from where they stopped.

The client itself fetches an interrupted file from its start in the next process, loses up to 10 MB
at each cut, and compares sizes only; here every received byte is kept and the content is checked.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hearback.engine.hub.messages import (
    CutError,
    is_network_error,
    reason_of,
    seconds_to_wait,
    status_of,
)
from hearback.engine.io import sha256_of

TIMEOUT_SECONDS = 10.0  # without a byte
# Seconds before the requests after failed ones; the count starts again with every byte received.
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
LONGEST_WAIT = 60.0  # that the hub may ask for
_RETRIED = (408, 416, 429, 500, 502, 503, 504)
_BLOCK = 1 << 16
_SHA256_LENGTH = 64
T = TypeVar("T")


@dataclass(frozen=True)
class HubFile:
    """A file of a commit.

    Attributes:
        name: path within the model.
        url: address of the file at that commit.
        digest: SHA-256 of large files, git's SHA-1 of small ones; on mirrors perhaps another tag.
        n_bytes: size; None if the hub does not say.
    """

    name: str
    url: str
    digest: str
    n_bytes: int | None

    @property
    def is_checkable(self) -> bool:
        """Whether the digest is of the content."""
        return re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", self.digest) is not None

    @property
    def key(self) -> str:
        """The name of the file while it is downloaded: an address could have a path in it."""
        tag = self.digest.encode()
        return self.digest if self.is_checkable else f"tag-{hashlib.sha256(tag).hexdigest()}"

    def digest_of(self, path: Path) -> str:
        """Return a file's digest of the same kind; `digest` itself if there is none to check."""
        if not self.is_checkable:
            return self.digest
        if len(self.digest) == _SHA256_LENGTH:
            return sha256_of(path)
        content = path.read_bytes()
        header = f"blob {len(content)}\0".encode()
        return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def read_commit(hub_id: str, revision: str | None) -> tuple[str, list[str]]:
    """Return the commit that a branch, tag or commit names now, and its files' names."""
    from huggingface_hub import HfApi  # noqa: PLC0415  (inference has no network)

    try:
        info = HfApi().model_info(hub_id, revision=revision, timeout=TIMEOUT_SECONDS)
    except (TypeError, KeyError, AttributeError) as error:  # of JSON that is no model
        raise ValueError("other JSON than of a model") from error
    if not info.sha or info.siblings is None:
        raise ValueError("JSON without a commit")
    return info.sha, [each.rfilename for each in info.siblings]


def read_file(hub_id: str, commit: str, name: str) -> HubFile:
    """Return the digest and size of a file at a commit."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url  # noqa: PLC0415

    url = hf_hub_url(hub_id, name, revision=commit)
    found = get_hf_file_metadata(url, timeout=TIMEOUT_SECONDS)
    if found.etag is None or found.commit_hash is None:
        raise ValueError(f"{name} without a commit and a digest")
    return HubFile(name, url, found.etag, found.size)


def fetch(file: HubFile, part: Path, on_bytes: Callable[[int], None]) -> None:
    """Append what is missing of a file to `part`; raise `CutError` if it is still not whole.

    `on_bytes` is called with the number of bytes added, which is negative if the server starts
    the file again.
    """
    n_present = part.stat().st_size if part.exists() else 0
    if file.n_bytes is not None and n_present > file.n_bytes:
        part.unlink()
        on_bytes(-n_present)
        n_present = 0
    if n_present == file.n_bytes:
        part.touch()  # of an empty file
        return
    try:
        with _open(file.url, n_present) as (status, blocks):
            is_rest = n_present > 0 and status == 206
            if n_present and not is_rest:
                on_bytes(-n_present)
            with part.open("ab" if is_rest else "wb", buffering=0) as out:
                for block in blocks:
                    out.write(block)
                    on_bytes(len(block))
    except Exception as error:
        if status_of(error) == 416:  # of a file whose size the hub does not say
            part.unlink(missing_ok=True)
            on_bytes(-n_present)
        raise
    n_found = part.stat().st_size
    if file.n_bytes is not None and n_found != file.n_bytes:
        raise CutError(f"the connection ended after {n_found} of {file.n_bytes} bytes")


@contextmanager
def _open(url: str, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Open a file from a byte on; yield the answer's status and its blocks of bytes."""
    from huggingface_hub.utils import (  # noqa: PLC0415
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    session: Any = get_session()
    if callable(getattr(session, "stream", None)):  # httpx
        with session.stream("GET", url, headers=headers, timeout=TIMEOUT_SECONDS) as response:
            hf_raise_for_status(response)
            yield response.status_code, response.iter_bytes()
        return
    # requests: clients before 1.0
    with session.get(url, headers=headers, timeout=TIMEOUT_SECONDS, stream=True) as response:
        hf_raise_for_status(response)
        yield response.status_code, response.iter_content(_BLOCK)


def retry(
    action: Callable[[], T],
    log: Callable[[str], None],
    n_received: Callable[[], int] | None = None,
) -> T:
    """Return what `action` returns; call it again after errors that pass.

    Args:
        action: raises its errors.
        log: called with a line for each repetition.
        n_received: returns the number of bytes received so far; None for a first request, which is
            repeated only if the hub answers: a machine without a network is told so at once.

    Raises:
        Exception: the last error, of a kind that does not pass or one too many.
    """
    n_failures = n_before = 0
    while True:
        try:
            return action()
        except Exception as error:
            if n_received is not None and n_received() > n_before:
                n_failures, n_before = 0, n_received()
            answered = status_of(error) is not None
            seconds = _seconds_before_retry(error, n_failures)
            if seconds is None or (n_received is None and not answered):
                raise
            log(f"{_what_happened(error)}; trying again in {seconds:g} s")
        time.sleep(seconds)
        n_failures += 1


def _seconds_before_retry(error: Exception, n_failures: int) -> float | None:
    """Return the seconds to wait, or None to give up."""
    status = status_of(error)
    passes = status in _RETRIED if status is not None else is_network_error(error)
    if not passes or n_failures == len(WAITS):
        return None
    asked = seconds_to_wait(error) or 0.0
    return None if asked > LONGEST_WAIT else max(asked, WAITS[n_failures])


def _what_happened(error: Exception) -> str:
    status = status_of(error)
    return f"the hub answers {status}" if status is not None else reason_of(error)
