"""Cross-validation splits, and whether every fold has what a model needs to learn from."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.data.problems import Problem, Report, count_noun
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
    groupings: Sequence[str] = (),
) -> np.ndarray:
    """Return each row's fold, (rows,), int64 in 0 … n_folds - 1.

    Rows with the same value in the column `group_by` are in the same fold: a speaker in both
    training and validation, for example, inflates the score. "none" disables grouping; None means
    `default_group` if the metadata has that column, otherwise no grouping. Folds are stratified by
    label; ungrouped rows also by the column `stratify_by`, if there is one. The split depends on
    the rows' filenames, not on their order. `groupings` are the columns that a message offers for
    --group_by. Raises HearbackError if there are fewer groups than folds, or if every label has
    fewer rows than folds.
    """
    if n_folds < 2:
        raise HearbackError(f"--n_folds {n_folds}: out-of-fold scores need at least 2 folds")
    if group_by is None:
        group_by = default_group if default_group in metadata else None
    if group_by is None:
        group_by = "none"
    from sklearn import model_selection  # noqa: PLC0415  (--help needs none)

    order = np.argsort(metadata["filename"].to_numpy(dtype=str), kind="stable")
    ordered = metadata.iloc[order]
    targets = np.asarray(labels)[order].astype(int)
    if group_by == "none":
        strata = targets.astype(str)
        if stratify_by in ordered:
            strata = ordered[stratify_by].str.cat(strata, sep=" ").to_numpy(dtype=str)
        n_groups, groups = len(ordered), None
        splitter = model_selection.StratifiedKFold(n_folds, shuffle=True, random_state=SEED)
    else:
        if group_by not in ordered:
            raise HearbackError(f"folds by {group_by}: the metadata has no such column")
        strata = targets
        groups = ordered[group_by].to_numpy(dtype=str)
        n_groups = len(np.unique(groups))
        splitter = model_selection.StratifiedGroupKFold(n_folds, shuffle=True, random_state=SEED)
    if n_groups < n_folds:
        counted = count_noun(n_groups, "row" if group_by == "none" else group_by)
        cure = _cure_of_few_groups(n_groups, group_by, groupings)
        raise HearbackError(f"{counted} cannot make {n_folds} folds: {cure}")
    _check_strata(strata, n_folds)
    folds = np.empty(len(ordered), dtype=np.int64)
    with warnings.catch_warnings():  # find_lopsided_folds says it in the terms of the data
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        splits = list(splitter.split(ordered, strata, groups))
    for fold, (_, validation) in enumerate(splits):
        folds[order[validation]] = fold
    return folds


def _check_strata(strata: np.ndarray, n_folds: int) -> None:
    """Raise HearbackError if all strata, (rows,), have fewer rows than there are folds."""
    largest = int(np.unique(strata, return_counts=True)[1].max())
    if largest < n_folds:
        cure = f"choose at most {largest} with --n_folds" if largest > 1 else "add rows"
        raise HearbackError(
            f"{count_noun(len(strata), 'row')} are too few to spread each label over {n_folds} "
            f"folds: {cure}"
        )


def _cure_of_few_groups(n_groups: int, group_by: str, groupings: Sequence[str]) -> str:
    """Return the flags that make a split possible."""
    cures = [f"choose fewer with --n_folds, at least 2 (here 2 to {n_groups})"]
    if n_groups == 2:
        cures = ["choose 2 with --n_folds"]
    elif n_groups < 2:
        cures = []
    if group_by == "none":
        return cures[0] if cures else "out-of-fold scores need at least 2 rows; add some"
    others = [f"--group_by {each}" for each in groupings if each != group_by]
    others.append(
        f"--group_by none (rows of one {group_by} are then in training and validation, which "
        "inflates scores)"
    )
    return " or ".join([*cures, *others])


def find_single_class(
    labels: np.ndarray, classes: Mapping[int, str], file: str, limit: int | None = None
) -> list[Problem]:
    """Return the error of a table whose rows all have one label; [] if they have several.

    `labels` is (rows,), NaN or another value for an invalid one. `classes` are the names of the
    labels. With `limit`, only that many rows are used.
    """
    labels = labels[:limit]
    counts = _count(labels, classes)
    present = [label for label, n in counts.items() if n]
    if len(present) != 1 or counts[present[0]] != len(labels):
        return []
    (label,) = present
    rows = f"all {len(labels)} rows have" if len(labels) > 1 else "the only row has"
    what = f"{rows} the label {classes[label]}, so a model cannot learn to tell labels apart"
    cure = "add rows with another label"
    if limit is not None:
        cure = f"raise --limit {limit} until rows of another label are used"
    return [Problem(file, None, what, cure)]


def find_rare_labels(
    labels: np.ndarray, classes: Mapping[int, str], n_folds: int, file: str
) -> list[Problem]:
    """Return warnings of labels that fewer rows have than there are folds, or none.

    Arguments are as in `find_single_class`.
    """
    problems = []
    for label, n_rows in _count(labels, classes).items():
        if n_rows >= n_folds:
            continue
        have = f"only {count_noun(n_rows, 'row')} {'has' if n_rows == 1 else 'have'}"
        what = f"{have} the label {classes[label]}, for {n_folds} folds"
        cure = f"add rows with it, or use at most {n_rows} folds with --n_folds"
        if n_rows == 1:
            cure = "add rows with it"
        elif n_rows == 0:
            what = f"no row has the label {classes[label]}"
            cure = "models never predict it; add rows"
        problems.append(Problem(file, None, what, cure, "warning"))
    return problems


def find_unlearnable_labels(
    labels: np.ndarray, classes: Mapping[int, str], n_folds: int, file: str
) -> list[Problem]:
    """Return what is wrong with the labels before any split: all alike, or too few of some.

    Arguments are as in `find_single_class`. Of a table without rows or with invalid labels, which
    is another problem, nothing is said.
    """
    if len(labels) == 0 or not np.isin(labels, list(classes)).all():
        return []
    return find_single_class(labels, classes, file) or find_rare_labels(
        labels, classes, n_folds, file
    )


def find_lopsided_folds(
    split: FoldSplit, labels: np.ndarray, classes: Mapping[int, str], n_folds: int, file: str
) -> list[Problem]:
    """Return warnings of labels and folds that have too few rows to learn or to validate.

    Arguments are as in `find_single_class`.
    """
    problems = find_rare_labels(labels, classes, n_folds, file)

    def warn(what: str, cure: str) -> None:
        problems.append(Problem(file, None, what, cure, "warning"))

    cure = "add rows of the other labels, use fewer folds (--n_folds), or another --group_by"
    for kind, rows_of in (
        ("training", split.training_rows),
        ("validation", split.validation_rows),
    ):
        by_fold = {fold: labels[rows_of(fold)] for fold in range(n_folds)}
        empty = [fold for fold, found in by_fold.items() if not len(found)]
        single = [fold for fold, found in by_fold.items() if len(np.unique(found)) == 1]
        if empty:
            warn(f"{_name_folds(empty)}: no {kind} rows", cure)
        if single:
            effect = (
                "its model learns nothing"
                if kind == "training"
                else "its score says little, and choosing its best epoch by it even less"
            )
            warn(f"{_name_folds(single)}: all {kind} rows have one label; {effect}", cure)
        if kind == "training":
            several = {fold: found for fold, found in by_fold.items() if fold not in single}
            for label, folds in _lacking(several, labels, classes).items():
                effect = "they never predict it, and recipes that weight labels cannot train them"
                warn(f"{_name_folds(folds)}: no training row of {classes[label]}; {effect}", cure)
    return problems


def print_lopsided_folds(
    split: FoldSplit, labels: np.ndarray, classes: Mapping[int, str], n_folds: int, file: Path
) -> None:
    """Print what `find_lopsided_folds` finds, if anything."""
    problems = find_lopsided_folds(split, labels, classes, n_folds, str(file))
    if problems:
        print(Report(problems))


def _count(labels: np.ndarray, classes: Mapping[int, str]) -> dict[int, int]:
    """Return the number of rows of each label."""
    return {label: int(np.count_nonzero(labels == label)) for label in classes}


def _lacking(
    by_fold: Mapping[int, np.ndarray], labels: np.ndarray, classes: Mapping[int, str]
) -> dict[int, list[int]]:
    """Return the folds without rows of a label that other rows have, by label."""
    found = {
        label: [fold for fold, rows in by_fold.items() if len(rows) and label not in rows]
        for label, n_rows in _count(labels, classes).items()
        if n_rows
    }
    return {label: folds for label, folds in found.items() if folds}


def _name_folds(folds: Sequence[int]) -> str:
    return f"{'fold' if len(folds) == 1 else 'folds'} {', '.join(map(str, folds))}"
