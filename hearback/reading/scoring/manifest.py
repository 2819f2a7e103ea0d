"""What JSON lines, such as NeMo's manifests, have beside a table's columns: paths and durations."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.store import Store
from hearback.engine.data.problems import Problem, Report, quoted

DURATION = "duration"  # column, of a recording's length in s
_TOLERATED_SECONDS = 0.5


def locate(names: Sequence[str], manifest: Path, data: Path | None) -> tuple[Path, list[str]]:
    """Return the folder of a manifest's recordings, and their names, relative to it.

    The folder is `data`, if that is given; else the manifest's own; else, if all paths are absolute
    or one leads out of that, the common parent folder. Paths outside of it stay absolute.
    """
    folder = manifest.parent if data is None else data
    found = _relative_to(folder, names)
    given = [name for name in names if name]
    is_elsewhere = any(map(_is_absolute, found)) or all(map(_is_absolute, given))
    if data is not None or not given or not is_elsewhere:
        return folder, found
    # A relative path, perhaps a wrong one, does not make the absolute ones unusable.
    paths = [str(folder.absolute() / name) if name and _is_inner(name) else name for name in names]
    # Without links and "..": the parents of what is written.
    parents = [str(Path(os.path.normpath(path)).parent) for path in paths if _is_absolute(path)]
    folder = Path(os.path.commonpath(parents))
    return folder, _relative_to(folder, paths)


def _is_absolute(name: str) -> bool:
    return Path(name).is_absolute()


def _is_inner(name: str) -> bool:
    """Return whether a path is relative, and stays in its folder."""
    return not _is_absolute(name) and Path(os.path.normpath(name)).parts[:1] != ("..",)


def _relative_to(folder: Path, names: Sequence[str]) -> list[str]:
    """Return names relative to a folder, absolute ones that are not in it as they are."""
    roots = folder.absolute(), folder.resolve()
    return [_relative(name, roots) for name in names]


def _relative(name: str, roots: Sequence[Path]) -> str:
    path = Path(os.path.normpath(name))
    for root in roots if path.is_absolute() else ():
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return name


def read_durations(path: Path, frame: pd.DataFrame, report: Report) -> dict[str, float]:
    """Return the durations in s that a table at `path` tells, by filename; warn of invalid ones."""
    durations: dict[str, float] = {}
    for row in frame[frame[DURATION] != ""].to_dict("records"):
        try:
            seconds = float(row[DURATION])
        except ValueError:
            seconds = 0.0
        if 0 < seconds < float("inf"):
            durations[row["filename"]] = seconds
            continue
        what = f"its duration {quoted(row[DURATION])} is no length in seconds, and not used"
        cure = "correct it, or leave it out"
        report.add(Problem(str(path), row["line"], what, cure, "warning", row["filename"] or None))
    return durations


def report_other_lengths(
    path: Path, frame: pd.DataFrame, durations: Mapping[str, float], store: Store, report: Report
) -> None:
    """Warn of recordings that are longer or shorter than their table at `path` tells."""
    for row in frame[["filename", "line"]].to_dict("records"):
        name = row["filename"]
        if name not in durations or name not in store or store.entries[name].notes_of("cut"):
            continue
        told, seconds = durations[name], store.n_samples(name) / SAMPLE_RATE
        if abs(seconds - told) <= max(_TOLERATED_SECONDS, told / 10):
            continue
        what = f"its duration is {told:.1f} s, but the recording has {seconds:.1f} s, all scored"
        cure = "correct the duration, or put the recording that is meant there"
        if seconds > told:
            cure = "correct the duration, or cut the part that is meant into a recording of its own"
        report.add(Problem(str(path), row["line"], what, cure, "warning", name))
