"""Where a table of scores came from: kept beside it, so that its page can be made again."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json, sha256_of, write_json


@dataclass(frozen=True)
class Origin:
    """What a table of scores was made of.

    Attributes:
        folders: folders and files that were read, by the name of their flag: data, assets, …
        scorer: name of a shipped scorer; "" for none, or for one of `folders`.
        tables: further tables that the same run wrote, by name; those that have been changed since
            are left out.
        is_current: whether the table is still the one that was written.
    """

    folders: Mapping[str, Path] = field(default_factory=dict)
    scorer: str = ""
    tables: Mapping[str, Path] = field(default_factory=dict)
    is_current: bool = True


def origin_path(table: Path) -> Path:
    """Return the file of a table's origin: x_origin.json beside x.csv."""
    return table.with_name(f"{table.stem}_origin.json")


def write_origin(table: Path, origin: Origin) -> None:
    """Write the origin of a table beside it; the table must exist."""
    base = table.resolve().parent
    tables = {
        name: {"path": _relative(path, base), "sha256": sha256_of(path)}
        for name, path in origin.tables.items()
    }
    value = {
        "sha256": sha256_of(table),
        "scorer": origin.scorer,
        "folders": {name: _relative(path, base) for name, path in origin.folders.items()},
        "tables": tables,
    }
    write_json(origin_path(table), value)


def read_origin(table: Path) -> Origin | None:
    """Return the origin of a table, None if either is missing; HearbackError if it is damaged."""
    path = origin_path(table)
    if not path.is_file() or not table.is_file():
        return None
    try:
        return _parse(read_json(path), table)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise HearbackError(
            f"{path}: cannot be read ({error}); delete it, and name what it stands for with --data"
        ) from None


def _parse(value: dict[str, Any], table: Path) -> Origin:
    base = table.resolve().parent
    tables = {
        str(name): _absolute(each["path"], base)
        for name, each in value["tables"].items()
        if _has_digest(base / each["path"], each["sha256"])
    }
    folders = {str(name): _absolute(path, base) for name, path in value["folders"].items()}
    return Origin(folders, str(value["scorer"]), tables, _has_digest(table, value["sha256"]))


def _has_digest(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_of(path) == digest


def _absolute(path: str, base: Path) -> Path:
    """Return the path that `_relative` has made relative to `base`."""
    return Path(os.path.normpath(base / path))


def _relative(path: Path, base: Path) -> str:
    """Return a path as seen from the table: both may be moved together."""
    resolved = path.resolve()
    try:
        return Path(os.path.relpath(resolved, base)).as_posix()
    except ValueError:  # another drive
        return str(resolved)
