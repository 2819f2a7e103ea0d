"""The training set: snippets, classes, features and folds, checked before anything starts."""

import hashlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hearback.engine.data.folds import assign_folds
from hearback.engine.data.problems import Report
from hearback.songs.separation.methods import Separation, open_separation
from hearback.songs.store import FeatureStore, build_features, build_sounds
from hearback.songs.tables import read_snippets

TRAIN = "train"  # the stores' name


@dataclass(frozen=True)
class SongData:
    """What a fold is trained on.

    `snippets` are `hearback.songs.tables.read_snippets`', or the first of them; `stored` are all, for a
    store drops what it is not asked for. `folds` (rows,) int64 say which fold holds a row out,
    `separation` how the voices were separated; `separations` are options of each, by its name. The
    fingerprint changes with the table, the singers and the recordings, and with nothing else: not
    with the separation.
    """

    snippets: pd.DataFrame
    stored: pd.DataFrame
    folds: np.ndarray
    separation: dict[str, Any]
    separations: Mapping[str, Mapping[str, Any]]
    fingerprint: str
    data: Path
    store: Path
    is_grouped: bool

    @property
    def filenames(self) -> list[str]:
        """The snippets, row by row."""
        return self.snippets["filename"].tolist()

    @property
    def labels(self) -> np.ndarray:
        """The classes, (rows,) int64."""
        return self.snippets["label"].to_numpy()

    def training_rows(self, fold: int) -> np.ndarray:
        """Return the rows that a fold is trained on: none in which one of its own singers sings.

        Where several sing, the row is held out with its first singer, so the others may be in other
        folds: the fold of each of them is trained without the row.
        """
        if not self.is_grouped:
            return np.flatnonzero(self.folds != fold)
        own = set(self.snippets["group"][self.folds == fold])
        shares_a_singer = np.array(
            [not own.isdisjoint(singers.split(";")) for singers in self.snippets["singers"]], bool
        )
        return np.flatnonzero((self.folds != fold) & ~shares_a_singer)

    def validation_rows(self, fold: int) -> np.ndarray:
        """Return the rows that a fold holds out."""
        return np.flatnonzero(self.folds == fold)

    def features(self, name: str) -> FeatureStore:
        """Open features of the separated snippets, made where they are missing."""
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
) -> SongData:
    """Read and check a training set, decoding what is not in the store yet.

    Raises BadInput with every problem of the tables and the snippets; `strict` refuses what had to
    be converted, too.
    """
    report = Report()
    snippets = read_snippets(data, report)
    with closing(open_separation("none")) as nothing:
        sounds = build_sounds(snippets, data, store, TRAIN, separation=nothing, report=report)
    report.raise_if_errors(strict)
    separations = separations or {}
    with closing(_open(separate, separations)) as separation:
        separated = separation.describe()
    if report.warnings:
        print(report)
    stored = snippets
    if limit is not None:
        snippets = snippets.iloc[:limit].reset_index(drop=True)
    table = snippets.drop(columns="line").sort_values("filename")
    digest = hashlib.sha256(table.to_csv(index=False).encode())
    digest.update(sounds.fingerprint().encode())
    group_by = group_by or "singer"
    folds = assign_folds(
        snippets.rename(columns={"group": "singer"}),
        snippets["label"].to_numpy(),
        n_folds,
        group_by,
    )
    return SongData(
        snippets=snippets,
        stored=stored,
        folds=folds,
        separation=separated,
        separations=separations,
        fingerprint=digest.hexdigest()[:16],
        data=data,
        store=store,
        is_grouped=group_by != "none",
    )


def _open(name: str, separations: Mapping[str, Mapping[str, Any]]) -> Separation:
    return open_separation(name, **separations.get(name, {}))
