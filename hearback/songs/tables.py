"""Tables of the snippets: labels, singers, and groups for cross-validation.

The data folder contains the snippets in `train/`, and their classes in `train_label.txt`: no
header, and a line such as `train_0000.ogg,3` for each snippet. With a `manifest.csv` (file,
singers, music), snippets are grouped by singer. As in `hearback.engine.data.tables`, problems are
added to a report, and their rows are kept.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.data import corrections
from hearback.engine.data.corrections import Corrections, LabelledTable
from hearback.engine.data.filenames import match_names
from hearback.engine.data.problems import Problem, Report, quoted
from hearback.engine.data.tables import read_table, respelled
from hearback.engine.errors import HearbackError

CLASSES = ("no voice", "male", "female", "several")
N_CLASSES = len(CLASSES)
LABELS = {label: f"{label} ({name})" for label, name in enumerate(CLASSES)}  # in messages
NO_VOICE, MALE, FEMALE, SEVERAL = range(N_CLASSES)
SECONDS = 3.0  # of every snippet

FOLDER = "train"  # of the labelled snippets, in the data folder

# Files that are certainly no recordings. A file with any other suffix, or without one, may be one.
_NO_RECORDING = re.compile(
    r"(readme|licen[cs]e|notice|version|makefile"
    r"|.*\.(csv|tsv|txt|json|jsonl|md|rst|xml|ya?ml|toml|ini|cfg|log|html?|pdf|docx?|odt|xlsx?|ods"
    r"|png|jpe?g|gif|svg|bmp|tiff?|zip|tar|gz|tgz|bz2|xz|7z|rar|py|ipynb|sh|np[yz]|pt|safetensors"
    r"|lock|db|cue|m3u8?|pls|lrc|srt|nfo|md5|sha1|sha256|textgrid))",
    re.IGNORECASE,
)
_MAX_SKIPPED_LISTED = 10

_NO_LABEL = -1

# Other names of the tables' columns: an error suggests to rename them.
_SYNONYMS = {
    "filename": ("file", "path", "audio", "clip", "snippet"),
    "label": ("class", "target", "score"),
    "file": ("filename", "path", "audio", "clip", "snippet"),
    "singers": ("singer", "artists", "artist", "speaker"),
    "music": ("piece", "song", "track", "work"),
}


def labels_path(data: Path) -> Path:
    """Return the path of the labels in the data folder."""
    return data / "train_label.txt"


def probabilities_path(submission: Path) -> Path:
    """Return the path of a submission's class probabilities."""
    return submission.with_name(f"{submission.stem}_probabilities.csv")


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
    table = read_table(path, ("filename", "label"), report, has_header=False, synonyms=_SYNONYMS)
    frame = table.frame
    names = frame["filename"]
    values = frame["label"].map(_class_number)
    classes = ", ".join(f"{label} {name}" for label, name in enumerate(CLASSES))
    for row in frame[table.fits & (values == _NO_LABEL)].to_dict("records"):
        what = f"the class is {quoted(row['label'])}"
        cure = f"a class is one of {classes}; the file has no header"
        report.add(Problem(str(path), row["line"], what, cure, filename=row["filename"] or None))
    _check_folder(data, names, report)
    snippets = pd.DataFrame(
        {
            "filename": [f"{FOLDER}/{name}" if name else "" for name in names],
            "label": values,
            "line": frame["line"],
        }
    ).astype({"filename": str, "label": np.int64, "line": np.int64})
    return snippets.assign(**_groups(data / "manifest.csv", path, names, snippets, report))


def _class_number(written: str) -> int:
    """Return the index of a class, `_NO_LABEL` for other texts.

    Also of a spreadsheet's 3.0, and of 3,0 where commas are decimal.
    """
    number = re.sub(r"^([0-9])[.,]0+$", r"\1", written)
    return {str(label): label for label in range(N_CLASSES)}.get(number, _NO_LABEL)


def read_corrections(
    path: Path | None, data: Path, snippets: pd.DataFrame, report: Report
) -> Corrections:
    """Read the corrections of the table of `read_snippets`; none without a path.

    Classes are numbers or names. Snippets may be named without their folder, as in the labels. A
    snippet that is left out may have any problem: those that are in `report` are removed.
    """

    def parse(written: str) -> float:
        by_name = {name: label for label, name in enumerate(CLASSES)}
        label = by_name.get(written.casefold(), _class_number(written))
        return np.nan if label == _NO_LABEL else float(label)

    filenames, labels = snippets["filename"].tolist(), snippets["label"].to_numpy()
    table = LabelledTable(labels_path(data), filenames, labels, LABELS, parse, FOLDER)
    found = corrections.read_corrections(path, table, report)
    found.discard_problems(report)
    return found


def correct(snippets: pd.DataFrame, found: Corrections) -> pd.DataFrame:
    """Return the snippets that are kept, with their corrected labels."""
    kept, labels = found.apply(snippets, snippets["label"].to_numpy())
    return kept.assign(label=labels)


def read_corrected_snippets(
    data: Path, corrections_path: Path | None, report: Report | None = None
) -> tuple[pd.DataFrame, Corrections]:
    """Read the labelled snippets with corrections applied.

    Warnings go into `report`. Raises BadInputError, which lists all problems.
    """
    report = Report() if report is None else report
    snippets = read_snippets(data, report)
    corrected = read_corrections(corrections_path, data, snippets, report)
    report.raise_if_errors()
    return correct(snippets, corrected), corrected


@dataclass(frozen=True)
class FolderListing:
    """The files of a folder and its subfolders, relative to it, with '/', sorted.

    Attributes:
        recordings: every file that may be a recording, also without a suffix or with one that
            nothing is known of. A name that is not UTF-8 has U+FFFD for each wrong byte.
        skipped: hidden files and files that are certainly no recordings, by their suffix or name;
            hidden folders and links to folders, with "/" at the end.
    """

    recordings: tuple[str, ...]
    skipped: tuple[str, ...]

    def describe_skipped(self) -> str:
        """Return a line that names the skipped files; "" if there are none."""
        if not self.skipped:
            return ""
        listed = ", ".join(map(quoted, self.skipped[:_MAX_SKIPPED_LISTED]))
        n_more = len(self.skipped) - _MAX_SKIPPED_LISTED
        more = f" and {n_more} more" if n_more > 0 else ""
        return f"skipped, for they are no recordings: {listed}{more}"


def list_folder(folder: Path) -> FolderListing:
    """List a folder and its subfolders. Links to folders are not followed.

    Raises HearbackError if there is no such folder, or one in it cannot be read.
    """
    if not folder.is_dir():
        raise HearbackError(f"{folder}: no such folder; pass the folder with the snippets")

    def refuse(error: OSError) -> None:
        raise HearbackError(
            f"{error.filename}: cannot be listed: {error.strerror}; make it readable, or move it "
            "elsewhere"
        ) from None

    recordings: list[str] = []
    skipped: list[str] = []
    for root, subfolders, names in os.walk(folder, onerror=refuse):
        inside = Path(root).relative_to(folder)
        for name in [*subfolders]:
            if _is_hidden(name) or (Path(root) / name).is_symlink():
                subfolders.remove(name)
                skipped.append(f"{_utf8(inside / name)}/")
        for name in names:
            listed = recordings if _may_be_recording(name) else skipped
            listed.append(_utf8(inside / name))
    return FolderListing(tuple(sorted(recordings)), tuple(sorted(skipped)))


def list_snippets(folder: Path) -> pd.DataFrame:
    """List every file of a folder and its subfolders that may be a recording (`list_folder`).

    Returns the columns filename, relative to `folder` and sorted, and line, int64, 1, 2, … Raises
    HearbackError if the folder does not exist or has no such files.
    """
    listing = list_folder(folder)
    if not listing.recordings:
        what = f"{folder}: no audio files; put the snippets there (.flac, .mp3, .ogg, .wav, …)"
        raise HearbackError("; ".join(filter(None, (what, listing.describe_skipped()))))
    names = list(listing.recordings)
    lines = np.arange(1, len(names) + 1, dtype=np.int64)
    return pd.DataFrame({"filename": names, "line": lines}).astype({"filename": str})


def _may_be_recording(name: str) -> bool:
    return not _is_hidden(name) and not _NO_RECORDING.fullmatch(name)


def _is_hidden(name: str) -> bool:
    # macOS and atomic_write() create files with names that start with a dot.
    return name.startswith(".") or name == "__MACOSX"


def _utf8(path: Path) -> str:
    """Return a relative path, with '/', as UTF-8 can write it."""
    return os.fsencode(path.as_posix()).decode("utf-8", errors="replace")


def _check_folder(data: Path, names: pd.Series, report: Report) -> None:
    """Report snippets in the folder that have no label."""
    folder = data / FOLDER
    there = list_folder(folder).recordings if folder.is_dir() else ()
    known = {*names, *match_names(names, there).values()}
    for name in there:
        if name not in known:
            what = "a snippet without a label, left out"
            cure = f"add its line to {labels_path(data).name}, or remove the file"
            report.add(Problem(str(folder), None, what, cure, "warning", name))


def _groups(
    path: Path, labels: Path, names: pd.Series, snippets: pd.DataFrame, report: Report
) -> dict[str, list[str]]:
    """Return the columns `singers` and `group` of the snippets, from the manifest at `path`."""
    if not path.is_file():
        what = "no manifest: a singer may be in training and validation, which inflates scores"
        cure = "add it, with the columns file, singers and music"
        report.add(Problem(str(path), None, what, cure, "warning"))
        return {"singers": [""] * len(names), "group": snippets["filename"].tolist()}
    table = read_table(path, ("file", "singers", "music"), report, synonyms=_SYNONYMS)
    sources = {
        row["file"]: (_singers(row["singers"]), row["music"])
        for row in table.frame[table.fits].to_dict("records")
    }
    match_of = match_names(names, sources)
    if match_of:
        report.add(respelled(labels, match_of, "than in the manifest"))
    singers, groups = [], []
    for written, snippet in zip(names, snippets.to_dict("records"), strict=True):
        name = match_of.get(written, written)
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
            report.add(Problem(str(labels), snippet["line"], *fault, filename=written))
    return {"singers": singers, "group": groups}


def _singers(field: str) -> str:
    return ";".join(name.strip() for name in field.split(";") if name.strip())
