"""The training set: table, labels, references and recordings, checked before anything starts."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.audio.store import Store
from hearback.engine.data.folds import assign_folds
from hearback.engine.data.problems import Problem, Report
from hearback.reading.pairs import PairSource
from hearback.reading.references import References
from hearback.reading.tables import metadata_path, read_labels, read_metadata


@dataclass(frozen=True)
class TrainingData:
    """What a fold is trained on.

    `source` gives the pairs, `labels` (rows,) float32 are 0 or 1, `folds` (rows,) int64 say which
    fold holds a row out. The fingerprint changes with the table, the labels, the recordings and the
    references, and with nothing else.
    """

    metadata: pd.DataFrame
    source: PairSource
    labels: np.ndarray
    folds: np.ndarray
    fingerprint: str

    @property
    def filenames(self) -> list[str]:
        """The recordings, row by row."""
        return self.source.filenames

    def training_rows(self, fold: int) -> np.ndarray:
        """Return the rows that a fold is trained on."""
        return np.flatnonzero(self.folds != fold)

    def validation_rows(self, fold: int) -> np.ndarray:
        """Return the rows that a fold holds out."""
        return np.flatnonzero(self.folds == fold)


def read_labelled(data: Path, report: Report) -> tuple[pd.DataFrame, np.ndarray]:
    """Read the training table of the folder `data` and its labels, (rows,) float32."""
    metadata = read_metadata(metadata_path(data, "train"), report)
    labels = read_labels(data / "train_labels.csv", metadata, report)
    return metadata, labels.to_numpy()


def load_training_data(
    data: Path,
    tts_data: Path,
    store: Path,
    *,
    n_folds: int,
    group_by: str | None = None,
    limit: int | None = None,
    strict: bool = False,
) -> TrainingData:
    """Read and check a training set, decoding what is not in the store yet.

    Raises BadInput with every problem of the tables and the recordings, and with the texts that
    have no reference; `strict` refuses recordings that had to be converted, too.
    """
    report = Report()
    path = metadata_path(data, "train")
    metadata, labels = read_labelled(data, report)
    recordings = Store.build(metadata, data, path, store, "train", report=report)
    report.raise_if_errors(strict)
    references = References(tts_data)
    without = metadata[~metadata["expected_text"].isin(references.texts)]
    for row in without.to_dict("records"):
        what = f"no reference speech for {row['expected_text']!r} in {tts_data}"
        report.add(Problem(str(path), row["line"], what, "run python preprocess.py"))
    report.raise_if_errors()
    if report.warnings:
        print(report)
    if limit is not None:
        metadata, labels = metadata.iloc[:limit].reset_index(drop=True), labels[:limit]
    table = metadata.drop(columns="line").assign(score=labels).sort_values("filename")
    digest = hashlib.sha256(table.to_csv(index=False).encode())
    digest.update(recordings.fingerprint().encode())
    digest.update(references.fingerprint(metadata["expected_text"]).encode())
    return TrainingData(
        metadata=metadata,
        source=PairSource(metadata, references, recordings, labels),
        labels=labels,
        folds=assign_folds(metadata, labels, n_folds, group_by),
        fingerprint=digest.hexdigest()[:16],
    )
