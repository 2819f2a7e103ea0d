"""Recordings in a folder, and the files beside them that have their texts."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hearback.engine.audio.file_kinds import is_recording, read_head, unreadable_by_libsndfile
from hearback.engine.data.filenames import RECORDING_SUFFIXES
from hearback.engine.data.problems import Problem, Report
from hearback.engine.data.text_files import PLAIN_TEXT, is_unicode, read_text, shown_name

TEXT_SUFFIXES = (".txt", ".lab")  # of the text beside a recording
_LARGEST_TEXT = 1 << 20  # bytes of a file with one text
_TIMED_LABEL = re.compile(r"\d+ \d+ \S.*")  # of HTK: start, end (in 100 ns), and the label


@dataclass
class Listing:
    """The files below a folder, relative to it, with '/'.

    Attributes:
        recordings: by their suffix, or by their content.
        texts: by their name without its suffix.
        others: that are neither, by their name without its suffix.
    """

    recordings: list[str] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, list[str]] = field(default_factory=dict)

    def texts_of(self, recording: str) -> list[str]:
        """Return the texts beside a recording: clip.txt, or clip.wav.txt, for clip.wav."""
        return self.texts.get(_stem(recording), []) or self.texts.get(recording, [])

    def unused_texts(self) -> Iterator[str]:
        """Yield a text of each name that has no recording beside it."""
        used = {name for each in self.recordings for name in self.texts_of(each)}
        for names in self.texts.values():
            if used.isdisjoint(names):
                yield names[0]


def is_recording_file(path: Path) -> bool:
    """Return whether a file is a recording, by its suffix, or by what is in it."""
    return path.suffix.lower() in RECORDING_SUFFIXES or is_recording(read_head(path))


def list_files(folder: Path, report: Report) -> Listing:
    """List the recordings and texts below a folder.

    Links are followed; a folder that several links lead to is read once. Reports subfolders that
    cannot be listed, and files whose names no table can have.
    """

    def cannot_list(error: OSError) -> None:
        name = shown_name(os.path.relpath(error.filename, folder))
        what = f"the subfolder {name} cannot be listed ({error.strerror})"
        report.add(Problem(str(folder), None, what, "make it readable"))

    listing = Listing()
    known: set[Path] = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=cannot_list):
        real = Path(parent).resolve()
        if real in known:
            folders.clear()
            continue
        known.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            path = Path(parent) / name
            relative = path.relative_to(folder).as_posix()
            is_text = path.suffix.lower() in TEXT_SUFFIXES
            is_recorded = not is_text and is_recording_file(path)
            fault = _fault_of_name(relative)
            if (is_text or is_recorded) and fault:
                what = f"the file's name {fault}: {shown_name(relative)}"
                report.add(Problem(str(folder), None, what, "rename it"))
            elif is_text:
                listing.texts.setdefault(_stem(relative), []).append(relative)
            elif is_recorded:
                listing.recordings.append(relative)
            else:
                listing.others.setdefault(_stem(relative), []).append(relative)
    listing.recordings.sort()
    return listing


def _fault_of_name(name: str) -> str:
    """Return why tables cannot have a file's name; "" if they can."""
    if not is_unicode(name):
        return "is no UTF-8"
    return "has a backslash, which other systems take for a folder" if "\\" in name else ""


def report_unused_texts(folder: Path, listing: Listing, report: Report) -> None:
    """Report texts without a recording, as warnings; a file of the same name may be meant."""
    for text in listing.unused_texts():
        cure = "put the recording of the same name there, or remove the text"
        for other in listing.others.get(_stem(text), []):
            kind = unreadable_by_libsndfile(read_head(folder / other))
            is_what = kind.name if kind else "of no format that is known"
            cure = f"{Path(other).name} is there, but it is {is_what}; {cure}"
        what = "the text has no recording beside it"
        report.add(Problem(str(folder), None, what, cure, "warning", text))


def read_one_text(paths: Sequence[Path], name: str, origin: Path, report: Report) -> str | None:
    """Return the text of the files beside a recording; None, with a problem, if it is unclear.

    `origin` is the folder or the recording that problems name.
    """
    texts: dict[str, Path] = {}
    for path in paths:
        problems = Report()
        text = _read_text_file(path, problems)
        for problem in problems.problems:
            file, severity = str(origin), problem.severity
            what = f"its text in {path.name}: {problem.what}"
            report.add(Problem(file, None, what, problem.cure, severity, filename=name))
        if text is None:
            return None
        texts.setdefault(text, path)
    if len(texts) > 1:
        names = " and ".join(path.name for path in texts.values())
        what = f"two texts that differ: {names}"
        report.add(Problem(str(origin), None, what, "keep the right one", filename=name))
        return None
    return next(iter(texts))


def _read_text_file(path: Path, report: Report) -> str | None:
    """Return a file's text on one line; None, with a problem, if it is no text."""
    try:
        size = path.stat().st_size
    except OSError as error:
        report.add(Problem(str(path), None, f"{error.strerror}", "make it readable"))
        return None
    if size > _LARGEST_TEXT:
        what = f"{size / 1e6:.1f} MB are no text of a recording"
        report.add(Problem(str(path), None, what, "put the words alone there"))
        return None
    content = read_text(path, report, PLAIN_TEXT)
    if content is None:
        return None
    lines = [" ".join(line.split()) for line in content.lines if line.strip()]
    if lines and all(map(_TIMED_LABEL.fullmatch, lines)):
        what = "the file has labels with times (HTK), not plain text"
        report.add(Problem(str(path), None, what, "put the words alone there, without times"))
        return None
    return " ".join(lines)


def possible_texts(recording: str) -> list[str]:
    """Return the names that a text beside a recording may have, as in `Listing.texts_of`."""
    stems = dict.fromkeys((_stem(recording), recording))
    return [f"{stem}{suffix}" for stem in stems for suffix in TEXT_SUFFIXES]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122  (of a relative name, with its folders)
