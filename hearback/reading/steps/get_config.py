"""Step 4: fit the ensemble on out-of-fold predictions and write model_configs.json.

Choose the combination and the calibration beforehand (--combine, --calibration), not from the table
of cross-fitted log losses: the best of ten is slightly optimistic. The defaults were chosen on an
earlier ensemble of real learners (docs/results/ensemble.md).

--compare_with fits a second ensemble, of the models in another folder, or of fewer of the same
ones (--compare_models), and prints the paired difference.

--time_limit chooses models and folds that fit within it. Ensembles of some of the models are also
fitted, as fallbacks for the --time_limit of infer.py.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hearback.engine import cli
from hearback.engine.data import corrections
from hearback.engine.data.corrections import Corrections
from hearback.engine.ensemble import budget, fitting
from hearback.engine.ensemble.calibration import KINDS
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import check_models, fold_tables
from hearback.reading import (
    comparison,
    ensemble_fitting,
    evaluation,
    step_command,
    word_evaluation,
)
from hearback.reading.ensemble_fitting import FittedEnsemble, OutOfFoldScores
from hearback.reading.evaluation import BASELINE, ReadingOutOfFold
from hearback.reading.pairings import WITHOUT_REFERENCE
from hearback.reading.word_label_table import load_word_labels
from hearback.reading.word_labels import WordLabels
from hearback.reading.words import said_probabilities


def main() -> None:
    """Fit the ensemble, print its scores and write its configuration."""
    flags = _parse_flags()
    metadata, causes, corrected = evaluation.read_corrected_metadata(
        flags.data, flags.causes, flags.corrections
    )
    corrected.announce()
    tables = _read_models(flags.assets, flags.models, corrected)
    common_voice(tables)  # differing voices are an error before the fit
    joined = evaluation.join(tables, metadata)
    print(f"{len(joined)} rows that every model predicted out of fold, of {len(metadata)}")

    tables, folds = _choose_folds(flags, tables, joined, n_clips=flags.rows or len(metadata))
    word_labels = load_word_labels(flags.data, metadata)
    data = OutOfFoldScores.read(flags.assets, tables, joined, word_labels)
    others = _read_others(flags, data, metadata, corrected, word_labels)
    fitted = ensemble_fitting.fit(data, flags.combine, flags.calibration)
    cross_fitted = fitted.scores.cross_fitted_predictions
    _print_error_analysis(joined, cross_fitted, metadata, causes)
    _print_words(fitted, cross_fitted, word_labels)
    for line in word_evaluation.describe_training_labels(tables, word_labels):
        print(f"\n{line}")
    if others is not None:
        _print_comparison(flags, fitted, others, metadata, causes)

    voice = common_voice(tables)
    config = ensemble_fitting.build_config(fitted, metadata, voice=voice, folds=folds)
    config.save(flags.config)
    print(f"\nwrote {flags.config}")


def _parse_flags() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    check_models.add_folder_flags(parser)
    corrections.add_flag(parser)
    add = parser.add_argument
    add("--config", type=Path, default=Path("model_configs.json"), help="file to write")
    fitting.add_combine_flag(parser)
    add(
        "--calibration",
        choices=KINDS,
        default="platt_by_group",
        help="calibration of the ensemble's scores",
    )
    add(
        "--causes",
        type=Path,
        help="CSV with the columns filename and why: log loss and AUC by cause",
    )
    add(
        "--time_limit",
        type=cli.argument_type(budget.parse_duration),
        help="time limit of inference (2h, 1h30m, 45m): choose models and folds that fit; times "
        "are those of the training machine, so leave a margin for another machine, for decoding "
        "and for starting",
    )
    add(
        "--rows",
        type=int,
        help="clips to score within the time limit (default: the number of training rows)",
    )
    add(
        "--compare_with",
        "--against",
        type=Path,
        metavar="FOLDER",
        help="folder with the folds of another ensemble: print paired differences of the log loss",
    )
    add(
        "--compare_models",
        nargs="+",
        metavar="MODEL",
        help="models of the other ensemble (default: all in its folder)",
    )
    flags = parser.parse_args()
    if flags.compare_models is not None and flags.compare_with is None:
        parser.error("--compare_models needs --compare_with")
    if flags.rows is not None and (flags.rows < 1 or flags.time_limit is None):
        parser.error("--rows needs --time_limit and must be at least 1")
    return flags


def _read_models(
    assets: Path, models: Sequence[str] | None, corrected: Corrections
) -> list[ReadingOutOfFold]:
    """Read the models' predictions, without the baselines, which infer.py cannot run."""
    tables = evaluation.read_out_of_fold(assets, models, corrected)
    kept = [table for table in tables if table.family != BASELINE]
    if baselines := [table.model for table in tables if table.family == BASELINE]:
        print(f"left out, because they are baselines: {', '.join(baselines)}")
    if not kept:
        raise HearbackError(f"{assets}: baselines only; train a model with {step_command('train')}")
    return kept


def common_voice(tables: Sequence[ReadingOutOfFold]) -> dict[str, Any] | None:
    """Return the voice of the reference speech, None if no model hears it.

    Raises HearbackError if the voice differs between folds.
    """
    voices = [
        fold_metadata["voice"]
        for table in tables
        for fold_metadata in table.metadata_by_fold.values()
        if fold_metadata["recipe"]["pair"] not in WITHOUT_REFERENCE
    ]
    if any(voice != voices[0] for voice in voices):
        raise HearbackError("the folds were trained with different voices; train them again")
    return voices[0] if voices else None


def _choose_folds(
    flags: argparse.Namespace,
    tables: list[ReadingOutOfFold],
    joined: pd.DataFrame,
    *,
    n_clips: int,
) -> tuple[list[ReadingOutOfFold], dict[str, tuple[int, ...]] | None]:
    """Return the models to use and their folds (None: all), chosen within --time_limit if set."""
    if flags.time_limit is None:
        return tables, None
    folds = fitting.choose_folds(
        tables,
        ensemble_fitting.stacking_data(joined, [table.model for table in tables]),
        n_clips=n_clips,
        limit=flags.time_limit,
        combine=flags.combine,
        calibration=flags.calibration,
    )
    return [table for table in tables if table.model in folds], folds


def _print_words(fitted: FittedEnsemble, predictions: np.ndarray, word_labels: WordLabels) -> None:
    """Print how the cross-fitted scores of words agree with their labels, if they have any."""
    cross_fitted = fitted.members.cross_fitted
    if cross_fitted is None or not word_labels:
        return
    said = said_probabilities(cross_fitted.words)
    table = word_evaluation.by_age(fitted.data.rows, said, predictions, word_labels)
    if len(table):
        fold_tables.print_tables({word_evaluation.TITLE: table})


def _read_others(
    flags: argparse.Namespace,
    data: OutOfFoldScores,
    metadata: pd.DataFrame,
    corrected: Corrections,
    word_labels: WordLabels,
) -> OutOfFoldScores | None:
    """Return the scores of the ensemble to compare with; None without --compare_with.

    Raises HearbackError if it cannot be compared with that of `data`.
    """
    if flags.compare_with is None:
        return None
    others = _read_models(flags.compare_with, flags.compare_models, corrected)
    there = evaluation.join(others, metadata)
    comparison.check_comparable(data.tables, others, data.rows, there)
    return OutOfFoldScores.read(flags.compare_with, others, there, word_labels)


def _print_comparison(
    flags: argparse.Namespace,
    fitted: FittedEnsemble,
    others: OutOfFoldScores,
    metadata: pd.DataFrame,
    causes: pd.Series | None,
) -> None:
    """Fit the other ensemble with the same settings, and print the differences to it."""
    by_filename = pd.Series(
        ensemble_fitting.cross_fit(others, flags.combine, flags.calibration),
        index=others.rows["filename"],
    )
    here = fitted.data.rows.assign(pred=fitted.scores.cross_fitted_predictions)
    if causes is not None:
        causes_by_filename = metadata.assign(cause=causes).set_index("filename")["cause"]
        here = here.assign(cause=here["filename"].map(causes_by_filename))
    if note := comparison.describe_other_data(fitted.data.tables, others.tables):
        print(f"\n{flags.compare_with}: {note}")
    print(f"\nThe other ensemble, of {flags.compare_with}: {', '.join(others.names)}")
    title = (
        f"Log loss here, of {flags.assets}, and there, of {flags.compare_with} (paired; low, high: "
        "2.5 to 97.5 % of a bootstrap)"
    )
    compared = comparison.differences(here, by_filename[here["filename"]].to_numpy())
    fold_tables.print_tables({title: compared})


def _print_error_analysis(
    joined: pd.DataFrame,
    predictions: np.ndarray,
    metadata: pd.DataFrame,
    causes: pd.Series | None,
) -> None:
    rows = joined[["filename", "score", "base"]].assign(pred=predictions)
    table = ReadingOutOfFold("ensemble", 0, rows, {})
    parts = table.rows_with(metadata if causes is None else metadata.assign(cause=causes))
    fold_tables.print_tables(
        {
            **evaluation.error_analysis([table], metadata, causes),
            "Log loss of the ensemble (low, high: 2.5 to 97.5 % of a bootstrap)": (
                evaluation.intervals_by_part(parts)
            ),
        }
    )


if __name__ == "__main__":
    cli.run(main)
