"""Step 4: fit the ensemble on out-of-fold predictions and write model_configs.json.

The weights minimise the log loss. Choose the combination beforehand (--combine), not from the table
of cross-fitted log losses: the better of two is slightly optimistic. The default, logits, is the
best one for the reading competition (docs/results/ensemble.md).
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine import cli
from hearback.engine.data import corrections
from hearback.engine.ensemble import fitting
from hearback.engine.evaluation import check_models
from hearback.engine.evaluation.oof import common_rows, read_tables
from hearback.songs import SUBFOLDER, ensemble, evaluation, pictures
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.evaluation import PROBABILITIES, ClassOutOfFold, Score
from hearback.songs.tables import N_CLASSES, read_corrected_snippets

WEIGHTED = "weighted ensemble"


def main() -> None:
    """Fit the ensemble, print its scores and write its configuration."""
    flags = _parse_flags()
    snippets, corrected = read_corrected_snippets(flags.data, flags.corrections)
    corrected.announce()
    tables = read_tables(ClassOutOfFold, flags.assets, flags.models, corrected)
    names = [table.model for table in tables]
    joined = common_rows(tables, snippets)
    rows = joined[0]
    print(f"{len(rows)} rows that every model predicted out of fold, of {len(snippets)}")
    labels, groups = rows["label"].to_numpy(), rows["group"].to_numpy(dtype=str)
    predictions = np.stack([model_rows[PROBABILITIES].to_numpy() for model_rows in joined])

    scores = ensemble.fit(predictions, labels, groups, names, flags.combine)
    ensembles = {
        **_published(tables, rows["filename"], snippets),
        "plain mean": predictions.mean(axis=0),
        WEIGHTED: scores.cross_fitted_predictions,
    }
    models = dict(zip(names, predictions, strict=True))
    _print_scores(labels, groups, {**models, **ensembles}, in_sample=scores.fitted)
    _print_confusion(rows, scores.cross_fitted_predictions)
    if flags.picture is not None:
        matrices = {name: evaluation.confusion(labels, x) for name, x in ensembles.items()}
        pictures.draw_confusions(matrices, flags.picture)
        print(f"\nwrote {flags.picture}")

    class_shares = np.bincount(snippets["label"], minlength=N_CLASSES) / len(snippets)
    path = flags.config or flags.assets / "model_configs.json"
    SongEnsemble(
        models=fitting.model_configs(tables, scores),
        combine=scores.ensemble.combine,
        class_shares=tuple(class_shares.tolist()),
        log_losses=scores.log_losses,
        accuracies=ensemble.accuracies(scores, predictions, labels),
        n_rows=len(rows),
    ).save(path)
    print(f"\nwrote {path}")


def _parse_flags() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    check_models.add_folder_flags(parser, SUBFOLDER)
    corrections.add_flag(parser)
    add = parser.add_argument
    add("--config", type=Path, help="file to write (default: model_configs.json in the assets)")
    fitting.add_combine_flag(parser)
    add("--picture", type=Path, help="draw the confusion matrix into this file (.png, .svg, …)")
    return parser.parse_args()


def _published(
    tables: list[ClassOutOfFold], filenames: pd.Series, snippets: pd.DataFrame
) -> dict[str, np.ndarray]:
    """Return the published ensembles' (rows, classes) probabilities for `filenames`, by name."""
    return {
        published.table.model: published.table.rows.set_index("filename")
        .loc[filenames, PROBABILITIES]
        .to_numpy()
        for published in evaluation.published_ensembles(tables, snippets)
    }


def _print_scores(
    labels: np.ndarray, groups: np.ndarray, models: Mapping[str, np.ndarray], *, in_sample: float
) -> None:
    """Print the scores of models and ensembles, and the weighted ensemble's differences from them.

    `models` maps names to (rows, classes) probabilities.
    """
    scores = {name: evaluation.scores(labels, x, groups) for name, x in models.items()}
    print(f"\nScores ([2.5, 97.5 %] of a bootstrap over singers)\n{_as_text(scores)}")
    differences = {
        name: evaluation.paired_differences(labels, models[WEIGHTED], x, groups)
        for name, x in models.items()
        if name != WEIGHTED
    }
    print(f"\nThe {WEIGHTED} minus each model (paired over singers)\n{_as_text(differences)}")
    print(
        f"\nThe {WEIGHTED} is cross-fitted over singers. In-sample its log loss is "
        f"{in_sample:.4f} (optimistic: not the score)."
    )


def _as_text(scores: Mapping[str, Mapping[str, Score]]) -> str:
    return cli.as_text(pd.DataFrame.from_dict(scores, orient="index").map(str))


def _print_confusion(rows: pd.DataFrame, probabilities: np.ndarray) -> None:
    """Print the confusion matrix of the weighted ensemble's (rows, classes) probabilities."""
    predicted = rows.assign(**dict(zip(PROBABILITIES, probabilities.T, strict=True)))
    table = ClassOutOfFold(WEIGHTED, 0, predicted, {})
    print(f"\nConfusion matrix of the {WEIGHTED}\n{cli.as_text(evaluation.confusion_table(table))}")


if __name__ == "__main__":
    cli.run(main)
