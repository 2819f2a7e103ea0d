"""From recordings and texts to scores."""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hearback.engine.audio.decode import (
    SAMPLE_RATE,
    Recording,
    UnreadableAudioError,
    decode,
)
from hearback.engine.audio.store import MemoryStore, Store
from hearback.engine.data.filenames import are_there, nearest_files
from hearback.engine.data.problems import Problem, Report
from hearback.engine.devices import choose_device, compute_dtype
from hearback.engine.errors import HearbackError
from hearback.engine.machine import PRECISIONS
from hearback.reading.models.provide import provide_backbones
from hearback.reading.pretrained.folders import DEFAULT_SCORER, find_scorer
from hearback.reading.scoring import statistics, status
from hearback.reading.scoring.ensemble import LoadedEnsemble
from hearback.reading.scoring.inputs import TEXT, Inputs, check_allowed, read_inputs
from hearback.reading.scoring.recordings import (
    LONGEST_RECORDING,
    decode_samples,
    find_cut,
    open_recordings,
)
from hearback.reading.scoring.results import Score
from hearback.reading.scoring.rows import score_rows
from hearback.reading.scoring.scores import unscored
from hearback.reading.scoring.status import Fault
from hearback.reading.tables import (
    GRADES,
    LONGEST_PASSAGE,
    TASKS,
    normalize_expected_text,
    parse_grade,
    parse_task,
)
from hearback.reading.text_language import notes_of_language
from hearback.reading.text_normalizer import UnspeakableTextError

_PATHS = (str, os.PathLike)


class Scorer:
    """Scores recordings of readers: how likely is it that they said the text?

        from hearback import Scorer
        score = Scorer.load().score("clip.wav", "the cat sat")
        score.probability, score.status, [word.probability for word in score.words]

    Its folds are loaded with the first clip and stay in memory. `name` is the scorer's name or
    folder, for messages.
    """

    def __init__(self, ensemble: LoadedEnsemble, name: str) -> None:
        self.ensemble = ensemble
        self.name = name

    @classmethod
    def load(
        cls,
        name_or_folder: str | Path = DEFAULT_SCORER,
        *,
        device: str | None = None,
        precision: str = "auto",
    ) -> "Scorer":
        """Return the scorer of a name ("tiny.en", "base") or of a folder.

        Args:
            name_or_folder: a scorer that is shipped with the package, or a folder with
                `model_configs.json` and the trained folds. What they need of their backbone is
                downloaded, once, if it is neither there nor in the cache folder.
            device: "cpu", "cuda", "cuda:1", …; None: a GPU if there is one.
            precision: one of `hearback.engine.machine.PRECISIONS`; "auto" is half precision where
                the device has it.

        Raises:
            HearbackError: there is no such scorer, it cannot be read, it needs reference speech, or
                its backbone can be found nowhere.
        """
        _check_type("the scorer", name_or_folder, _PATHS, "its name or folder")
        if precision not in PRECISIONS:
            raise HearbackError(f"precision {precision!r}: use one of {', '.join(PRECISIONS)}")
        chosen = choose_device(device)
        folder = find_scorer(name_or_folder)
        ensemble = LoadedEnsemble.read(folder, chosen, compute_dtype(chosen, precision))
        provide_backbones(ensemble.folds, partial(print, file=sys.stderr))
        return cls(ensemble, str(name_or_folder))

    def score(
        self,
        recording: str | Path | np.ndarray,
        text: str,
        *,
        sample_rate: int | None = None,
        grade: str | int | None = None,
        task: str | None = None,
    ) -> Score:
        """Score one recording.

        Args:
            recording: a file in any format that `score.py` reads; or samples, (n,) or
                (n, channels), of floating point with full scale 1.0 or of integers (int16, int32,
                uint8) with their own full scale.
            text: that the learner was asked to say.
            sample_rate: of an array, in Hz; other rates than 16 kHz are resampled, as files are.
                None for a file, which has its own.
            grade: "KG", "1", "2" or "3"; None: the score is not adjusted by grade.
            task: one of `hearback.reading.tables.TASKS`; None if unknown.

        Returns:
            The score. A recording that cannot be scored (silent, too long, damaged, …) is no error:
            its `status` says why, and `probability` is None.

        Raises:
            HearbackError: a text that cannot be read, an array of another shape or type, no sample
                rate for an array or one for a file, an unknown grade or task, or a file that does
                not exist.
        """
        _check_type("the recording", recording, (*_PATHS, np.ndarray), "a path or a NumPy array")
        _check_type("the text", text, (str,), "a string of its words")
        row = _make_row(text, *("" if value is None else str(value) for value in (grade, task)))
        if self.ensemble.uses_context:
            for column in ("grade", "task"):
                if not row[column]:
                    raise HearbackError(_describe_context(self.name, column))
        if not isinstance(recording, np.ndarray):
            _check_file(Path(recording), sample_rate)
            row["filename"] = str(recording)
        try:
            row["expected_text"] = normalize_expected_text(text, LONGEST_PASSAGE, TEXT).text
        except UnspeakableTextError as error:
            if error.status != status.TOO_LONG:
                raise HearbackError(f"{error}; {error.cure}") from None
            return unscored(row, Fault(error.status, str(error), error.cure))
        try:
            decoded = _decode(recording, sample_rate)
        except UnreadableAudioError as error:
            what, cure = f"{error.subject} {error}", error.cure or "record it again"
            return unscored(row, Fault(error.kind, what, cure, error.seconds))
        store = MemoryStore({"": decoded})
        if cut := find_cut(store.entries[""].notes_of("cut")):
            return unscored(row, cut)
        frame = pd.DataFrame([{**row, "filename": ""}])
        (score,) = score_rows(self.ensemble, frame, store).scores
        notes = (*notes_of_language(row["expected_text"]), *score.notes)
        return replace(score, filename=row["filename"], notes=notes)

    def score_table(
        self,
        table: str | Path | Inputs,
        report: Report | None = None,
        *,
        store: Path | None = None,
        progress: bool = False,
    ) -> list[Score]:
        """Score the recordings of a table, or of a folder, in batches.

        Args:
            table: a CSV with the columns filename and text, relative to its folder; a folder of
                recordings with the text beside each; or what `inputs` has read.
            report: receives the problems, with the line and the cure.
            store: folder that keeps the decoded recordings for another time; None: a temporary one.
            progress: show progress bars.

        Returns:
            A score for each row, in its order; the `status` of one that cannot be scored says why.

        Raises:
            HearbackError: there is nothing to score, or the scorer needs a grade or task.
            BadInputError: the table cannot be read, or a column is missing.
        """
        _check_type("the table", table, (*_PATHS, Inputs), "the path of a table or folder")
        report = Report() if report is None else report
        inputs = table if isinstance(table, Inputs) else read_inputs(Path(table), None, report)
        if store is None:
            with tempfile.TemporaryDirectory() as folder:
                return self.score_table(inputs, report, store=Path(folder), progress=progress)
        self.check(inputs, report)
        recordings = open_recordings(inputs, store, report, progress=progress)
        return self.score_decoded(inputs, recordings, report, progress=progress)

    def check(self, inputs: Inputs, report: Report) -> None:
        """Report the rows that lack a grade or task that the scorer needs.

        Raises HearbackError if all of them do.
        """
        if not self.ensemble.uses_context:
            return
        for column in ("grade", "task"):
            missing = inputs.frame[inputs.frame[column] == ""]
            if len(missing) == len(inputs.frame):
                raise HearbackError(f"{inputs.origin}: {_describe_context(self.name, column)}")
            for row in missing.to_dict("records"):
                what, cure = f"no {column}, which this scorer needs", f"fill in the {column}"
                name = row["filename"] or None
                report.add(Problem(str(inputs.origin), row["line"], what, cure, filename=name))

    def score_decoded(
        self, inputs: Inputs, recordings: Store, report: Report, *, progress: bool = False
    ) -> list[Score]:
        """Score the rows of `inputs` whose recordings are in a store, as `score_table` does."""
        # A report may have the problems of other tables, too.
        of_input = [each for each in report.problems if each.file == str(inputs.origin)]
        found = status.faults_by_row(of_input)
        rows = inputs.frame.to_dict("records")
        faults = [_fault_of(row, found) for row in rows]
        usable = inputs.frame[[fault is None for fault in faults]].reset_index(drop=True)
        scored = score_rows(self.ensemble, usable, recordings, "scoring" if progress else None)
        self._compare(scored.measured, usable["filename"].tolist(), inputs.origin, report)
        records = usable.to_dict("records")
        for at, fault in scored.faults.items():
            line, name = records[at]["line"], records[at]["filename"]
            where = (str(inputs.origin), line, fault.what, fault.cure)
            report.add(Problem(*where, filename=name, status=fault.status))
        scores = iter(scored.scores)
        return [
            next(scores)
            if fault is None
            else unscored(row, fault, (), _seconds(recordings, row["filename"]))
            for row, fault in zip(rows, faults, strict=True)
        ]

    def _compare(
        self,
        measured: Sequence[Mapping[str, float]],
        filenames: Sequence[str],
        origin: Path,
        report: Report,
    ) -> None:
        """Report that recordings are unlike those that the scorer learned from."""
        own = statistics.summarize(measured)
        own["synthetic"] = statistics.is_synthetic(filenames)
        for what in statistics.warnings(own, self.ensemble.training_statistics):
            report.add(Problem(str(origin), None, what, statistics.CURE, "warning"))


def _make_row(text: str, grade: str, task: str) -> dict[str, str]:
    """Return the row of one recording, as `Inputs.frame` has it, without what is read later."""
    return {
        "filename": "",
        "written_text": text,
        "expected_text": "",
        "grade": check_allowed("grade", grade, GRADES, parse_grade(grade)),
        "task": check_allowed("task", task, TASKS, parse_task(task)),
        "speaker": "",
    }


def _check_type(what: str, value: object, allowed: tuple[type, ...], cure: str) -> None:
    """Raise HearbackError if a value is of none of the types allowed."""
    if not isinstance(value, allowed):
        raise HearbackError(f"{what} is of type {type(value).__name__}: give {cure}")


def _decode(recording: str | Path | np.ndarray, sample_rate: int | None) -> Recording:
    """Return a recording as the store would keep it; see `Scorer.score` for the errors."""
    if isinstance(recording, np.ndarray):
        return decode_samples(recording, sample_rate)
    return decode(Path(recording), kept_seconds=LONGEST_RECORDING)


def _check_file(path: Path, sample_rate: int | None) -> None:
    """Raise HearbackError if there is no file, or a sample rate is given for it."""
    if sample_rate is not None:
        raise HearbackError(
            f"{path}: sample_rate is of an array of samples; a file has its own: leave it out"
        )
    if not os.path.exists(path):  # noqa: PTH110 - False also for a name that is too long
        near = are_there(nearest_files(path))
        raise HearbackError(f"{path}: no such file" + (f"; {near}" if near else ""))
    if path.is_dir():
        raise HearbackError(f"{path}: is a folder; score its recordings with score_table")


def _describe_context(scorer: str, column: str) -> str:
    return (
        f"the scorer {scorer} needs the {column} of each recording: give it (--{column}, or the "
        f"table's column {column}), or use a shipped scorer, which needs none"
    )


def _fault_of(
    row: Mapping[str, Any], found: Mapping[tuple[int | None, str], Fault]
) -> Fault | None:
    """Return why a row has no score, or None."""
    name, line = row["filename"], row["line"]
    return found.get((line, name)) or (found.get((line, "")) if line is not None else None)


def _seconds(recordings: Store, filename: str) -> float | None:
    """Return a recording's length in s; None if it is not in the store, or only its beginning."""
    if filename not in recordings or recordings.entries[filename].notes_of("cut"):
        return None
    return recordings.n_samples(filename) / SAMPLE_RATE
