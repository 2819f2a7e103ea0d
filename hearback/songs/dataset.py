"""The training set: snippets, classes, features and folds."""

import hashlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hearback.engine.audio.store import Store
from hearback.engine.data.corrections import Corrections
from hearback.engine.data.folds import (
    FoldSplit,
    assign_folds,
    find_single_class,
    print_lopsided_folds,
)
from hearback.engine.data.problems import Report
from hearback.songs import GROUPINGS
from hearback.songs.separation.methods import Separation, open_separation
from hearback.songs.store import FeatureStore, build_features, build_sounds
from hearback.songs.tables import (
    LABELS,
    correct,
    labels_path,
    read_corrections,
    read_snippets,
)

TRAIN = "train"  # name of the stores


@dataclass(frozen=True)
class SongData(FoldSplit):
    """A training set, split into folds.

    Attributes:
        snippets: the table (`tables.read_snippets`), at most the first `limit` rows, corrected.
        stored: the whole table; a store drops recordings that its table does not list.
        folds: (rows,) int64, the fold that holds out each row.
        corrections: have been applied to `snippets`; the folds are those without.
        separation: description of the separation (`Separation.describe`).
        separations: options of each separation by its name.
        fingerprint: 16 hex digits; a digest of table and recordings, not of the separation.
        data: folder of the labels and snippets.
        store: folder of the stored audio and features.
        is_grouped: whether folds hold out whole singers.
    """

    snippets: pd.DataFrame
    stored: pd.DataFrame
    folds: np.ndarray
    corrections: Corrections
    separation: dict[str, Any]
    separations: Mapping[str, Mapping[str, Any]]
    fingerprint: str
    data: Path
    store: Path
    is_grouped: bool

    @property
    def filenames(self) -> list[str]:
        """File name of each row's snippet."""
        return self.snippets["filename"].tolist()

    @property
    def labels(self) -> np.ndarray:
        """Class of each row, (rows,) int64."""
        return self.snippets["label"].to_numpy()

    def training_rows(self, fold: int) -> np.ndarray:
        """Return a fold's training rows: those that share no singer with its validation rows.

        A row with several singers is held out with its first singer. Folds that hold out one of its
        other singers neither train nor validate on it.
        """
        rows = super().training_rows(fold)
        if not self.is_grouped:
            return rows
        held_out = set(self.snippets["group"][self.folds == fold])
        shares_a_singer = np.array(
            [not held_out.isdisjoint(singers.split(";")) for singers in self.snippets["singers"]],
            bool,
        )
        return rows[~shares_a_singer[rows]]

    def features(self, name: str) -> FeatureStore:
        """Compute missing features of the separated snippets, and open their store."""
        report = Report()
        with closing(_open(self.separation["backend"], self.separations)) as separation:
            features = build_features(
                self.stored,
                self.data,
                self.store,
                TRAIN,
                name,
                separation=separation,
                report=report,
            )
        self.corrections.discard_problems(report)
        report.raise_if_errors()
        return features


def load_song_data(
    data: Path,
    store: Path,
    *,
    separate: str = "none",
    separations: Mapping[str, Mapping[str, Any]] | None = None,
    n_folds: int,
    group_by: str | None = None,
    limit: int | None = None,
    strict: bool = False,
    corrections_path: Path | None = None,
) -> SongData:
    """Read and check a training set; decode recordings that are not in the store yet.

    Args:
        data: folder of the labels and snippets.
        store: folder of the stored audio and features.
        separate: name of the separation.
        separations: options of each separation by its name.
        n_folds: number of folds.
        group_by: "singer" (also None), or "none" to split by row.
        limit: use only the first rows.
        strict: refuse recordings that have to be converted.
        corrections_path: table of corrections (`engine.data.corrections`).

    Raises BadInputError with every problem of the tables and snippets.
    """
    report = Report()
    stored = read_snippets(data, report)
    corrections = read_corrections(corrections_path, data, stored, report)
    snippets = correct(stored[:limit], corrections)
    classes = snippets["label"].to_numpy()
    report.extend(find_single_class(classes, LABELS, str(labels_path(data)), limit))
    if report.table_errors:
        report.raise_if_errors()  # before anything is decoded
    with closing(open_separation("none")) as none:
        sounds = build_sounds(stored, data, store, TRAIN, separation=none, report=report)
    corrections.discard_problems(report)
    report.raise_if_errors(strict)
    with closing(_open(separate, separations := separations or {})) as opened:
        separation = opened.describe()
    if report.warnings:
        print(report)
    if corrections_path is not None:
        print(corrections)
    group_by = group_by or "singer"
    song_data = SongData(
        snippets=snippets,
        stored=stored,
        folds=_split(stored[:limit], corrections, n_folds, group_by),
        corrections=corrections,
        separation=separation,
        separations=separations,
        fingerprint=_fingerprint(snippets, sounds),
        data=data,
        store=store,
        is_grouped=group_by != "none",
    )
    print_lopsided_folds(song_data, classes, LABELS, n_folds, labels_path(data))
    return song_data


def _split(
    snippets: pd.DataFrame, corrections: Corrections, n_folds: int, group_by: str
) -> np.ndarray:
    """Return the folds of the snippets that are kept, (rows,).

    All snippets are split, by their own labels: a correction moves no other one to another fold.
    """
    by_singer = snippets.rename(columns={"group": "singer"})
    labels = snippets["label"].to_numpy()
    folds = assign_folds(by_singer, labels, n_folds, group_by, groupings=GROUPINGS)
    return folds[corrections.kept(snippets)]


def _fingerprint(snippets: pd.DataFrame, sounds: Store) -> str:
    """Return 16 hex digits: a digest of the table and the recordings."""
    table = snippets.drop(columns="line").sort_values("filename")
    digest = hashlib.sha256(table.to_csv(index=False).encode())
    digest.update(sounds.fingerprint().encode())
    return digest.hexdigest()[:16]


def _open(name: str, separations: Mapping[str, Mapping[str, Any]]) -> Separation:
    return open_separation(name, **separations.get(name, {}))
