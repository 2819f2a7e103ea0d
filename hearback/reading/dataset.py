"""The training set: table, labels, references and recordings, validated before training."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.audio.store_builder import build_store
from hearback.engine.data.folds import (
    FoldSplit,
    assign_folds,
    find_lopsided_folds,
    find_single_class,
)
from hearback.engine.data.problems import Problem, Report
from hearback.reading import step_command
from hearback.reading.pairs import PairSource
from hearback.reading.references import References
from hearback.reading.tables import LABELS, labels_path, metadata_path, read_labelled

GROUPINGS = ("speaker", "expected_text")  # columns by which rows can be grouped into folds


@dataclass(frozen=True)
class TrainingData(FoldSplit):
    """A training set, split into folds.

    Attributes:
        metadata: the table (`tables.read_metadata`).
        source: recordings, texts and references of its rows.
        labels: (rows,) float32, 0 or 1.
        folds: (rows,) int64, the fold that holds out each row.
        fingerprint: 16 hex digits; a digest of table, labels, recordings and references.
    """

    metadata: pd.DataFrame
    source: PairSource
    labels: np.ndarray
    folds: np.ndarray
    fingerprint: str

    @property
    def filenames(self) -> list[str]:
        """File name of each row's recording."""
        return self.source.filenames


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
    """Read and check a training set; decode recordings that are not in the store yet.

    Args:
        data: folder with train_metadata.csv, train_labels.csv and the recordings.
        tts_data: folder with the references.
        store: folder of the decoded recordings.
        n_folds: number of folds.
        group_by: column whose values stay within one fold (None: by row).
        limit: use only the first rows.
        strict: warnings, such as recordings that had to be converted, are errors.

    Raises:
        BadInputError: every problem of the tables and recordings, and texts without a reference.
    """
    report = Report()
    path = metadata_path(data, "train")
    metadata, labels = read_labelled(data, report)
    report.extend(find_single_class(labels, LABELS, str(labels_path(data)), limit))
    if report.table_errors:
        report.raise_if_errors()  # before anything is decoded
    recordings = build_store(metadata, data, path, store, "train", report=report)
    report.raise_if_errors(strict)
    references = References(tts_data)
    without_reference = metadata[~metadata["expected_text"].isin(references.texts)]
    for row in without_reference.to_dict("records"):
        what = f"no reference speech for {row['expected_text']!r} in {tts_data}"
        report.add(Problem(str(path), row["line"], what, f"run {step_command('preprocess')}"))
    report.raise_if_errors()
    if report.warnings:
        print(report)
    if limit is not None:
        metadata, labels = metadata.iloc[:limit].reset_index(drop=True), labels[:limit]
    table = (
        metadata.drop(columns=["line", "written_text"]).assign(score=labels).sort_values("filename")
    )
    digest = hashlib.sha256(table.to_csv(index=False).encode())
    digest.update(recordings.fingerprint().encode())
    digest.update(references.fingerprint(metadata["expected_text"]).encode())
    training_data = TrainingData(
        metadata=metadata,
        source=PairSource(metadata, references, recordings, labels),
        labels=labels,
        folds=assign_folds(
            metadata,
            labels,
            n_folds,
            group_by,
            default_group="speaker",
            stratify_by="task",
            groupings=GROUPINGS,
        ),
        fingerprint=digest.hexdigest()[:16],
    )
    lopsided = find_lopsided_folds(training_data, labels, LABELS, n_folds, str(labels_path(data)))
    if lopsided:
        print(Report(lopsided))
    return training_data
