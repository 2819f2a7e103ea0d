"""The step get_config, for every competition: fit the ensemble and print its tables."""

import argparse
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from hearback.engine import cli
from hearback.engine.ensemble import budget, stacking
from hearback.engine.ensemble.budget import Costs, ModelSubset
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.ensemble.stacking import EnsembleScores, StackingData
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.oof import OutOfFold

# Maps (rows,) labels and (rows, …) predictions to a number.
Metric = Callable[[np.ndarray, np.ndarray], float]


def add_combine_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag --combine."""
    parser.add_argument(
        "--combine",
        choices=stacking.COMBINATIONS,
        default="logits",
        help="what is weighted and summed over models",
    )


def fit(
    data: StackingData,
    names: Sequence[str],
    combine: str,
    calibration: str,
    metrics: Mapping[str, Metric] | None = None,
    *,
    without: Callable[[int], float] | None = None,
) -> EnsembleScores:
    """Fit the ensemble of the models `names`; print a table with a row per model.

    Its columns are the log loss, `metrics` by name, the weight, and the cross-fitted log loss of
    the ensemble without the model: `without` of its index, or else of the others' predictions.
    Raises HearbackError if all rows have one label.
    """
    if len(found := np.unique(data.labels)) < 2:
        listed = " and ".join(f"{label:g}" for label in found)
        raise HearbackError(
            f"all {len(data.labels)} rows that every model predicted have the label {listed}: an "
            "ensemble cannot be fitted to them; add rows with another label, or train more folds, "
            "then train again"
        )
    scores = stacking.score_ensemble(data, combine, calibration)
    columns = {
        "log loss": scores.alone,
        **{
            name: [metric(data.labels, alone) for alone in data.predictions]
            for name, metric in (metrics or {}).items()
        },
        "weight": scores.ensemble.weights,
        "ensemble without it": [
            without(model)
            if without is not None
            else stacking.log_loss_without([model], data, combine, calibration)
            for model in range(len(names))
        ],
    }
    table = pd.DataFrame(columns, index=pd.Index(names, name="model"))
    print(f"\nModels (weights of their {combine})\n{cli.as_text(table)}")
    return scores


def print_combinations(data: StackingData, calibrations: Sequence[str]) -> None:
    """Print the cross-fitted log loss of every combination with each of `calibrations`."""
    table = pd.DataFrame(stacking.compare_combinations(data, calibrations)).T
    title = "Cross-fitted log loss by combination"
    if len(calibrations) > 1:
        title += " and calibration"
    else:
        table.columns = pd.Index(["log loss"])
    print(f"\n{title}\n{cli.as_text(table)}")


def choose_folds(
    tables: Sequence[OutOfFold],
    data: StackingData,
    *,
    n_clips: int,
    limit: float,
    combine: str,
    calibration: str,
) -> dict[str, tuple[int, ...]]:
    """Choose models and folds that score `n_clips` within `limit` seconds; print the choice.

    Returns the fold numbers by model, without the models that are left out. Raises HearbackError if
    no model fits.
    """
    costs = Costs.of_models(tables, n_clips)
    n_folds = budget.plan_folds(data, costs, limit, combine, calibration)
    full = stacking.log_loss_without([], data, combine, calibration)
    left_out = np.flatnonzero(n_folds == 0).tolist()
    chosen = stacking.log_loss_without(left_out, data, combine, calibration)

    names = [table.model for table in tables]
    durations = [budget.show_duration(seconds) for seconds in costs.seconds]
    columns = {"one fold": durations, "folds": n_folds, "of": costs.n_folds}
    models = pd.DataFrame(columns, index=pd.Index(names, name="model"))
    plans = {
        "full ensemble": (costs.n_folds, full),
        "half of every model's folds": (costs.half_of_the_folds, full),
        "within the limit": (n_folds, chosen),
    }
    compared = pd.DataFrame(
        {
            "time": {name: budget.show_duration(costs.total(n)) for name, (n, _) in plans.items()},
            "cross-fitted log loss": {name: loss for name, (_, loss) in plans.items()},
        }
    )
    print(
        f"\nWithin {budget.show_duration(limit)}, {n_clips} clips\n{cli.as_text(models)}\n\n"
        f"{cli.as_text(compared)}\n"
        "These log losses are of one fold per model: out-of-fold predictions cannot show the gain\n"
        "of further folds, so half of the folds look as good as all. Models are chosen by their\n"
        "gain (in-sample, slightly optimistic), further folds by the weight and time of their\n"
        "model."
    )
    return {
        table.model: tuple(table.metadata_by_fold)[:n]
        for table, n in zip(tables, n_folds.tolist(), strict=True)
        if n
    }


def model_configs(
    tables: Sequence[OutOfFold],
    scores: EnsembleScores,
    folds: Mapping[str, tuple[int, ...]] | None = None,
    *,
    other_weight: float = 0.0,
) -> tuple[ModelConfig, ...]:
    """Return the models with their fitted weights; `folds` by model, or else all trained folds.

    `other_weight` is that of a member that is no model. Raises HearbackError if nothing has a
    weight.
    """
    if not other_weight and not np.any(scores.ensemble.weights > 0):
        raise HearbackError(
            "no configuration is written: no model has a weight, for none predicts better than a "
            "constant. Train them on more rows, above all with the rarer labels, and train folds "
            "again that the step check_models lists"
        )
    return tuple(
        ModelConfig(
            table.model,
            tuple(table.metadata_by_fold) if folds is None else folds[table.model],
            float(weight),
            budget.seconds_per_clip(table),
        )
        for table, weight in zip(tables, scores.ensemble.weights, strict=True)
    )


def fit_fallbacks(
    models: Sequence[ModelConfig], data: StackingData, combine: str, calibration: str
) -> list[tuple[ModelSubset, float]]:
    """Fit ensembles of some of the `models`, for inference that runs out of time.

    Returns them with their cross-fitted log losses, the lowest last; they index `models`. Empty,
    with a line on the screen, if the time per clip of some model is unknown.
    """
    seconds = [model.seconds_per_clip for model in models]
    known = [value for value in seconds if value is not None]
    if len(known) < len(seconds):
        print("\nThe time per clip of some model is unknown: infer cannot use --time_limit")
        return []
    found = [
        (
            subset,
            stacking.log_loss_without(_others(subset, len(models)), data, combine, calibration),
        )
        for subset in budget.choose_fallbacks(data, np.array(known), combine, calibration)
    ]
    return sorted(found, key=lambda fallback: -fallback[1])


def _others(subset: ModelSubset, n_models: int) -> list[int]:
    return [model for model in range(n_models) if model not in subset.models]
