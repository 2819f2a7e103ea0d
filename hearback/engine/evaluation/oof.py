"""Out-of-fold predictions of trained models: read, checked, and joined with the training table."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self, TypeVar

import numpy as np
import pandas as pd

from hearback.engine.data import corrections
from hearback.engine.data.corrections import Corrections
from hearback.engine.errors import HearbackError, did_you_mean
from hearback.engine.evaluation.metrics import is_probability, row_log_loss
from hearback.engine.training.fold_archive import read_archive
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata, read_fold_metadata

_MAX_FOLDS = 1000  # metadata with more folds is damaged
# Trainings that agree in these fields, and in their tables' rows, held out the same rows.
SPLIT_FIELDS = ("n_folds", "group_by", "limit", "corrections")
_DATA_FIELDS = (*SPLIT_FIELDS, "data_fingerprint")
_REQUIRED = ("recipe_fingerprint", "group_by", "limit", "data_fingerprint", "retrain_command")


@dataclass(frozen=True)
class OutOfFold(ABC):
    """Out-of-fold predictions of one model, or of an ensemble.

    A competition's subclass defines its predictions: how they are read, and their loss.

    `n_folds` counts all folds of the cross-validation, trained or not. `rows` has a row per
    prediction, with the columns filename, fold, the label, and those of `read_rows`.
    `metadata_by_fold` holds the metadata of the trained folds; it is empty for an ensemble.
    """

    LABEL_COLUMN: ClassVar[str]
    TRAIN_COMMAND: ClassVar[str]  # trains the folds that are missing or out of date

    model: str
    n_folds: int
    rows: pd.DataFrame
    metadata_by_fold: Mapping[int, FoldMetadata]

    @staticmethod
    @abstractmethod
    def is_base_rate(value: object) -> bool:
        """Return whether `value` is a valid `base_rate` of a fold's metadata."""

    @classmethod
    @abstractmethod
    def read_rows(cls, file: BinaryIO, base_rate: Any) -> pd.DataFrame:  # noqa: ANN401  (from JSON)
        """Read the predictions of one fold; raise ValueError if they are invalid.

        `base_rate` is that of the fold's metadata, for `base_losses`.
        """

    @abstractmethod
    def row_losses(self) -> pd.Series:
        """Return the log loss per row, (rows,), in nats."""

    @abstractmethod
    def base_losses(self) -> pd.Series:
        """Return the log loss per row of predicting the training base rate, (rows,), in nats."""

    @property
    def missing_folds(self) -> list[int]:
        """The numbers of the folds that are not trained yet."""
        return [fold for fold in range(self.n_folds) if fold not in self.metadata_by_fold]

    def fold_log_losses(self) -> pd.Series:
        """Return the mean log loss by fold number, in nats."""
        return self.row_losses().groupby(self.rows["fold"]).mean()

    def row_gains(self) -> pd.Series:
        """Return how far the log loss of each row is below that of the base rate, (rows,)."""
        return self.base_losses() - self.row_losses()

    def fold_gains(self) -> pd.Series:
        """Return the mean of `row_gains` by fold number, in nats."""
        return self.row_gains().groupby(self.rows["fold"]).mean()

    def cross_fitted_epoch_log_loss(self) -> float:
        """Return the log loss when the epoch of each fold is chosen on the other folds.

        Training keeps the epoch that is best on the fold's own held-out rows, so the plain log loss
        is optimistic; the difference shows by how much. NaN with fewer than two folds, or if the
        folds differ in their number of epochs.
        """
        curves = {
            fold: np.array([epoch["validation_log_loss"] for epoch in metadata["epochs"]])
            for fold, metadata in self.metadata_by_fold.items()
        }
        if len(curves) < 2 or len({len(curve) for curve in curves.values()}) != 1:
            return float("nan")
        losses, weights = [], []
        for fold, curve in curves.items():
            others = np.mean([curves[other] for other in curves if other != fold], axis=0)
            losses.append(curve[int(np.argmin(others))])
            weights.append(self.metadata_by_fold[fold]["n_validation"])
        return float(np.average(losses, weights=weights))

    def rows_with(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return `rows` with the columns of the training `table`, as `join_rows` does."""
        if len(self.rows) and not self.rows["filename"].isin(table["filename"]).any():
            raise HearbackError(
                f"{self.model} was trained on other recordings than those of the training table, "
                f"such as {self.rows['filename'].iloc[0]}; name the folder of these with --data, "
                "or folds that were trained on this table"
            )
        try:
            return self.join_rows(self.rows, table)
        except HearbackError as error:
            if not any(fold.get("corrections") for fold in self.metadata_by_fold.values()):
                raise
            raise HearbackError(
                f"{error}; {self.model} was trained with --corrections, which change the table"
            ) from None

    @classmethod
    def join_rows(cls, rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
        """Join predicted `rows` with the columns of the training `table`, on filename.

        Raises HearbackError if `table` has changed since the training: it lacks a row or, if it
        has labels, has another one.
        """
        labels = {cls.LABEL_COLUMN: "current label"} if cls.LABEL_COLUMN in table else {}
        joined = rows.merge(
            table.rename(columns=labels),
            on="filename",
            how="left",
            validate="one_to_one",
            indicator="known",
        )
        changed = joined.pop("known") != "both"
        if labels:
            changed |= joined.pop("current label") != joined[cls.LABEL_COLUMN]
        if changed.any():
            filename = joined["filename"][changed].iloc[0]
            raise HearbackError(
                f"the table has changed since the training, first in the row of {filename}; "
                f"{cls.TRAIN_COMMAND} retrains what is out of date"
            )
        return joined

    @classmethod
    def read_model(cls, assets: Path, model: str, folds: Sequence[int]) -> Self:
        """Read the finished `folds` of one model in the folder `assets`.

        Raises HearbackError for metadata or predictions that are invalid or do not belong together.
        """
        metadata_by_fold, tables = {}, []
        for fold in folds:
            metadata_by_fold[fold], rows = _read_fold(cls, FoldFiles(assets, model, fold))
            tables.append(rows.assign(fold=fold))
        named = {f"{model} fold {fold}": metadata for fold, metadata in metadata_by_fold.items()}
        check_same_fields(str(assets), named, ("recipe_fingerprint", "n_folds"), _retrain(cls))
        n_folds = metadata_by_fold[folds[0]]["n_folds"]
        return cls(model, n_folds, pd.concat(tables), metadata_by_fold)


class BinaryOutOfFold(OutOfFold):
    """Out-of-fold probabilities of a label that is 0 or 1.

    `rows` has the columns filename, `LABEL_COLUMN`, pred (the probability of 1), fold and base (the
    mean label of the fold's training rows).
    """

    @staticmethod
    def is_base_rate(value: object) -> bool:
        """Return whether `value` is a number from 0 to 1."""
        return is_probability(value)

    @classmethod
    def read_rows(cls, file: BinaryIO, base_rate: Any) -> pd.DataFrame:  # noqa: ANN401  (from JSON)
        """Read the predictions of one fold, with `base_rate` as the column base."""
        types = {"filename": str, cls.LABEL_COLUMN: float, "pred": float}
        return pd.read_csv(file, dtype=types).assign(base=base_rate)

    def row_losses(self) -> pd.Series:
        """Return the log loss per row, (rows,), in nats."""
        return row_log_loss(self.rows[self.LABEL_COLUMN], self.rows["pred"])

    def base_losses(self) -> pd.Series:
        """Return the log loss per row of predicting the training base rate, (rows,), in nats."""
        return row_log_loss(self.rows[self.LABEL_COLUMN], self.rows["base"])


Table = TypeVar("Table", bound=OutOfFold)


def trained_folds(assets: Path) -> dict[str, list[int]]:
    """Return the numbers of the finished folds in the folder `assets`, by model."""
    found: dict[str, list[int]] = {}
    archived = read_archive(assets)
    # Names with a leading dot are files being written (`io.atomic_write`).
    names = {path.name for path in assets.glob("[!.]*_*.oof.csv")} | archived.keys()
    for name in sorted(name for name in names if name.endswith(".oof.csv")):
        # The model's name may contain underscores.
        model, _, fold = name.removesuffix(".oof.csv").rpartition("_")
        if not fold.isdecimal():  # not isdigit: int("²") fails
            continue
        metadata = FoldFiles(assets, model, int(fold)).metadata
        if metadata.exists() or metadata.name in archived:
            found.setdefault(model, []).append(int(fold))
    return {model: sorted(folds) for model, folds in found.items()}


def read_tables(
    kind: type[Table],
    assets: Path,
    models: Sequence[str] | None = None,
    corrected: Corrections | None = None,
) -> list[Table]:
    """Read the out-of-fold predictions of `models`, or of all models in the folder `assets`.

    `kind` is the competition's class. Raises HearbackError if there are no folds, if a file does
    not match its metadata, if folds differ in split or data, if a model's folds differ in recipe,
    or if they were trained with other corrections than `corrected` (None: not compared).
    """
    found = trained_folds(assets)
    if models is not None:
        if unknown := [model for model in models if model not in found]:
            raise HearbackError(
                f"{assets}: no finished fold of {', '.join(unknown)}; "
                f"there are {', '.join(found) or 'none'}{did_you_mean(unknown, found)}"
            )
        found = {model: found[model] for model in models}
    if not found:
        what = "no finished fold" if assets.is_dir() else "no such folder, so no finished fold"
        raise HearbackError(f"{assets}: {what}; train some with {kind.TRAIN_COMMAND}")
    tables = [kind.read_model(assets, model, folds) for model, folds in found.items()]
    metadata_by_name = {
        f"{table.model} fold {fold}": metadata
        for table in tables
        for fold, metadata in table.metadata_by_fold.items()
    }
    check_same_fields(str(assets), metadata_by_name, _DATA_FIELDS, _retrain(kind))
    if corrected is not None:
        trained_with = next(iter(metadata_by_name.values())).get("corrections")
        _check_corrections(kind, assets, trained_with, corrected)
    return tables


def _check_corrections(
    kind: type[OutOfFold],
    assets: Path,
    trained_with: Mapping[str, Any] | None,
    corrected: Corrections,
) -> None:
    """Raise HearbackError if folds were not trained with these corrections.

    `trained_with` is their `Corrections.record`.
    """
    if trained_with == corrected.record():
        return
    retrain = f"{kind.TRAIN_COMMAND} --corrections {corrected.path} retrains them"
    if trained_with is None:
        raise HearbackError(f"{assets}: the folds were trained without {corrected}; {retrain}")
    described = corrections.describe(trained_with)
    what = f"{assets}: the folds were trained with corrections ({described})"
    if corrected.path is None:
        raise HearbackError(f"{what}; name the same file with --corrections")
    raise HearbackError(f"{what}, not with {corrected}; name the same file, or {retrain}")


def _read_fold(kind: type[OutOfFold], files: FoldFiles) -> tuple[FoldMetadata, pd.DataFrame]:
    """Read and check one fold's metadata and predictions; raise HearbackError if invalid."""
    metadata = read_fold_metadata(files)
    if invalid := _invalid_fields(kind, metadata):
        raise HearbackError(
            f"{files.metadata}: {', '.join(invalid)} missing or invalid; train the fold again, "
            "unless it is of another competition"
        )
    try:
        content = files.read(files.oof)
        if hashlib.sha256(content).hexdigest() != metadata["sha256"]["oof"]:
            raise HearbackError(
                f"{files.oof}: differs from the digest in {files.metadata.name}; "
                f"train it again: {metadata['retrain_command']}"
            )
        rows = kind.read_rows(BytesIO(content), metadata["base_rate"])
        if not np.isfinite(rows.select_dtypes("number").to_numpy()).all():
            first = rows[~np.isfinite(rows.select_dtypes("number")).all(axis=1)].iloc[0]
            raise ValueError(f"a value is not finite in the row of {first['filename']}")
        return metadata, rows
    except (OSError, ValueError) as error:
        raise HearbackError(
            f"{files.oof}: cannot be read ({error}); train the fold again"
        ) from None


def _retrain(kind: type[OutOfFold]) -> str:
    """Return the cure for folds that differ."""
    return f"{kind.TRAIN_COMMAND} retrains what is out of date"


def check_same_fields(
    subject: str,
    metadata_by_name: Mapping[str, FoldMetadata],
    fields: Sequence[str],
    cure: str,
) -> None:
    """Raise HearbackError, with `cure`, if trainings, by name, differ in a field of their metadata.

    `subject` begins the message.
    """
    for field in fields:
        by_value: dict[str, list[str]] = {}
        for name, metadata in metadata_by_name.items():
            by_value.setdefault(str(metadata.get(field)), []).append(name)
        if len(by_value) > 1:
            listed = "; ".join(f"{value}: {', '.join(names)}" for value, names in by_value.items())
            raise HearbackError(
                f"{subject}: the trained folds differ in {field.replace('_', ' ')} ({listed}); "
                f"{cure}"
            )


def _invalid_fields(kind: type[OutOfFold], metadata: FoldMetadata) -> list[str]:
    """Return the names of the fields that are missing or invalid, sorted."""
    invalid = {field for field in _REQUIRED if field not in metadata}
    n_folds = metadata.get("n_folds")
    if type(n_folds) is not int or not 1 <= n_folds <= _MAX_FOLDS:
        invalid.add("n_folds")
    if not kind.is_base_rate(metadata.get("base_rate")):
        invalid.add("base_rate")
    if not isinstance((metadata.get("sha256") or {}).get("oof"), str):
        invalid.add("sha256")
    return sorted(invalid)


def common_rows(tables: Sequence[OutOfFold], table: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows that all models predicted, per model, in the order of the training `table`.

    They have the columns of `rows_with`. Rows of folds that some model lacks are left out. Raises
    HearbackError if no row is left.
    """
    joined = [predicted.rows_with(table) for predicted in tables]
    common = set[str].intersection(*(set(rows["filename"]) for rows in joined))
    if not common:
        raise HearbackError(
            "the models have no row in common: train the same folds of each, or select models with "
            "--models"
        )
    in_order = table.loc[table["filename"].isin(common), ["filename"]]
    return [in_order.merge(rows, on="filename", validate="one_to_one") for rows in joined]
