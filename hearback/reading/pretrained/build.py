"""Build a scorer that can be shipped: train small folds, fit the ensemble, write its folder.

    python -m hearback.reading.pretrained build --name mine --data data --source "our recordings"

Trains modeltoklow and modelseg, whose folds are small differences from frozen backbones, for all
folds and seeds; finished folds are skipped, and an interrupted training resumes. Then it fits the
ensemble and its calibration, and writes the configuration, the folds, statistics of the recordings
and a model card to OUT/NAME. The backbones themselves are not in it: who loads the scorer gets them
by their names.
"""

import argparse
import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from hearback.engine import cli
from hearback.engine.errors import HearbackError, did_you_mean
from hearback.engine.launch import command
from hearback.engine.launch.command import Competition
from hearback.engine.project import SHIPPED
from hearback.engine.whisper.wheels import PUBLISHED
from hearback.reading import ensemble_fitting, evaluation
from hearback.reading.ensemble_fitting import Members, OutOfFoldScores
from hearback.reading.evaluation import ReadingOutOfFold
from hearback.reading.options import TrainingOptions
from hearback.reading.pretrained import accuracy, card, writing
from hearback.reading.pretrained.card import CardFacts
from hearback.reading.pretrained.folders import (
    CARD,
    CONFIG,
    MAX_SHIPPED_BYTES,
    PRETRAINED,
    find_scorers,
    is_built,
    n_bytes,
    show_megabytes,
)
from hearback.reading.recipe import Recipe, find_recipes
from hearback.reading.steps import check_models
from hearback.reading.word_label_table import load_word_labels

COMBINE, CALIBRATION = "logits", "platt_by_group"
DEFAULT_BACKBONE = "openai/whisper-tiny.en"


def main() -> int:
    """Train, and write the scorer; return 1 if a fold is not trained."""
    recipes = find_small_recipes()
    competition = _competition(recipes)
    arguments = command.read_arguments(competition)
    options = TrainingOptions.gather(arguments)
    check(arguments, options)
    status = command.main(competition)
    if status:
        print(f"{arguments.out / arguments.name}: not written, because folds are missing")
        return status
    build(arguments, options, models_of(recipes, arguments, options))
    return 0


def find_small_recipes() -> dict[str, Recipe]:
    """Return the recipes whose folds are small differences from frozen backbones, by name."""
    return {
        name: each
        for name, each in find_recipes().items()
        if each.adapter_rank > 0 or each.pair == "segments"
    }


def _competition(recipes: Mapping[str, Recipe]) -> Competition:
    """Return the training command's parts."""
    return Competition(
        description=__doc__,
        recipes=recipes,
        options=TrainingOptions,
        program=lambda model: (str(SHIPPED / f"train_{model}.py"),),
        show=check_models.show_trained,
        folders=("data", "corrections"),
        declare=_declare,
    )


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(backbone=DEFAULT_BACKBONE)
    add = parser.add_argument_group("the scorer").add_argument
    add("--name", required=True, help="name of the scorer, and of its folder")
    add("--out", type=Path, default=PRETRAINED, help="folder that gets the scorer's folder")
    add(
        "--keep_folds",
        nargs="+",
        type=cli.int_of_at_least(0),
        help="folds that the scorer consists of (default: all that are trained)",
    )
    add("--causes", type=Path, help="CSV with the columns filename and why: scores by cause")
    add(
        "--source",
        default="",
        help=f"for the card: what the recordings are, or {', '.join(card.SOURCES)}",
    )
    add("--licence", default="", help="for the card: the licence of the recordings")
    add(
        "--date",
        type=cli.argument_type(lambda text: datetime.date.fromisoformat(text).isoformat()),
        default=None,
        help="for the card: YYYY-MM-DD (default: today)",
    )


def check(arguments: argparse.Namespace, options: TrainingOptions) -> None:
    """Raise HearbackError for flags that contradict each other, before anything is trained.

    Also for a folder that the scorer would replace, and that is no scorer.
    """
    if not re.fullmatch(r"\w[\w.-]*", arguments.name):
        raise HearbackError(
            f"--name {arguments.name}: it names a folder; use letters, digits, dots and dashes"
        )
    folder = arguments.out / arguments.name
    if folder.exists() and not is_built(folder):
        raise HearbackError(
            f"{folder}: is there, and is no scorer, with its {CONFIG} and {CARD}; choose another "
            "--name or --out"
        )
    owner, _, last = (options.backbone or DEFAULT_BACKBONE).partition("/")
    if not re.fullmatch(r"[\w.-]+", last) or not re.fullmatch(r"\w[\w-]*", owner):
        known = [each.hub_id for each in PUBLISHED.values() if "whisper" in each.hub_id]
        raise HearbackError(
            f"--backbone {options.backbone}: give its hub id, such as {known[0]}: who loads the "
            f"scorer gets the backbone by it. A directory of the last part's name in "
            f"{options.assets} is used without the hub"
            f"{did_you_mean([str(options.backbone)], known)}"
        )
    trained = arguments.folds or range(options.n_folds)
    if absent := set(arguments.keep_folds or ()) - set(trained):
        listed = " ".join(map(str, sorted(absent)))
        raise HearbackError(
            f"--keep_folds {listed}: not trained; the folds are {' '.join(map(str, trained))}"
        )


def models_of(
    recipes: Mapping[str, Recipe], arguments: argparse.Namespace, options: TrainingOptions
) -> list[Recipe]:
    """Return the adapted recipes of all models and seeds of the command line."""
    return [
        replace(options, seed=seed).adapt(recipes[name])
        for seed in arguments.seeds or [options.seed]
        for name in arguments.models or recipes
    ]


def build(
    arguments: argparse.Namespace, options: TrainingOptions, recipes: Sequence[Recipe]
) -> None:
    """Fit the ensemble of trained recipes, and write the scorer's folder."""
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
    """Print the scorer's size and that of all in its folder."""
    everything = sum(map(n_bytes, find_scorers(folder.parent)))
    print(f"\nwrote {folder}: {show_megabytes(n_bytes(folder))}")
    print(f"all scorers in {folder.parent}: {show_megabytes(everything)}")
    if folder.parent == PRETRAINED and everything > MAX_SHIPPED_BYTES:
        print(
            f"that is more than the {show_megabytes(MAX_SHIPPED_BYTES)} of a package's scorers: "
            "ship fewer folds with --keep_folds"
        )


if __name__ == "__main__":
    cli.run(main)
