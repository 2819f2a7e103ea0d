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
from hearback.engine.evaluation.oof import SPLIT_FIELDS, check_same_fields, common_rows
from hearback.reading.evaluation import (
    ReadingOutOfFold,
    by_model_and_part,
    group_unit,
    parts_by_grade_and_cause,
)


def compare_models(
    tables: Sequence[ReadingOutOfFold],
    others: Sequence[ReadingOutOfFold],
    metadata: pd.DataFrame,
) -> pd.DataFrame:
    """Compare the log loss of each model with that of the model of the same name in `others`.

    Returns a row per model and part, on the rows that both predicted, with the parts and columns
    of `differences`. Raises HearbackError if no model is in both, or if splits or labels differ.
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
    return by_model_and_part(lines)


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
    rows = here.assign(
        here=row_log_loss(here["score"], here["pred"]),
        there=row_log_loss(here["score"], pd.Series(there, index=here.index)),
    )
    rows = rows.assign(difference=rows["here"] - rows["there"])
    lines = {}
    for name, part in {**parts_by_grade_and_cause(rows), "all": rows}.items():
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
        "the trainings differ in their data (table, recordings or decoding); the differences "
        "below include what that changed"
    )


def _data_fingerprints(tables: Iterable[ReadingOutOfFold]) -> set[str]:
    metadata = [each for table in tables for each in table.metadata_by_fold.values()]
    return {fold_metadata["data_fingerprint"] for fold_metadata in metadata}


def _check_splits(
    subject: str, tables: Sequence[ReadingOutOfFold], others: Sequence[ReadingOutOfFold]
) -> None:
    """Raise HearbackError if the trainings were split in other ways; `subject` begins it."""
    # The folds of one table agree: its reader has checked that.
    metadata_by_name = {
        f"{table.model} {place}": next(iter(table.metadata_by_fold.values()))
        for place, side in (("here", tables), ("there", others))
        for table in side
    }
    cure = "compare trainings with the same folds, groups, rows and corrections"
    check_same_fields(subject, metadata_by_name, SPLIT_FIELDS, cure)


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
