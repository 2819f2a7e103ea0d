"""The training set: table, labels, references and recordings, validated before training."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.audio.store_builder import build_store
from hearback.engine.data.corrections import Corrections
from hearback.engine.data.folds import (
    FoldSplit,
    assign_folds,
    find_single_class,
    print_lopsided_folds,
)
from hearback.engine.data.problems import Problem, Report
from hearback.reading import GROUPINGS, step_command
from hearback.reading.pairs import PairSource
from hearback.reading.references import References
from hearback.reading.tables import (
    LABELS,
    labels_path,
    metadata_path,
    read_corrections,
    read_labelled,
)
from hearback.reading.word_label_table import (
    read_word_labels,
    report_disagreement,
    words_path,
)
from hearback.reading.word_labels import WordLabels


@dataclass(frozen=True)
class TrainingData(FoldSplit):
    """A training set, split into folds.

    Attributes:
        metadata: the table (`tables.read_metadata`).
        source: recordings, texts and references of its rows.
        labels: (rows,) float32, 0 or 1.
        folds: (rows,) int64, the fold that holds out each row.
        corrections: have been applied to the table and the labels; the folds are those without.
        word_labels: labels of the words of its recordings; none if the corpus has no such table.
        fingerprint: 16 hex digits; a digest of table, labels and recordings.
        fingerprint_with_references: the same with the references; None if there are none. Until
            version 0.2 it was the fingerprint of every model's data.
    """

    metadata: pd.DataFrame
    source: PairSource
    labels: np.ndarray
    folds: np.ndarray
    corrections: Corrections
    fingerprint: str
    fingerprint_with_references: str | None = None
    word_labels: WordLabels = field(default_factory=WordLabels)

    @property
    def filenames(self) -> list[str]:
        """File name of each row's recording."""
        return self.source.filenames


def load_training_data(
    data: Path,
    tts_data: Path | None,
    store: Path,
    *,
    n_folds: int,
    group_by: str | None = None,
    limit: int | None = None,
    strict: bool = False,
    corrections_path: Path | None = None,
) -> TrainingData:
    """Read and check a training set; decode recordings that are not in the store yet.

    Args:
        data: folder with train_metadata.csv, train_labels.csv, train_words.csv and the recordings.
        tts_data: folder with the references; None for models that hear none.
        store: folder of the decoded recordings.
        n_folds: number of folds.
        group_by: column whose values stay within one fold (None: by row).
        limit: number of rows, the first ones (None: all).
        strict: warnings, such as recordings that had to be converted, are errors.
        corrections_path: table of corrections (`engine.data.corrections`).

    Raises:
        BadInputError: every problem of the tables and recordings, and texts without a reference.
    """
    report, path = Report(), metadata_path(data, "train")
    metadata, labels = read_labelled(data, report)
    corrections = read_corrections(corrections_path, data, metadata, labels, report)
    used, used_labels = corrections.apply(metadata[:limit], labels[:limit])
    report.extend(find_single_class(used_labels, LABELS, str(labels_path(data)), limit))
    word_labels = _read_word_labels(words_path(data), metadata, used, used_labels, report)
    if report.table_errors:
        report.raise_if_errors()  # before anything is decoded
    references = None if tts_data is None else References(tts_data)
    # All rows: a store drops recordings that its table does not list.
    recordings = build_store(metadata, data, path, store, "train", report=report)
    corrections.discard_problems(report)
    report.raise_if_errors(strict)
    if references is not None:
        report.extend(_find_unrendered(metadata[corrections.kept(metadata)], references, path))
        report.raise_if_errors()
    if report.warnings:
        print(report)
    if corrections_path is not None:
        print(corrections)
    source = PairSource(used, references, recordings, used_labels)
    fingerprint, with_references = _fingerprints(used, used_labels, source)
    training_data = TrainingData(
        metadata=used,
        source=source,
        labels=used_labels,
        folds=_split(metadata[:limit], labels[:limit], corrections, n_folds, group_by),
        corrections=corrections,
        fingerprint=fingerprint,
        fingerprint_with_references=with_references,
        word_labels=word_labels,
    )
    print_lopsided_folds(training_data, used_labels, LABELS, n_folds, labels_path(data))
    return training_data


def _read_word_labels(
    path: Path, metadata: pd.DataFrame, used: pd.DataFrame, labels: np.ndarray, report: Report
) -> WordLabels:
    """Return the labels of the words of the used rows, compared with their texts and labels."""
    word_labels = read_word_labels(path, metadata, report).kept(used["filename"])
    report_disagreement(word_labels, path, used, labels, report)
    return word_labels


def _split(
    metadata: pd.DataFrame,
    labels: np.ndarray,
    corrections: Corrections,
    n_folds: int,
    group_by: str | None,
) -> np.ndarray:
    """Return the folds of the rows that are kept, (rows,); see `TrainingData.folds`.

    All rows are split, by their own labels: a correction moves no other row to another fold.
    """
    folds = assign_folds(
        metadata,
        np.nan_to_num(labels),  # a row that is left out may have no label
        n_folds,
        group_by,
        default_group="speaker",
        stratify_by="task",
        groupings=GROUPINGS,
    )
    return folds[corrections.kept(metadata)]


def _fingerprints(
    metadata: pd.DataFrame, labels: np.ndarray, source: PairSource
) -> tuple[str, str | None]:
    """Return the digests without and with the references; see `TrainingData`."""
    table = (
        metadata.drop(columns=["line", "written_text"]).assign(score=labels).sort_values("filename")
    )
    digest = hashlib.sha256(table.to_csv(index=False).encode())
    digest.update(source.store.fingerprint().encode())
    without = digest.hexdigest()[:16]
    if not source.has_references:
        return without, None
    digest.update(source.references.fingerprint(metadata["expected_text"]).encode())
    return without, digest.hexdigest()[:16]


def _find_unrendered(
    metadata: pd.DataFrame, references: References, path: Path
) -> Iterator[Problem]:
    """Yield a problem for each row with a text that has no reference."""
    without_reference = metadata[~metadata["expected_text"].isin(references.texts)]
    for row in without_reference.to_dict("records"):
        what = f"no reference speech for {row['expected_text']!r} in {references.folder}"
        yield Problem(str(path), row["line"], what, f"run {step_command('preprocess')}")
