"""The test data: the rows that the submission needs, and those that can be scored."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hearback.engine.audio.store_builder import build_store
from hearback.engine.audio.store_folder import StoreFolder
from hearback.engine.data.filenames import match_names
from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError
from hearback.reading.inference.outputs import read_rows, report_unrendered
from hearback.reading.pairs import PairSource
from hearback.reading.references import References, missing_texts
from hearback.reading.render import UnrenderedTextsError, VoiceMismatchError, render_missing
from hearback.reading.tables import metadata_path
from hearback.reading.voices import reopen_voice


@dataclass(frozen=True)
class ScoringData:
    """The recordings to score.

    `order` are the filenames of the submission's rows, in order, and `tasks` their tasks by
    filename. `usable` are the metadata of the rows that can be scored; `source` has their clips.
    `metadata_names` are the metadata's filenames of those that `order` spells otherwise.
    """

    order: list[str]
    tasks: dict[str, str]
    usable: pd.DataFrame
    source: PairSource
    metadata_names: Mapping[str, str] = field(default_factory=dict)
    store_folder: StoreFolder | None = None  # kept as long as the data: it may be a temporary one

    @property
    def grades(self) -> np.ndarray:
        """The grades of the usable rows, (rows,) of str."""
        return self.usable["grade"].to_numpy(dtype=str)

    def without(self, rows: Sequence[int]) -> "ScoringData":
        """Return the data without some rows of `source`; they stay in `order`."""
        usable = self.usable.drop(index=list(rows)).reset_index(drop=True)
        references = self.source.references if self.source.has_references else None
        source = PairSource(usable, references, self.source.store)
        return replace(self, usable=usable, source=source.with_longest(self.source.longest))

    def with_longest(self, n_samples: int) -> "ScoringData":
        """Return the data with recordings of over 16 s cut at `n_samples`, not at 16 s."""
        return replace(self, source=self.source.with_longest(n_samples))

    def written(self, rows: Sequence[int]) -> list[str]:
        """Return the texts of some rows of `source` as written."""
        texts = self.usable["written_text"].tolist()
        return [texts[row] for row in rows]


def read_scoring_data(
    data: Path,
    tts_data: Path,
    store: Path,
    voice: Mapping[str, Any] | None,
    report: Report,
) -> ScoringData:
    """Read the test tables, decode the recordings and render missing references in `voice`.

    With None, the models hear no references, and `tts_data` is not read. Rows that cannot be scored
    are added to the report. Raises BadInputError if a table cannot be read, and HearbackError if
    the references are in another voice.
    """
    path = metadata_path(data, "test")
    metadata, order = read_rows(data, report)
    filenames = metadata["filename"].tolist()
    store_folder = StoreFolder(store)
    recordings = store_folder.build(
        lambda folder: build_store(metadata, data, path, folder, "test", report=report)
    )
    references = None
    if voice is not None:
        references = _prepare_references(metadata, tts_data, voice, path, report)
    faulty = {problem.row for problem in report.errors if problem.file == str(path)}
    usable = metadata[~metadata["line"].isin(faulty)].reset_index(drop=True)
    tasks = dict(zip(metadata["filename"], metadata["task"], strict=True))
    names = match_names(order, filenames)
    source = PairSource(usable, references, recordings)
    return ScoringData(order, tasks, usable, source, names, store_folder)


def _prepare_references(
    metadata: pd.DataFrame, folder: Path, voice: Mapping[str, Any], path: Path, report: Report
) -> References:
    """Render missing references in the ensemble's voice; report rows that remain without one."""
    texts = metadata["expected_text"][metadata["expected_text"] != ""]
    failures = render_references(texts, folder, voice)
    report_unrendered(metadata, failures, path, report)
    return open_references(folder, voice)


def render_references(
    texts: Iterable[str], folder: Path, voice: Mapping[str, Any], *, progress: bool = True
) -> dict[str, str]:
    """Render missing references in the ensemble's voice; return why, by text, where it failed."""
    failures: dict[str, str] = {}
    if missing := missing_texts(texts, folder):
        try:
            with contextlib.closing(reopen_voice(voice)) as opened:
                render_missing(missing, opened, folder, progress=progress)
        except VoiceMismatchError:
            raise
        except UnrenderedTextsError as error:
            failures = dict(error.failures)
        except (HearbackError, OSError) as error:  # voice not installed; read-only folder
            failures = dict.fromkeys(missing_texts(missing, folder), str(error))
    return failures


def open_references(folder: Path, voice: Mapping[str, Any]) -> References:
    """Return the references in a folder; raise HearbackError if they are in another voice."""
    references = References(folder)
    if references.voice != voice:
        raise HearbackError(
            f"{folder}: its voice is {references.voice}; the ensemble was trained with "
            f"{dict(voice)}. Render with that voice into another folder"
        )
    return references
