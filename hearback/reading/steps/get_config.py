"""Fit the ensemble on out-of-fold predictions and write model_configs.json.

How models are combined and calibrated is said beforehand (--combine, --calibration) and not taken
from the table of cross-fitted scores: the best of ten would look a little better than it is. The defaults
are what paid on real learners (docs/results.md).

With --time_limit, fewer models and folds are taken, those worth their time (hearback/budget.py).
For infer.py's --time_limit, ensembles of some of the models are fitted as well.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine import cli
from hearback.engine.data.problems import Report
from hearback.engine.ensemble import budget, calibration, stacking
from hearback.engine.ensemble.budget import Costs
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.ensemble.stacking import EnsembleScores, Evidence, Groups
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import outliers
from hearback.engine.evaluation.oof import OutOfFold
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading import evaluation, words
from hearback.reading.dataset import read_labelled
from hearback.reading.ensemble import EnsembleConfig, Fallback
from hearback.reading.tables import age_groups
from hearback.reading.words import WordCalibration


def main() -> None:
    """Join, fit, print the scores and write the file."""
    parser = cli.parser(__doc__)
    outliers.declare_trained(parser)
    add = parser.add_argument
    add("--config", type=Path, default=Path("model_configs.json"), help="to write")
    add(
        "--combine",
        choices=stacking.COMBINATIONS,
        default="logits",
        help="what of the models is weighted and added",
    )
    add(
        "--calibration",
        choices=calibration.KINDS,
        default="platt_by_group",
        help="of what the models give together",
    )
    add("--causes", type=Path, help="CSV of filename and why: AUC of each cause")
    add(
        "--time_limit",
        type=budget.parse_duration,
        help="of inference (2h, 1h30m, 45m): choose models and folds that fit; how long a fold "
        "takes is known from its training, so leave a margin for another machine, and for "
        "decoding and starting",
    )
    add("--rows", type=int, help="clips to score within it (default: as many as were trained on)")
    arguments = parser.parse_args()
    if arguments.rows is not None and (arguments.rows < 1 or arguments.time_limit is None):
        parser.error("--rows is a number of clips, for --time_limit")

    report = Report()
    metadata, labels = read_labelled(arguments.data, report)
    metadata = metadata.assign(score=labels)
    causes = None
    if arguments.causes is not None:
        causes = evaluation.read_causes(arguments.causes, metadata, report)
    report.raise_if_errors()
    tables = evaluation.read_out_of_fold(arguments.assets, arguments.models)
    if baselines := [table.model for table in tables if table.family == "baseline"]:
        # They are there to be compared with; infer.py has nothing of theirs to run.
        print(f"left out, for they are baselines: {', '.join(baselines)}")
        tables = [table for table in tables if table.family != "baseline"]
    if not tables:
        raise HearbackError(
            f"{arguments.assets}: baselines only; train a model with python train.py"
        )
    voices = [
        fold_metadata["voice"]
        for table in tables
        for fold_metadata in table.metadata_by_fold.values()
    ]
    if any(voice != voices[0] for voice in voices):
        raise HearbackError("the folds were trained with different voices; train them again")
    joined = evaluation.join(tables, metadata)
    print(f"{len(joined)} rows that every model predicted out of fold, of {len(metadata)}")
    folds = {table.model: tuple(table.metadata_by_fold) for table in tables}
    if arguments.time_limit is not None:
        folds = choose_folds(
            tables,
            joined,
            n_rows=arguments.rows or len(metadata),
            limit=arguments.time_limit,
            combine=arguments.combine,
            kind=arguments.calibration,
        )
        tables = [table for table in tables if table.model in folds]
    families = {table.model: table.family for table in tables}
    result = fit(joined, families, arguments.combine, arguments.calibration)

    cross_fitted = joined[["filename", "score", "base"]].assign(
        pred=result.cross_fitted_predictions
    )
    tables_of_it = [OutOfFold("ensemble", tables[0].n_folds, cross_fitted, {})]
    for title, frame in evaluation.error_analysis(tables_of_it, metadata, causes).items():
        print(f"\n{title}\n{cli.as_text(frame)}")

    weights = dict(zip(families, result.mixture.weights.tolist(), strict=True))
    models = tuple(
        ModelConfig(table.model, folds[table.model], weights[table.model], seconds_of(table))
        for table in tables
    )
    weighted = [table for table in tables if weights[table.model]]
    log_odds = read_words(arguments.assets, weighted, joined)
    word_calibration, words_loss = fit_words(log_odds, weights, joined, result.cross_fitted)
    rates = metadata.groupby("task")["score"].mean()
    EnsembleConfig(
        models=models,
        voice=voices[0],
        base_rates={"all": float(labels.mean()), **rates.astype(float).to_dict()},
        log_losses={
            "cross_fitted": result.cross_fitted,
            "fitted": result.fitted,
            "plain_mean": result.plain_mean,
            **words_loss,
        },
        n_rows=len(joined),
        combine=result.mixture.combine,
        calibration=result.mixture.calibration,
        words=word_calibration,
        fallbacks=fit_fallbacks(joined, models, log_odds, arguments.combine, arguments.calibration),
    ).save(arguments.config)
    print(f"\nwrote {arguments.config}")


def evidence_of(joined: pd.DataFrame, models: Sequence[str]) -> Evidence:
    """Return what an ensemble of some models, columns of `joined`, is fitted to."""
    return Evidence(
        predictions=joined[list(models)].to_numpy().T,
        labels=joined["score"].to_numpy(),
        groups=Groups.of(joined[evaluation.group_unit(joined)].to_numpy(dtype=str)),
        calibration_groups=age_groups(joined["grade"].to_numpy(dtype=str)),
    )


def choose_folds(
    tables: Sequence[OutOfFold],
    joined: pd.DataFrame,
    *,
    n_rows: int,
    limit: float,
    combine: str,
    kind: str,
) -> dict[str, tuple[int, ...]]:
    """Choose the models and folds that score `n_rows` clips in `limit` seconds; print the choice.

    Returns the folds by model.
    """
    names = [table.model for table in tables]
    costs = Costs(
        seconds=np.array([n_rows * budget.seconds_per_clip(table) for table in tables]),
        n_folds=np.array([len(table.metadata_by_fold) for table in tables]),
    )
    evidence = evidence_of(joined, names)
    planned = budget.plan_folds(evidence, costs, limit, combine, kind)
    (everything,) = stacking.cross_fit(evidence, combine, [kind]).values()
    full = stacking.mean_log_loss(evidence.labels, everything)
    left_out = np.flatnonzero(planned == 0).tolist()
    chosen = stacking.cross_fitted_log_loss_without(left_out, evidence, combine, kind)

    durations = [budget.show_duration(seconds) for seconds in costs.seconds]
    columns = {"one fold": durations, "folds": planned, "of": costs.n_folds}
    models = pd.DataFrame(columns, index=pd.Index(names, name="model"))
    plans = {
        "full ensemble": (costs.n_folds, full),
        "half of every model's folds": (costs.half_of_the_folds, full),
        "within the limit": (planned, chosen),
    }
    compared = pd.DataFrame(
        {
            "time": {name: budget.show_duration(costs.total(n)) for name, (n, _) in plans.items()},
            "cross-fitted log loss": {name: loss for name, (_, loss) in plans.items()},
        }
    )
    print(
        f"\nWithin {budget.show_duration(limit)}, {n_rows} clips\n{cli.as_text(models)}\n\n"
        f"{cli.as_text(compared)}\n"
        "These log losses are of one fold of each model, for so out-of-fold predictions are made:\n"
        "what more folds of a model add they cannot show, so half of the folds look as good as\n"
        "all. Models are chosen by what they gain (on these very rows, which flatters a little);\n"
        "the time left goes to further folds, by their models' weights and seconds."
    )
    return {
        table.model: tuple(table.metadata_by_fold)[:n]
        for table, n in zip(tables, planned.tolist(), strict=True)
        if n
    }


def fit(
    joined: pd.DataFrame, families: Mapping[str, str], combine: str, kind: str
) -> EnsembleScores:
    """Fit the ensemble of some models, columns of `joined`, and print its scores.

    `families` maps each model to its family.
    """
    names = list(families)
    unit = evaluation.group_unit(joined)
    evidence = evidence_of(joined, names)
    result = stacking.score_ensemble(evidence, combine, kind)

    def without(*models: int) -> float:
        return stacking.cross_fitted_log_loss_without(models, evidence, combine, kind)

    columns = {
        "log loss": result.alone,
        "weight": result.mixture.weights,
        "ensemble without it": [without(place) for place in range(len(names))],
    }
    models = pd.DataFrame(columns, index=pd.Index(names, name="model"))
    print(f"\nModels (weights of their {combine})\n{cli.as_text(models)}")
    for family in dict.fromkeys(families.values()):
        places = [place for place, name in enumerate(names) if families[name] == family]
        if 1 < len(places) < len(names):  # one model: its line above; all: nothing is left
            members = ", ".join(names[place] for place in places)
            print(f"without the {family} models ({members}): {without(*places):.4f}")

    table = pd.DataFrame(stacking.compare_combinations(evidence)).T
    print(f"\nHonest log loss by combination and calibration\n{cli.as_text(table)}\n")

    print(f"{'plain mean':<20} log loss {result.plain_mean:.4f}")
    loss, (low, high) = evaluation.log_loss_with_interval(joined, result.cross_fitted_predictions)
    print(
        f"{'weighted ensemble':<20} log loss {loss:.4f} [{low:.4f}, {high:.4f}]   "
        f"(2.5 to 97.5 % of a bootstrap over {unit}s;\n"
        f"{'':<20} {combine}, {kind}: fitted without the {unit}s that they are scored on)"
    )
    gain, error = evaluation.gain_with_error(joined, pd.Series(result.cross_fitted_predictions))
    print(f"{'':<20} {gain:.4f} ± {error:.4f} (by {unit}) below the base rate")
    print(f"{'on its own rows':<20} log loss {result.fitted:.4f}   (flattering: not the score)")
    for group, line in result.mixture.calibration.lines.items():
        print(f"{'calibration':<20} {group}: log-odds × {line.slope:.3f} {line.intercept:+.3f}")
    return result


def seconds_of(table: OutOfFold) -> float | None:
    """Return how long a fold of a model takes for a clip; None where its training does not say."""
    try:
        return budget.seconds_per_clip(table)
    except HearbackError:
        return None


def fit_fallbacks(
    joined: pd.DataFrame,
    models: Sequence[ModelConfig],
    log_odds: Mapping[str, np.ndarray],
    combine: str,
    kind: str,
) -> tuple[Fallback, ...]:
    """Fit what stands in for the ensemble where infer.py has no time for all of its models.

    `log_odds` are the words', of the models that score them. Print each with its cross-fitted log loss.
    None are fitted where it is not known how long the models take.
    """
    run = [model for model in models if model.weight]
    seconds = [model.seconds_per_clip for model in run if model.seconds_per_clip is not None]
    if len(seconds) < len(run):
        print("\nHow long a fold takes is not known of all models: infer.py has no --time_limit")
        return ()
    names = [model.name for model in run]
    evidence = evidence_of(joined, names)
    labels = joined["score"].to_numpy()
    fallbacks = []
    for choice in budget.choose_fallbacks(evidence, np.array(seconds), combine, kind):
        chosen = [names[place] for place in choice.models]
        weights = dict(zip(chosen, choice.mixture.weights.tolist(), strict=True))
        (cross_fitted,) = stacking.cross_fit(evidence.only(choice.models), combine, [kind]).values()
        loss = stacking.mean_log_loss(labels, cross_fitted)
        of_words = calibrate_words(log_odds, weights, labels)
        fallbacks.append(Fallback(weights, choice.mixture.calibration, loss, of_words))
    fallbacks.sort(key=lambda fallback: -fallback.log_loss)
    if fallbacks:
        lines = [
            f"{fallback.log_loss:.4f}  {', '.join(fallback.weights)}" for fallback in fallbacks
        ]
        print("\nHonest log loss of what infer.py --time_limit may fall back on")
        print("\n".join(lines))
    return tuple(fallbacks)


def read_words(
    assets: Path, tables: Sequence[OutOfFold], joined: pd.DataFrame
) -> dict[str, np.ndarray]:
    """Return the out-of-fold log-odds of words, (rows, places, 2), of the models that have them."""
    filenames, texts = joined["filename"].tolist(), joined["expected_text"].tolist()
    log_odds = {}
    for table in filter(scores_words, tables):
        folds = table.metadata_by_fold.items()
        rows = [words.read_fold(FoldFiles(assets, table.model, fold), s) for fold, s in folds]
        log_odds[table.model] = words.lay_out(pd.concat(rows), filenames, texts)
    return log_odds


def mean_of_words(log_odds: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Return the mean of some models' log-odds of words by their weights, (rows, places, 2)."""
    return np.average(list(log_odds.values()), axis=0, weights=[weights[name] for name in log_odds])


def calibrate_words(
    log_odds: Mapping[str, np.ndarray], weights: Mapping[str, float], labels: np.ndarray
) -> WordCalibration | None:
    """Calibrate the words of those models of `weights` that score them; None where none does."""
    scoring = {name: of_model for name, of_model in log_odds.items() if weights.get(name)}
    if not scoring:
        return None
    return words.fit_words(list(scoring), mean_of_words(scoring, weights), labels)


def fit_words(
    log_odds: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    joined: pd.DataFrame,
    of_ensemble: float,
) -> tuple[WordCalibration | None, dict[str, float]]:
    """Calibrate the words of the models that score them, and print how good they are.

    `of_ensemble` is its log loss, to compare with. Returns None where there are no such models, and
    the log loss under "words" where there are.
    """
    labels = joined["score"].to_numpy()
    fitted = calibrate_words(log_odds, weights, labels)
    if fitted is None:
        print("\nNo model of the ensemble scores words: infer.py has no --words")
        return None, {}
    unit = evaluation.group_unit(joined)
    groups = joined[unit].to_numpy(dtype=str)
    cross_fitted = words.cross_fit_words(mean_of_words(log_odds, weights), labels, groups)
    loss, (low, high) = evaluation.log_loss_with_interval(joined, cross_fitted)
    print(
        f"\nWords, scored by {', '.join(log_odds)}\n"
        f"{'product over words':<20} log loss {loss:.4f} [{low:.4f}, {high:.4f}]   "
        f"(the ensemble's: {of_ensemble:.4f}; fitted without the {unit}s)"
    )
    for what, line in (("said", fitted.said), ("complete", fitted.complete)):
        print(f"{'calibration':<20} {what}: log-odds × {line.slope:.3f} {line.intercept:+.3f}")
    return fitted, {"words": loss}


def scores_words(table: OutOfFold) -> bool:
    """Return whether a model's folds have word scores; HearbackError where only some have."""
    without = [
        fold
        for fold, fold_metadata in table.metadata_by_fold.items()
        if "words" not in fold_metadata["sha256"]
    ]
    if without and len(without) < len(table.metadata_by_fold):
        raise HearbackError(f"{table.model}: train again, for their word scores, folds {without}")
    return not without


if __name__ == "__main__":
    cli.run(main)
