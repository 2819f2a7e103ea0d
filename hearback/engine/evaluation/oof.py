"""Out-of-fold tables: how good the trained folds are, and which of them stand out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pandas as pd

from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.metrics import row_log_loss
from hearback.engine.io import sha256_of
from hearback.engine.training.checkpoint import read_notes
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata, read_fold_metadata

_MOST_FOLDS = 1000  # a metadata that tells of more is damaged
_SPLIT = ("n_folds", "group_by", "limit", "data_fingerprint")  # trainings of it can be compared
_NEEDED = ("recipe_fingerprint", "group_by", "limit", "data_fingerprint", "retrain_command")


@dataclass(frozen=True)
class OutOfFold:
    """The trained folds of one model (or what an ensemble made of several).

    `rows` has filename, score, pred, fold and base (the mean label of the fold's training rows);
    `metadata_by_fold` the folds' metadata by fold number. Another competition's table derives from this one
    and says otherwise what a prediction is, how it is read and what it costs.
    """

    TARGET: ClassVar[str] = "score"  # the column of the labels
    TRAIN: ClassVar[str] = "python train.py"  # trains what is missing or out of date

    model: str
    n_folds: int
    rows: pd.DataFrame
    metadata_by_fold: Mapping[int, FoldMetadata]

    @property
    def missing_folds(self) -> list[int]:
        """The folds not trained yet."""
        return [fold for fold in range(self.n_folds) if fold not in self.metadata_by_fold]

    @property
    def family(self) -> str:
        """How learner and expected text meet in the model; a baseline is none of ours."""
        fold_metadata = next(iter(self.metadata_by_fold.values()))
        if "baseline" in fold_metadata:
            return "baseline"
        pairing = fold_metadata["recipe"]["pair"]
        return {"tokens": "token scorer", "aligned": "aligned comparison"}.get(
            pairing, "comparison"
        )

    @staticmethod
    def is_base_rate(value: object) -> bool:
        """Return whether a metadata's `base_rate` is one of this competition."""
        return isinstance(value, float | int) and 0 <= value <= 1

    @staticmethod
    def read_rows(path: Path, base_rate: Any) -> pd.DataFrame:  # noqa: ANN401  (as JSON has it)
        """Read a fold's predictions and give them `base`; ValueError where they are none."""
        table = pd.read_csv(path, dtype={"filename": str, "score": float, "pred": float})
        return table.assign(base=base_rate)

    def row_losses(self) -> pd.Series:
        """Return each row's log loss, in nats."""
        return row_log_loss(self.rows["score"], self.rows["pred"])

    def base_losses(self) -> pd.Series:
        """Return each row's log loss where the training base rate is predicted."""
        return row_log_loss(self.rows["score"], self.rows["base"])

    def fold_log_losses(self) -> pd.Series:
        """Return log loss by fold number."""
        return self.row_losses().groupby(self.rows["fold"]).mean()

    def row_gains(self) -> pd.Series:
        """Return how far each row's log loss is below that of the training base rate."""
        return self.base_losses() - self.row_losses()

    def fold_gains(self) -> pd.Series:
        """Return the mean of `row_gains` by fold number."""
        return self.row_gains().groupby(self.rows["fold"]).mean()

    def blind_epoch_log_loss(self) -> float:
        """Return log loss with each fold's epoch chosen by the other folds.

        A fold's own best epoch is chosen on the rows that it is scored on, which flatters it; the
        difference to the plain score says by how much. NaN with fewer than two folds.
        """
        curves = {
            fold: np.array([epoch["validation_log_loss"] for epoch in fold_metadata["epochs"]])
            for fold, fold_metadata in self.metadata_by_fold.items()
        }
        if len(curves) < 2 or len({len(curve) for curve in curves.values()}) != 1:
            return float("nan")
        losses, weights = [], []
        for fold, curve in curves.items():
            others = np.mean([curves[other] for other in curves if other != fold], axis=0)
            losses.append(curve[int(np.argmin(others))])
            weights.append(self.metadata_by_fold[fold]["n_validation"])
        return float(np.average(losses, weights=weights))


Table = TypeVar("Table", bound=OutOfFold)


def trained_folds(assets: Path) -> dict[str, list[int]]:
    """Return the finished folds that lie in `assets`, by model."""
    found: dict[str, list[int]] = {}
    for path in sorted(assets.glob("[!.]*_*.oof.csv")):  # not those under way: files.whole_file
        # A model's name may have underscores itself.
        model, _, fold = path.name.removesuffix(".oof.csv").rpartition("_")
        # "²" is a digit, and no number.
        if fold.isdecimal() and FoldFiles(assets, model, int(fold)).metadata.exists():
            found.setdefault(model, []).append(int(fold))
    return {model: sorted(folds) for model, folds in found.items()}


def read_tables(
    kind: type[Table], assets: Path, models: Sequence[str] | None = None
) -> list[Table]:
    """Read the out-of-fold predictions of `models`, or of all that `assets` holds.

    `kind` is the competition's: what its folds predict, and how that is read. Raises HearbackError
    where there are none, where a file is not the one that its metadata speaks of, and where the folds
    of a model are not of one training: another recipe, split or data.
    """
    found = trained_folds(assets)
    if models is not None:
        if unknown := [model for model in models if model not in found]:
            raise HearbackError(
                f"{assets}: no finished fold of {', '.join(unknown)}; "
                f"there are {', '.join(found) or 'none'}"
            )
        found = {model: found[model] for model in models}
    if not found:
        raise HearbackError(f"{assets}: no finished fold; train some with {kind.TRAIN}")
    tables = [_read_model(kind, assets, model, folds) for model, folds in found.items()]
    metadata_by_fold = {
        f"{t.model} fold {fold}": s for t in tables for fold, s in t.metadata_by_fold.items()
    }
    _check_same(kind, str(assets), metadata_by_fold, _SPLIT)
    return tables


def _check_same(
    kind: type[OutOfFold],
    what: str,
    metadata_by_fold: Mapping[str, FoldMetadata],
    keys: Sequence[str],
) -> None:
    """Raise HearbackError where trainings that belong together differ in one of `keys`.

    `what` they are begins the message.
    """
    for key in keys:
        by_value: dict[str, list[str]] = {}
        for name, fold_metadata in metadata_by_fold.items():
            by_value.setdefault(str(fold_metadata[key]), []).append(name)
        if len(by_value) > 1:
            said = "; ".join(f"{value}: {', '.join(names)}" for value, names in by_value.items())
            raise HearbackError(
                f"{what}: the trained folds differ in {key.replace('_', ' ')} ({said}); "
                f"{kind.TRAIN} trains again what is out of date"
            )


def _lacking(kind: type[OutOfFold], fold_metadata: FoldMetadata) -> list[str]:
    """Return what a metadata must say to be compared with others, and does not."""
    lacking = [key for key in _NEEDED if key not in fold_metadata]
    n_folds = fold_metadata.get("n_folds")
    if type(n_folds) is not int or not 1 <= n_folds <= _MOST_FOLDS:
        lacking.append("n_folds")
    if not kind.is_base_rate(fold_metadata.get("base_rate")):
        lacking.append("base_rate")
    if not isinstance((fold_metadata.get("sha256") or {}).get("oof"), str):
        lacking.append("sha256")
    return sorted(set(lacking))


def _read_model(kind: type[Table], assets: Path, model: str, folds: Sequence[int]) -> Table:
    metadata_by_fold, tables = {}, []
    for fold in folds:
        files = FoldFiles(assets, model, fold)
        fold_metadata = read_fold_metadata(files)
        if lacking := _lacking(kind, fold_metadata):
            raise HearbackError(
                f"{files.metadata}: says nothing usable of {', '.join(lacking)}; train the fold again"
            )
        try:
            if sha256_of(files.oof) != fold_metadata["sha256"]["oof"]:
                raise HearbackError(
                    f"{files.oof}: not the file that {files.metadata.name} speaks of; "
                    f"train it again: {fold_metadata['retrain_command']}"
                )
            rows = kind.read_rows(files.oof, fold_metadata["base_rate"])
        except (OSError, ValueError) as error:
            raise HearbackError(
                f"{files.oof}: cannot be read ({error}); train the fold again"
            ) from None
        metadata_by_fold[fold] = fold_metadata
        tables.append(rows.assign(fold=fold))
    named = {
        f"{model} fold {fold}": fold_metadata for fold, fold_metadata in metadata_by_fold.items()
    }
    _check_same(kind, str(assets), named, ("recipe_fingerprint", "n_folds"))
    return kind(model, metadata_by_fold[folds[0]]["n_folds"], pd.concat(tables), metadata_by_fold)


def attempts(assets: Path, tables: Sequence[OutOfFold]) -> pd.DataFrame:
    """Return a row for each attempt at the folds that needed more than one, or where none worked.

    The columns are fold, attempt, outcome, epoch and step where it ended, minutes, and why.
    """
    lines = []
    for table in tables:
        for fold in range(table.n_folds):
            known = _attempts_at(
                FoldFiles(assets, table.model, fold), table.metadata_by_fold.get(fold)
            )
            if not any(attempt["outcome"] == "stalled" for attempt in known) and len(known) < 2:
                continue
            lines += [
                {
                    "model": table.model,
                    "fold": fold,
                    **{name: x[name] for name in ("attempt", "outcome", "epoch", "step")},
                    "minutes": x["seconds"] / 60,
                    "why": x["reason"] or "",
                }
                for x in known
            ]
    columns = ["model", "fold", "attempt", "outcome", "epoch", "step", "minutes", "why"]
    return pd.DataFrame(lines, columns=columns).set_index("model")


def _attempts_at(files: FoldFiles, fold_metadata: FoldMetadata | None) -> list[dict[str, Any]]:
    if fold_metadata is not None:
        return fold_metadata.get(
            "attempts", []
        )  # an older version's metadata, or a baseline's, has none
    return read_notes(files.partial).get("attempts", []) if files.partial.exists() else []


def by_fold(tables: Sequence[OutOfFold]) -> pd.DataFrame:
    """Return log loss, a row per model and a column per fold."""
    return as_folds({table.model: table.fold_log_losses() for table in tables})


def as_folds(models: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Return a row per model and a column per fold of the models' numbers by fold."""
    frame = pd.DataFrame(models).T
    return frame.rename(columns=lambda fold: f"fold {fold}").rename_axis("model")


def with_metadata(
    rows: pd.DataFrame, metadata: pd.DataFrame, kind: type[OutOfFold] = OutOfFold
) -> pd.DataFrame:
    """Join predicted `rows` of a `kind` of table with the metadata's columns.

    Raises HearbackError where the metadata no longer have a row or give it another label (where
    they have that column): then the table has changed since the training.
    """
    labels = {kind.TARGET: "in the table"} if kind.TARGET in metadata else {}
    joined = rows.merge(
        metadata.rename(columns=labels),
        on="filename",
        how="left",
        validate="one_to_one",
        indicator="known",
    )
    changed = joined.pop("known") != "both"
    if labels:
        changed |= joined.pop("in the table") != joined[kind.TARGET]
    if changed.any():
        one = joined["filename"][changed].iloc[0]
        raise HearbackError(
            f"the table has changed since the training, for one in the row of {one}; "
            f"{kind.TRAIN} trains again what is out of date"
        )
    return joined


def common_rows(tables: Sequence[OutOfFold], metadata: pd.DataFrame) -> list[pd.DataFrame]:
    """Return each table's rows with the metadata: those that all predicted, in its order.

    A row that some model did not predict, for its fold is not trained, is left out. Raises
    HearbackError where none is left.
    """
    joined = [with_metadata(table.rows, metadata, type(table)) for table in tables]
    common = set[str].intersection(*(set(rows["filename"]) for rows in joined))
    if not common:
        raise HearbackError(
            "no row was predicted out of fold by every model: "
            "train the same folds of each, or choose with --models"
        )
    in_order = metadata.loc[metadata["filename"].isin(common), ["filename"]]
    return [in_order.merge(rows, on="filename", validate="one_to_one") for rows in joined]
