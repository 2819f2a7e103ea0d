"""Snippets of songs: which there are, what sings in them, and what must be held out together.

The data folder has `train/`, the snippets, and `train_label.txt`, a line `train_0000.ogg,3` for
each, without a header. Where `manifest.csv` (file, singers, music) stands beside them, snippets are
grouped by singer. As in `hearback.engine.data.tables`, faults go into a report, and the rows stay.
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
SECONDS = 3.0  # of every snippet

FOLDER = "train"  # of the snippets that have labels, in the data folder

# Of the formats that libsndfile reads, those that songs are kept in.
SUFFIXES = frozenset(
    {".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav"}
)

_NO_LABEL = -1


def labels_path(data: Path) -> Path:
    """Return where the labels lie in the data folder."""
    return data / "train_label.txt"


def read_snippets(data: Path, report: Report) -> pd.DataFrame:
    """Read the labelled snippets of the folder `data`.

    Returns a row for each line of `train_label.txt`, also of those with problems:

    - filename: relative to `data`, e.g. "train/train_0000.ogg"
    - label: int64, an index of `CLASSES`; -1 where the line has none
    - line: int64, of `train_label.txt`
    - singers: joined by ";", "" where nobody sings or no manifest tells
    - group: what no two folds may share: the first singer; where nobody sings, "music: " and the
      music; without a manifest the filename

    Problems go into `report`; a snippet in the folder that has no label is a warning.
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
    """List the audio files of a folder and of those in it, known by their suffix.

    Returns the columns filename, relative to `folder` and sorted, and line, int64, 1, 2, … Raises
    HearbackError where there is no such folder, or no such file in it.
    """
    if not folder.is_dir():
        raise HearbackError(f"{folder}: there is no such folder; name the one with the snippets")
    names = sorted(_audio_files(folder))
    if not names:
        endings = ", ".join(sorted(SUFFIXES))
        raise HearbackError(f"{folder}: no audio files; put the snippets there ({endings})")
    lines = np.arange(1, len(names) + 1, dtype=np.int64)
    return pd.DataFrame({"filename": names, "line": lines}).astype({"filename": str})


def _audio_files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        # Macs and whole_file() leave files whose names begin with a dot.
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            yield path.relative_to(folder).as_posix()


def _check_folder(data: Path, names: pd.Series, report: Report) -> None:
    """Report the snippets of the folder that have no label."""
    known = set(names)
    for name in sorted(_audio_files(data / FOLDER)):
        if name not in known:
            what = "a snippet without a label, left out"
            cure = f"add its line to {labels_path(data).name}, or remove the file"
            report.add(Problem(str(data / FOLDER), None, what, cure, "warning", name))


def _groups(
    path: Path, labels: Path, names: pd.Series, snippets: pd.DataFrame, report: Report
) -> dict[str, list[str]]:
    """Return the columns `singers` and `group` of the snippets, as the manifest at `path` says."""
    if not path.is_file():
        what = "no manifest, so a singer may stand on both sides of a fold, which flatters scores"
        cure = "say in its columns file, singers and music who sings over what"
        report.add(Problem(str(path), None, what, cure, "warning"))
        return {"singers": [""] * len(names), "group": snippets["filename"].tolist()}
    table = read_table(path, ("file", "singers", "music"), report)
    sources = {
        row["file"]: (_singers(row["singers"]), row["music"])
        for row in table.frame[table.fits].to_dict("records")
    }
    singers, groups = [], []
    for name, snippet in zip(names, snippets.to_dict("records"), strict=True):
        sung_by, music = sources.get(name, ("", ""))
        singers.append(sung_by)
        first, _, _ = sung_by.partition(";")
        groups.append(first or (f"music: {music}" if music else snippet["filename"]))
        fault: tuple[str, str] | None = None
        if sources and name and name not in sources:
            fault = "no row for the snippet in the manifest", f"add one to {path}"
        elif sources and snippet["label"] > 0 and not sung_by:
            fault = "somebody sings, and the manifest does not say who", f"say it in {path}"
        if fault:
            report.add(Problem(str(labels), snippet["line"], *fault, filename=name))
    return {"singers": singers, "group": groups}


def _singers(field: str) -> str:
    return ";".join(name.strip() for name in field.split(";") if name.strip())
