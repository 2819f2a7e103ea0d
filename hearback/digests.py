"""Digests that are remembered as long as their files stay as they are."""

from pathlib import Path
from typing import Any

from hearback.files import read_json, sha256_of, write_json


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
