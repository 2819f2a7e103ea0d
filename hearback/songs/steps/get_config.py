"""Fit the ensemble on out-of-fold predictions and write what hearback.songs.steps.infer runs.

The weights are those of the lowest log loss. How models are combined is said beforehand (--combine)
and not taken from the table of cross-fitted scores: the better of two would look a little better than it
is. The default, logits, is the first competition's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine import cli
from hearback.engine.data.problems import Report
from hearback.engine.ensemble import stacking
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.ensemble.stacking import EnsembleScores, Evidence, Groups
from hearback.engine.evaluation import oof, outliers
from hearback.songs import SUBFOLDER, evaluation, pictures
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.evaluation import PROBABILITIES, ClassOutOfFold
from hearback.songs.tables import N_CLASSES, read_snippets

OURS = "weighted ensemble"
NO_CALIBRATION = "none"  # the weights of logits, which need not sum to one, are one already


def main() -> None:
    """Join, fit, print the scores and write the file."""
    parser = cli.parser(__doc__)
    outliers.declare_trained(parser, SUBFOLDER)
    add = parser.add_argument
    add("--config", type=Path, help="to write (default: model_configs.json in the assets)")
    add(
        "--combine",
        choices=stacking.COMBINATIONS,
        default="logits",
        help="what of the models is weighted and added",
    )
    add("--picture", type=Path, help="draw the confusion matrix into this file (.png, .svg, …)")
    asked = parser.parse_args()

    report = Report()
    snippets = read_snippets(asked.data, report)
    report.raise_if_errors()
    tables = oof.read_tables(ClassOutOfFold, asked.assets, asked.models)
    joined = oof.common_rows(tables, snippets)
    rows = joined[0]
    print(f"{len(rows)} rows that every model predicted out of fold, of {len(snippets)}")
    labels, groups = rows["label"].to_numpy(), rows["group"].to_numpy(dtype=str)
    predictions = np.stack([of_model[PROBABILITIES].to_numpy() for of_model in joined])
    evidence = Evidence.of_classes(predictions, labels, Groups.of(groups))
    names = [table.model for table in tables]
    result = fit(evidence, names, asked.combine)

    mean = predictions.mean(axis=0)
    together = {
        **published(tables, rows["filename"], snippets),
        "plain mean": mean,
        OURS: result.cross_fitted_predictions,
    }
    show_scores(labels, groups, {**dict(zip(names, predictions, strict=True)), **together})
    print(
        f"\nThe {OURS} is scored on singers that its weights were not fitted on. On its own rows\n"
        f"its log loss is {result.fitted:.4f} (flattering: not the score)."
    )
    cross_fitted = rows.assign(
        **dict(zip(PROBABILITIES, result.cross_fitted_predictions.T, strict=True))
    )
    table = ClassOutOfFold(OURS, tables[0].n_folds, cross_fitted, {})
    print(f"\nConfusion matrix of the {OURS}\n{cli.as_text(evaluation.confusion_table(table))}")
    if asked.picture is not None:
        drawn = {name: evaluation.confusion(labels, of_it) for name, of_it in together.items()}
        pictures.draw_confusions(drawn, asked.picture)
        print(f"\nwrote {asked.picture}")

    fitted = result.mixture.predict(predictions, evidence.calibration_groups)
    shares = np.bincount(snippets["label"], minlength=N_CLASSES) / len(snippets)
    path = asked.assets / "model_configs.json" if asked.config is None else asked.config
    SongEnsemble(
        models=tuple(
            ModelConfig(table.model, tuple(table.metadata_by_fold), float(weight))
            for table, weight in zip(tables, result.mixture.weights, strict=True)
        ),
        combine=result.mixture.combine,
        class_shares=tuple(shares.tolist()),
        log_losses={
            "cross_fitted": result.cross_fitted,
            "fitted": result.fitted,
            "plain_mean": result.plain_mean,
        },
        accuracies={
            "cross_fitted": accuracy(labels, result.cross_fitted_predictions),
            "fitted": accuracy(labels, fitted),
            "plain_mean": accuracy(labels, mean),
        },
        n_rows=len(rows),
    ).save(path)
    print(f"\nwrote {path}")


def fit(evidence: Evidence, names: Sequence[str], combine: str) -> EnsembleScores:
    """Fit the ensemble of some models and print what each does for it."""
    result = stacking.score_ensemble(evidence, combine, NO_CALIBRATION)
    columns = {
        "log loss": result.alone,
        "accuracy": [accuracy(evidence.labels, alone) for alone in evidence.predictions],
        "weight": result.mixture.weights,
        "ensemble without it": [
            stacking.cross_fitted_log_loss_without([place], evidence, combine, NO_CALIBRATION)
            for place in range(len(names))
        ],
    }
    models = pd.DataFrame(columns, index=pd.Index(names, name="model"))
    print(f"\nModels (weights of their {combine})\n{cli.as_text(models)}")
    compared = stacking.compare_combinations(evidence, [NO_CALIBRATION])
    table = pd.DataFrame(compared).T.rename(columns={NO_CALIBRATION: "log loss"})
    print(f"\nHonest log loss by combination\n{cli.as_text(table)}")
    return result


def published(
    tables: Sequence[ClassOutOfFold], filenames: pd.Series, snippets: pd.DataFrame
) -> dict[str, np.ndarray]:
    """Return the probabilities, (rows, classes), of the systems' ensembles on those rows."""
    return {
        of_it.table.model: of_it.table.rows.set_index("filename")
        .loc[filenames, PROBABILITIES]
        .to_numpy()
        for of_it in evaluation.as_published(tables, snippets)
    }


def show_scores(labels: np.ndarray, groups: np.ndarray, models: Mapping[str, np.ndarray]) -> None:
    """Print the scores of models and ensembles by name, and what ours gains on each of the others.

    Their probabilities are (rows, classes).
    """
    scored = {name: evaluation.scores(labels, of_it, groups) for name, of_it in models.items()}
    print(f"\nScores ([2.5, 97.5 %] of a bootstrap over singers)\n{_as_text(scored)}")
    gained = {
        f"against {name}": evaluation.gains(labels, models[OURS], of_it, groups)
        for name, of_it in models.items()
        if name != OURS
    }
    print(f"\nDifferences of the {OURS} (paired: on the same singers)\n{_as_text(gained)}")


def _as_text(scored: Mapping[str, Mapping[str, evaluation.Score]]) -> str:
    return cli.as_text(pd.DataFrame.from_dict(scored, orient="index").map(str))


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the share of (rows,) labels that (rows, classes) have as the likeliest."""
    return float((probabilities.argmax(axis=1) == labels).mean())


if __name__ == "__main__":
    cli.run(main)
