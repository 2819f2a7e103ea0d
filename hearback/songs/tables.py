"""Tables of the snippets: labels, singers, and groups for cross-validation.

The data folder contains the snippets in `train/`, and their classes in `train_label.txt`: no
header, and a line such as `train_0000.ogg,3` for each snippet. With a `manifest.csv` (file,
singers, music), snippets are grouped by singer. As in `hearback.engine.data.tables`, problems are
added to a report, and their rows are kept.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.data.problems import Problem, Report, quoted
from hearback.engine.data.tables import read_table
from hearback.engine.errors import HearbackError

CLASSES = ("no voice", "male", "female", "several")
N_CLASSES = len(CLASSES)
NO_VOICE, MALE, FEMALE, SEVERAL = range(N_CLASSES)
SECONDS = 3.0  # of every snippet

FOLDER = "train"  # of the labelled snippets, in the data folder

# Formats of libsndfile that are common for music.
SUFFIXES = frozenset(
    {".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav"}
)

_NO_LABEL = -1


def labels_path(data: Path) -> Path:
    """Return the path of the labels in the data folder."""
    return data / "train_label.txt"


def read_snippets(data: Path, report: Report) -> pd.DataFrame:
    """Read the labelled snippets of the folder `data`.

    Returns one row for each line of `train_label.txt`, including lines with problems:

    - filename: relative to `data`, e.g. "train/train_0000.ogg"
    - label: int64, an index of `CLASSES`; -1 if invalid
    - line: int64, line number in `train_label.txt`
    - singers: names joined by ";"; "" without a singer or without a manifest
    - group: for cross-validation: the first singer; without a singer, "music: " and the piece of
      music; without a manifest, the filename

    Problems are added to `report`; a snippet without a label is a warning.
    """
    path = labels_path(data)
    table = read_table(path, ("filename", "label"), report, has_header=False)
    frame = table.frame
    names = frame["filename"]
    labels = {str(label): label for label in range(N_CLASSES)}
    classes = ", ".join(f"{label} {name}" for label, name in enumerate(CLASSES))
    for row in frame[table.fits & ~frame["label"].isin(labels)].to_dict("records"):
        what = f"the class is {quoted(row['label'])}"
        cure = f"a class is one of {classes}; the file has no header"
        report.add(Problem(str(path), row["line"], what, cure, filename=row["filename"] or None))
    _check_folder(data, names, report)
    snippets = pd.DataFrame(
        {
            "filename": [f"{FOLDER}/{name}" if name else "" for name in names],
            "label": [labels.get(label, _NO_LABEL) for label in frame["label"]],
            "line": frame["line"],
        }
    ).astype({"filename": str, "label": np.int64, "line": np.int64})
    return snippets.assign(**_groups(data / "manifest.csv", path, names, snippets, report))


def list_snippets(folder: Path) -> pd.DataFrame:
    """List the audio files of a folder and its subfolders, recognized by their suffix.

    Returns the columns filename, relative to `folder` and sorted, and line, int64, 1, 2, … Raises
    HearbackError if the folder does not exist or has no audio files.
    """
    if not folder.is_dir():
        raise HearbackError(f"{folder}: no such folder; pass the folder with the snippets")
    names = sorted(_audio_files(folder))
    if not names:
        endings = ", ".join(sorted(SUFFIXES))
        raise HearbackError(f"{folder}: no audio files; put the snippets there ({endings})")
    lines = np.arange(1, len(names) + 1, dtype=np.int64)
    return pd.DataFrame({"filename": names, "line": lines}).astype({"filename": str})


def _audio_files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        # macOS and atomic_write() create files with names that start with a dot.
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            yield path.relative_to(folder).as_posix()


def _check_folder(data: Path, names: pd.Series, report: Report) -> None:
    """Report snippets in the folder that have no label."""
    known = set(names)
    for name in sorted(_audio_files(data / FOLDER)):
        if name not in known:
            what = "a snippet without a label, left out"
            cure = f"add its line to {labels_path(data).name}, or remove the file"
            report.add(Problem(str(data / FOLDER), None, what, cure, "warning", name))


def _groups(
    path: Path, labels: Path, names: pd.Series, snippets: pd.DataFrame, report: Report
) -> dict[str, list[str]]:
    """Return the columns `singers` and `group` of the snippets, from the manifest at `path`."""
    if not path.is_file():
        what = "no manifest: a singer may be in training and validation, which inflates scores"
        cure = "add it, with the columns file, singers and music"
        report.add(Problem(str(path), None, what, cure, "warning"))
        return {"singers": [""] * len(names), "group": snippets["filename"].tolist()}
    table = read_table(path, ("file", "singers", "music"), report)
    sources = {
        row["file"]: (_singers(row["singers"]), row["music"])
        for row in table.frame[table.fits].to_dict("records")
    }
    singers, groups = [], []
    for name, snippet in zip(names, snippets.to_dict("records"), strict=True):
        singer_names, music = sources.get(name, ("", ""))
        singers.append(singer_names)
        first, _, _ = singer_names.partition(";")
        groups.append(first or (f"music: {music}" if music else snippet["filename"]))
        fault: tuple[str, str] | None = None
        if sources and name and name not in sources:
            fault = "no row for the snippet in the manifest", f"add one to {path}"
        elif sources and snippet["label"] > NO_VOICE and not singer_names:
            fault = (
                "the manifest names no singer for a snippet with a voice",
                f"add the name to {path}",
            )
        if fault:
            report.add(Problem(str(labels), snippet["line"], *fault, filename=name))
    return {"singers": singers, "group": groups}


def _singers(field: str) -> str:
    return ";".join(name.strip() for name in field.split(";") if name.strip())
