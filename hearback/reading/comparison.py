"""Paired comparisons of out-of-fold predictions: of two trainings of a model, or of two ensembles.

A difference is the mean over rows of the log loss here minus that there, in nats, with the 2.5 to
97.5 % range of a bootstrap over `evaluation.group_unit`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.bootstrap import bootstrap_interval
from hearback.engine.evaluation.metrics import row_log_loss
from hearback.engine.evaluation.oof import check_same_split, common_rows
from hearback.reading.evaluation import (
    ReadingOutOfFold,
    by_model_and_grade,
    group_unit,
    parts_of,
)


def compare_models(
    tables: Sequence[ReadingOutOfFold],
    others: Sequence[ReadingOutOfFold],
    metadata: pd.DataFrame,
) -> pd.DataFrame:
    """Compare the log loss of each model with that of the model of the same name in `others`.

    Returns a row per model and grade, on the rows that both predicted, with the columns of
    `differences`. Raises HearbackError if no model is in both, or if their splits or labels differ.
    """
    others_by_model = {table.model: table for table in others}
    lines: dict[tuple[str, str], Mapping[str, Any]] = {}
    for table in tables:
        if table.model not in others_by_model:
            continue
        pair = (table, others_by_model[table.model])
        _check_splits(table.model, pair[:1], pair[1:])
        here, there = common_rows(pair, metadata)
        _check_folds(table.model, here, there)
        compared = _differences(here, there["pred"].to_numpy())
        lines |= {(table.model, part): line for part, line in compared.items()}
    if not lines:
        raise HearbackError(
            f"no model to compare: the other folder has {', '.join(others_by_model)}, but none of "
            f"{', '.join(table.model for table in tables)}"
        )
    return by_model_and_grade(lines)


def check_comparable(
    tables: Sequence[ReadingOutOfFold],
    others: Sequence[ReadingOutOfFold],
    here: pd.DataFrame,
    there: pd.DataFrame,
) -> None:
    """Raise HearbackError if two ensembles predict other rows, or were split in other ways.

    `here` and `there` are the rows of `evaluation.join` of the models `tables` and `others`.
    """
    _check_splits("the ensembles", tables, others)
    lacking = set(here["filename"]) ^ set(there["filename"])
    if lacking:
        raise HearbackError(
            f"the ensembles do not predict the same rows: {len(lacking)} rows, first "
            f"{min(lacking)}, are in one of them only; train the missing folds, or select models"
        )
    _check_folds("the ensembles", here, there)


def differences(here: pd.DataFrame, there: np.ndarray) -> pd.DataFrame:
    """Return the paired differences of predictions, by grade, by cause if there is one, and of all.

    `here` are rows of the training table with the predictions `pred`; `there`, (rows,), are the
    other predictions of them. The columns are `rows`, their number; `here` and `there`, log losses
    in nats; `difference`; `low` and `high`.
    """
    return pd.DataFrame.from_dict(_differences(here, there), orient="index")


def _differences(here: pd.DataFrame, there: np.ndarray) -> dict[str, dict[str, float]]:
    """Return the lines of `differences` by their part of the rows."""
    losses = [row_log_loss(here["score"], pred) for pred in (here["pred"], pd.Series(there))]
    rows = here.assign(here=losses[0].to_numpy(), there=losses[1].to_numpy())
    rows = rows.assign(difference=rows["here"] - rows["there"])
    parts = parts_of(rows, "grade") | (parts_of(rows, "cause") if "cause" in rows else {})
    lines = {}
    for name, part in {**parts, "all": rows}.items():
        low, high = bootstrap_interval(
            part["difference"].to_numpy(),
            part[group_unit(part)].to_numpy(dtype=str),
            np.random.default_rng(0),
        )
        means = part[["here", "there", "difference"]].mean()
        lines[name] = {"rows": len(part), **means, "low": low, "high": high}
    return lines


def describe_other_data(
    tables: Iterable[ReadingOutOfFold], others: Iterable[ReadingOutOfFold]
) -> str | None:
    """Return a sentence if two sets of trainings had different data; None if they had the same.

    Labels of the rows are the same, or comparing raises an error.
    """
    if _data_fingerprints(tables) == _data_fingerprints(others):
        return None
    return (
        "the trainings differ in their data: other recordings, texts or decoding of the same rows; "
        "the differences below include what that changed"
    )


def _data_fingerprints(tables: Iterable[ReadingOutOfFold]) -> set[str]:
    metadata = [each for table in tables for each in table.metadata_by_fold.values()]
    return {fold_metadata["data_fingerprint"] for fold_metadata in metadata}


def _check_splits(
    subject: str, tables: Sequence[ReadingOutOfFold], others: Sequence[ReadingOutOfFold]
) -> None:
    """Raise HearbackError if the trainings were split in other ways; `subject` begins it."""
    metadata_by_name = {
        f"{table.model} fold {fold} {place}": fold_metadata
        for place, side in (("here", tables), ("there", others))
        for table in side
        for fold, fold_metadata in table.metadata_by_fold.items()
    }
    check_same_split(ReadingOutOfFold, subject, metadata_by_name, same_data=False)


def _check_folds(subject: str, here: pd.DataFrame, there: pd.DataFrame) -> None:
    """Raise HearbackError if a row of both was held out in different folds."""
    folds = here[["filename", "fold"]].merge(there[["filename", "fold"]], on="filename")
    moved = folds[folds["fold_x"] != folds["fold_y"]]
    if len(moved):
        raise HearbackError(
            f"{subject}: {len(moved)} of {len(folds)} rows, first {moved['filename'].iloc[0]}, are "
            "held out in other folds there, since the tables had other rows; train both on the "
            "same table"
        )
