"""Fit the ensemble of trained folds, and write the scorer's folder with its card."""

import argparse
import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from hearback.reading import ensemble_fitting, evaluation
from hearback.reading.ensemble_fitting import Members, OutOfFoldScores
from hearback.reading.evaluation import ReadingOutOfFold
from hearback.reading.options import TrainingOptions
from hearback.reading.pretrained import accuracy, card, writing
from hearback.reading.pretrained.card import CardFacts
from hearback.reading.pretrained.folders import (
    CARD,
    MAX_SHIPPED_BYTES,
    PRETRAINED,
    find_scorers,
    n_bytes,
    show_megabytes,
)
from hearback.reading.recipe import Recipe
from hearback.reading.word_label_table import load_word_labels

COMBINE, CALIBRATION = "logits", "platt_by_group"


def assemble(
    arguments: argparse.Namespace, options: TrainingOptions, recipes: Sequence[Recipe]
) -> None:
    """Fit the ensemble of trained recipes, and write the scorer's folder.

    `arguments` are those of the command `build`.
    """
    metadata, causes, corrected = evaluation.read_corrected_metadata(
        options.data, arguments.causes, options.corrections
    )
    names = [each.name for each in recipes]
    tables = evaluation.read_out_of_fold(options.assets, names, corrected)
    joined = evaluation.join(tables, metadata)
    word_labels = load_word_labels(options.data, metadata)
    scores = OutOfFoldScores.read(options.assets, tables, joined, word_labels)
    fitted = ensemble_fitting.fit(scores, COMBINE, CALIBRATION)
    folds = _folds(tables, arguments.keep_folds)
    config = ensemble_fitting.build_config(fitted, metadata, voice=None, folds=folds)
    config = replace(config, models=config.models_to_run)
    sections = card_tables(fitted.members, metadata, causes)
    data = options.load_data(recipes)
    folder = arguments.out / arguments.name
    with writing.replacing(folder) as temporary:
        written = writing.write_folds(config, options.assets, temporary)
        statistics = writing.write_statistics(temporary, written, options, data)
        facts = CardFacts(
            name=arguments.name,
            config=config,
            recipes=[Recipe.from_dict(each.metadata["recipe"]) for each in written],
            n_folds=options.n_folds,
            n_speakers=joined["speaker"].nunique() if "speaker" in joined else None,
            share_correct=float(joined["score"].to_numpy().mean()),
            source=arguments.source,
            licence=arguments.licence,
            scorer_licence=arguments.scorer_licence,
            date=arguments.date or datetime.date.today().isoformat(),
            command=card.command_line(),
            versions=written[0].metadata["versions"],
            statistics=statistics,
            n_bytes=n_bytes(temporary),
        )
        (temporary / CARD).write_text(card.write(facts, sections), encoding="utf-8")
    _print_size(folder)


def _folds(
    tables: Sequence[ReadingOutOfFold], kept: Sequence[int] | None
) -> dict[str, tuple[int, ...]] | None:
    """Return the folds of each model that the scorer consists of; None: all."""
    return None if kept is None else {table.model: tuple(sorted(set(kept))) for table in tables}


def card_tables(
    members: Members, metadata: pd.DataFrame, causes: pd.Series | None
) -> dict[str, pd.DataFrame]:
    """Return the card's tables by title."""
    joined = members.rows
    predictions = accuracy.cross_fit(joined, members.names, COMBINE, CALIBRATION)
    sections = {card.BY_GRADE: accuracy.by_grade(joined, predictions)}
    if causes is not None:
        by_filename = dict(zip(metadata["filename"], causes, strict=True))
        why = joined["filename"].map(by_filename).to_numpy(dtype=str)
        sections[card.BY_CAUSE] = accuracy.by_cause(joined, predictions, why)
    sections[card.AT_THRESHOLD] = accuracy.errors_at_threshold(joined, predictions)
    return sections


def _print_size(folder: Path) -> None:
    """Print the scorer's size; of one of this package, also that of all of them."""
    print(f"\nwrote {folder}: {show_megabytes(n_bytes(folder))}")
    if folder.parent.resolve() != PRETRAINED.resolve():
        return
    everything = sum(map(n_bytes, find_scorers(folder.parent)))
    print(f"all scorers of this package: {show_megabytes(everything)}")
    if everything > MAX_SHIPPED_BYTES:
        print(
            f"that is more than the {show_megabytes(MAX_SHIPPED_BYTES)} of a package's scorers: "
            "ship fewer folds with --keep_folds"
        )
