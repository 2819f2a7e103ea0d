"""Cross-validation splits."""

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from hearback.engine.errors import HearbackError

SEED = 42  # one split for every model, so that fold 3 means the same rows everywhere


class FoldSplit:
    """The rows of each fold, from `folds`, (rows,): the fold that holds out each row."""

    folds: np.ndarray

    def training_rows(self, fold: int) -> np.ndarray:
        """Return the indices of the fold's training rows: those of all other folds."""
        return np.flatnonzero(self.folds != fold)

    def validation_rows(self, fold: int) -> np.ndarray:
        """Return the indices of the fold's held-out rows."""
        return np.flatnonzero(self.folds == fold)


def assign_folds(
    metadata: pd.DataFrame,
    labels: np.ndarray,
    n_folds: int,
    group_by: str | None = None,
    *,
    default_group: str | None = None,
    stratify_by: str | None = None,
) -> np.ndarray:
    """Return each row's fold, (rows,), int64 in 0 … n_folds - 1.

    Rows with the same value in the column `group_by` are in the same fold: a speaker in both
    training and validation, for example, inflates the score. "none" disables grouping; None means
    `default_group` if the metadata has that column, otherwise no grouping. Folds are stratified by
    label; ungrouped rows also by the column `stratify_by`, if there is one. The split depends on
    the rows' filenames, not on their order. Raises HearbackError if there are fewer groups than
    folds, or if every label has fewer rows than folds.
    """
    if n_folds < 2:
        raise HearbackError(f"--n_folds {n_folds}: out-of-fold scores need at least 2 folds")
    if group_by is None:
        group_by = default_group if default_group in metadata else None
    if group_by is None:
        group_by = "none"
    order = np.argsort(metadata["filename"].to_numpy(dtype=str), kind="stable")
    ordered = metadata.iloc[order]
    targets = np.asarray(labels)[order].astype(int)
    if group_by == "none":
        strata = targets.astype(str)
        if stratify_by in ordered:
            strata = ordered[stratify_by].str.cat(strata, sep=" ").to_numpy(dtype=str)
        n_groups, groups = len(ordered), None
        splitter = StratifiedKFold(n_folds, shuffle=True, random_state=SEED)
    else:
        if group_by not in ordered:
            raise HearbackError(f"folds by {group_by}: the metadata has no such column")
        strata = targets
        groups = ordered[group_by].to_numpy(dtype=str)
        n_groups = len(np.unique(groups))
        splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=SEED)
    if n_groups < n_folds:
        raise HearbackError(
            f"{n_groups} {group_by if group_by != 'none' else 'row'}s cannot make {n_folds} folds: "
            "choose fewer with --n_folds"
        )
    if np.unique(strata, return_counts=True)[1].max() < n_folds:
        raise HearbackError(
            f"{len(ordered)} rows are too few to spread each label over {n_folds} folds: "
            "choose fewer with --n_folds"
        )
    folds = np.empty(len(ordered), dtype=np.int64)
    for fold, (_, validation) in enumerate(splitter.split(ordered, strata, groups)):
        folds[order[validation]] = fold
    return folds
