"""A person's verdicts on labelled recordings, such as those that a report exports: corrections.csv.

The table has the columns filename, verdict, score (the right label of a wrong one) and note. What
it changes is applied to the labelled table after that is split into folds, so that the split is the
one without corrections.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from hearback.engine.data.filenames import are_there, match_names, nearest_names
from hearback.engine.data.problems import Problem, Report, count_noun, quoted
from hearback.engine.data.tables import Table, column_key, read_table, respelled
from hearback.engine.errors import did_you_mean

AGREE, WRONG_LABEL, UNSCORABLE = VERDICTS = ("agree", "wrong_label", "unscorable")

_COLUMNS = ("filename", "verdict")
_SYNONYMS = {
    "filename": ("file", "path", "audio", "clip", "recording", "snippet"),
    "verdict": ("decision", "judgement", "judgment", "opinion"),
}
_VERDICT_OF_KEY = {column_key(verdict): verdict for verdict in VERDICTS}
_MAX_SUGGESTIONS = 20  # rows of a table whose message names the nearest name


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add --corrections to a step that reads the labelled table."""
    parser.add_argument(
        "--corrections",
        type=Path,
        metavar="FILE",
        help="CSV with the columns filename, verdict (agree, wrong_label, unscorable) and score "
        "(the right label): change labels, and leave unscorable recordings out",
    )


@dataclass(frozen=True)
class Corrections:
    """What a table of corrections changes; nothing without a table.

    Attributes:
        path: the table; None if there is none.
        labels: the new label of each filename whose label is changed.
        left_out: filenames of the recordings that are left out.
        agreed: filenames of the recordings whose labels are right.
        notes: of the table's rows, by filename.
    """

    path: Path | None = None
    labels: Mapping[str, float] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    agreed: Sequence[str] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return e.g. "corrections.csv: 3 labels changed, 2 recordings left out"."""
        name = "no corrections" if self.path is None else self.path.name
        return f"{name}: {describe(self.record()) or 'nothing is changed'}"

    def announce(self) -> None:
        """Print what is changed, if there is a table."""
        if self.path is not None:
            print(self)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return the rows of such a table: filename, verdict, score and note."""
        rows = [
            *((name, WRONG_LABEL, f"{label:g}") for name, label in self.labels.items()),
            *((name, UNSCORABLE, "") for name in sorted(self.left_out)),
            *((name, AGREE, "") for name in self.agreed),
        ]
        return [(*row, self.notes.get(row[0], "")) for row in rows]

    def record(self) -> dict[str, Any] | None:
        """Return the numbers of changes and a digest of them, as JSON; None without changes.

        The digest depends on nothing else in the table: more verdicts "agree" do not change it.
        """
        if not (self.labels or self.left_out):
            return None
        labels = sorted((name, float(label)) for name, label in self.labels.items())
        changes = json.dumps([labels, sorted(self.left_out)])
        return {
            "digest": hashlib.sha256(changes.encode()).hexdigest()[:16],
            "labels_changed": len(self.labels),
            "left_out": len(self.left_out),
        }

    def kept(self, table: pd.DataFrame) -> np.ndarray:
        """Return the mask of the table's rows that are not left out, (rows,) bool."""
        return ~table["filename"].isin(self.left_out).to_numpy(dtype=bool)

    def changed(self, table: pd.DataFrame) -> np.ndarray:
        """Return the mask of the table's rows whose labels are changed, (rows,) bool."""
        return table["filename"].isin(list(self.labels)).to_numpy(dtype=bool)

    def apply(self, table: pd.DataFrame, labels: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
        """Return the rows of a table that are kept, and their labels, (rows,), corrected."""
        corrected = labels.copy()
        for row in np.flatnonzero(self.changed(table)):
            corrected[row] = self.labels[table["filename"].iloc[row]]
        kept = self.kept(table)
        return table[kept].reset_index(drop=True), corrected[kept]

    def discard_problems(self, report: Report) -> None:
        """Remove the problems of recordings that are left out: nothing reads these."""
        for problem in report.problems:
            if problem.filename in self.left_out and problem.file != str(self.path):
                report.discard(problem)


def describe(record: Mapping[str, Any] | None) -> str:
    """Return a `Corrections.record` in words: "3 labels changed, 2 recordings left out", or ""."""
    if record is None:
        return ""
    labels, recordings = record.get("labels_changed", 0), record.get("left_out", 0)
    parts = [
        f"{count_noun(labels, 'label')} changed" if labels else "",
        f"{count_noun(recordings, 'recording')} left out" if recordings else "",
    ]
    return ", ".join(filter(None, parts))


@dataclass(frozen=True)
class LabelledTable:
    """The table that is corrected.

    Attributes:
        path: the file, for messages.
        filenames: of its rows.
        labels: (rows,).
        names: what a message calls each label.
        parse: a written label as a number, NaN if it is none.
        folder: corrections may name recordings without this folder, "" for none.
    """

    path: Path
    filenames: Sequence[str]
    labels: np.ndarray
    names: Mapping[int, str]
    parse: Callable[[str], float]
    folder: str = ""


class _Verdict(NamedTuple):
    line: int
    verdict: str
    score: str
    note: str


def read_corrections(path: Path | None, table: LabelledTable, report: Report) -> Corrections:
    """Read the corrections of a labelled table; none without a path. Problems go into `report`."""
    if path is None:
        return Corrections()
    read = read_table(
        path, _COLUMNS, report, optional=("score", "note"), synonyms=_SYNONYMS, unique=False
    )
    # Tables that could not be read have been reported.
    if not read.columns.issuperset(_COLUMNS) or not any(table.filenames):
        return Corrections(path)
    return _Reader(path, table, report).read(read)


@dataclass(frozen=True)
class _Reader:
    """Reads the rows of the corrections at `path`."""

    path: Path
    table: LabelledTable
    report: Report

    def read(self, read: Table) -> Corrections:
        """Return what the rows change."""
        frame = read.frame[read.fits & (read.frame["filename"] != "")]
        label_of = dict(zip(self.table.filenames, self.table.labels.tolist(), strict=True))
        labels: dict[str, float] = {}
        left_out = set()
        agreed = []
        verdicts = dict(self._verdicts(frame))
        for filename, row in verdicts.items():
            if row.verdict == AGREE:
                agreed.append(filename)
            elif row.verdict == UNSCORABLE:
                left_out.add(filename)
            elif row.verdict == WRONG_LABEL:
                label = self._label(filename, row)
                if label == label_of[filename]:
                    what = f"wrong_label, but the label is {self._name(label)} already"
                    cure = "nothing is changed: correct its score, or remove the row"
                    self._add(row.line, what, cure, filename, warning=True)
                elif label is not None:
                    labels[filename] = label
        if left_out.issuperset(filter(None, label_of)):
            cure = "keep some of them"
            self.report.add(Problem(str(self.path), None, "all recordings are left out", cure))
        notes = {filename: row.note for filename, row in verdicts.items() if row.note}
        return Corrections(self.path, labels, frozenset(left_out), agreed, notes)

    def _verdicts(self, frame: pd.DataFrame) -> Iterator[tuple[str, _Verdict]]:
        """Yield the verdict of each recording, by its filename in the labelled table."""
        verdicts: dict[str, _Verdict] = {}
        known = self._resolve(frame)
        for row in frame.to_dict("records"):
            filename = known.get(row["filename"])
            verdict = _VERDICT_OF_KEY.get(column_key(row["verdict"]))
            if verdict is None:
                what = f"unknown verdict {quoted(row['verdict'])}"
                cure = f"use one of {', '.join(VERDICTS)}{did_you_mean([row['verdict']], VERDICTS)}"
                self._add(row["line"], what, cure, row["filename"])
            if verdict is None or filename is None:
                continue
            score = row.get("score", "") if verdict == WRONG_LABEL else ""
            current = _Verdict(row["line"], verdict, score, row.get("note", ""))
            self._compare(filename, verdicts.setdefault(filename, current), current)
        yield from verdicts.items()

    def _compare(self, filename: str, first: _Verdict, again: _Verdict) -> None:
        """Report a second row for a recording: an error if it says something else."""
        if first is again:
            return
        if self._meaning(first) == self._meaning(again):
            what = f"the same verdict again, first on line {first.line}"
            self._add(again.line, what, "used once; keep one row", filename, warning=True)
            return
        said = [f"{row.verdict} {row.score}".strip() for row in (first, again)]
        what = f"{said[1]}, but {said[0]} on line {first.line}"
        self._add(again.line, what, "keep the right one of the two rows", filename)

    def _meaning(self, row: _Verdict) -> tuple[str, str]:
        label = self.table.parse(row.score)
        return row.verdict, row.score if np.isnan(label) else str(float(label))

    def _resolve(self, frame: pd.DataFrame) -> dict[str, str]:
        """Return the labelled table's filename of each one here; report those that have none."""
        known = dict.fromkeys(filter(None, self.table.filenames))
        inside = {name: f"{self.table.folder}/{name}" for name in frame["filename"]}
        found = {
            name: name if name in known else inside[name]
            for name in frame["filename"]
            if name in known or (self.table.folder and inside[name] in known)
        }
        missing = [name for name in dict.fromkeys(frame["filename"]) if name not in found]
        free = [name for name in known if name not in set(found.values())]
        match_of = match_names(missing, free)
        if match_of:
            self.report.add(respelled(self.path, match_of, f"than in {self.table.path.name}"))
        unknown = frame[frame["filename"].isin([name for name in missing if name not in match_of])]
        for at, row in enumerate(unknown.to_dict("records")):
            near = nearest_names(row["filename"], known) if at < _MAX_SUGGESTIONS else []
            cure = "; ".join(
                filter(None, (are_there(near), "correct the filename, or remove the row"))
            )
            what = f"{self.table.path.name} has no such recording"
            self._add(row["line"], what, cure, row["filename"])
        return {**found, **match_of}

    def _label(self, filename: str, row: _Verdict) -> float | None:
        """Return the right label of a wrong one; None with a problem if there is none."""
        label = self.table.parse(row.score)
        if not np.isnan(label):
            return label
        what = f"the right label is {quoted(row.score)}"
        if not row.score:
            what = "wrong_label without the right label"
        cure = f"the column score must be one of {', '.join(self.table.names.values())}"
        self._add(row.line, what, cure, filename)
        return None

    def _name(self, label: float | None) -> str:
        return "unknown" if label is None else self.table.names[int(label)]

    def _add(
        self, line: int, what: str, cure: str, filename: str, *, warning: bool = False
    ) -> None:
        severity: Literal["error", "warning"] = "warning" if warning else "error"
        self.report.add(Problem(str(self.path), line, what, cure, severity, filename))
