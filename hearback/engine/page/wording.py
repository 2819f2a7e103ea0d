"""What pages say in the same words: estimates, ensembles, folds, problems of the input."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pandas as pd

from hearback.engine.data.problems import Problem, count_noun
from hearback.engine.evaluation.oof import OutOfFold
from hearback.engine.page.content import Estimate, ModelResult, Refused

Table = TypeVar("Table", bound=OutOfFold)


def show(estimate: Estimate, digits: int = 3) -> str:
    """Return e.g. "0.241 [0.210, 0.276]"."""
    if estimate.value is None:
        return "–"
    value = f"{estimate.value:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def show_share(estimate: Estimate) -> str:
    """Return a share in percent, e.g. "22 % [17, 29]"."""
    if estimate.value is None:
        return "–"
    value = f"{100 * estimate.value:.0f} %"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"


def describe_model(model: ModelResult) -> str:
    """Return how a verdict begins: "Out of fold, resnet34"."""
    if model.is_ensemble:
        return "Out of fold and cross-fitted, the ensemble"
    return f"Out of fold, {model.name}"


def describe_ensemble(models: Sequence[ModelResult]) -> str:
    """Return the ensemble's models with their weights, in one line; "" without an ensemble."""
    if not any(model.is_ensemble for model in models):
        return ""
    weighted = [model for model in models if model.weight]
    return ", ".join(f"{model.name} ({model.weight:.2f})" for model in weighted)


def describe_models(
    models: Sequence[ModelResult], tables: Sequence[Table], kind_of: Callable[[Table], str]
) -> list[tuple[str, str]]:
    """Return the facts of a model card: the ensemble, and each model's folds, kind and backbone."""
    facts = [("ensemble", describe_ensemble(models))]
    for table in tables:
        metadata = next(iter(table.metadata_by_fold.values()))
        backbone = (metadata.get("recipe") or {}).get("backbone") or ""
        n_trained = len(table.metadata_by_fold)
        parts = [f"{n_trained} of {table.n_folds} folds", kind_of(table), Path(backbone).name]
        facts.append((table.model, ", ".join(filter(None, parts))))
    return [(name, value) for name, value in facts if value]


def unscored_folds(
    training_table: pd.DataFrame,
    rows: pd.DataFrame,
    tables: Sequence[Table],
    training_command: str,
) -> list[str]:
    """Return a sentence on the rows of the folds that no model has trained yet; [] if all are.

    `rows` are those with a prediction, `tables` are the models.
    """
    n_folds = max((table.n_folds for table in tables), default=0)
    trained = {fold for table in tables for fold in table.metadata_by_fold}
    missing = [str(fold) for fold in range(n_folds) if fold not in trained]
    n_rows = int((~training_table["filename"].isin(rows["filename"])).sum())
    if not missing or not n_rows:
        return []
    folds = f"fold {missing[0]}"
    if missing[1:]:
        folds = f"folds {', '.join(missing[:-1])} and {missing[-1]}"
    them = "it" if len(missing) == 1 else "them"
    return [
        f"Not scored yet: {count_noun(n_rows, 'row')} of {folds}. {training_command} trains {them}."
    ]


def not_predicted(
    training_table: pd.DataFrame,
    rows: pd.DataFrame,
    tables: Sequence[Table],
    training_command: str,
) -> list[Refused]:
    """Return the rows of a training table that no fold has scored although all are trained.

    `training_table` has the columns filename and line, `rows` are those with a prediction. See
    `unscored_folds` for the others.
    """
    if unscored_folds(training_table, rows, tables, training_command):
        return []
    left_out = training_table[~training_table["filename"].isin(rows["filename"])]
    what = "no fold has scored it out of fold"
    cure = f"train the missing folds: {training_command}"
    return [
        Refused(row["filename"], row["line"], what, cure) for row in left_out.to_dict("records")
    ]


def refused(problems: Sequence[Problem], *, warnings: bool = False) -> list[Refused]:
    """Return the errors of single recordings, with their `warnings` if asked for."""
    return [
        Refused(each.filename, each.row, each.what, each.cure)
        for each in problems
        if each.filename and (warnings or each.severity == "error")
    ]


def general_warnings(problems: Sequence[Problem]) -> list[str]:
    """Return what the problems of whole tables say."""
    return [each.what for each in problems if each.row is None and not each.filename]
