"""Build a scorer that can be shipped: train small folds, fit the ensemble, write its folder.

    python -m hearback.reading.pretrained build --name mine --data data --source "our recordings"

Puts the backbones into the assets: from the cache folder, else downloaded. Trains modeltoklow and
modelseg, whose folds are small differences from frozen backbones, for all folds and seeds; finished
folds are skipped, and an interrupted training resumes. Then it fits the ensemble and its
calibration, and writes the configuration, the folds, statistics of the recordings and a model card
to OUT/NAME. The backbones themselves are not in it: who loads the scorer gets them by their names.
"""

import argparse
import datetime
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hearback.engine import cli
from hearback.engine.errors import HearbackError, did_you_mean
from hearback.engine.launch import command
from hearback.engine.launch.command import Competition
from hearback.engine.project import SHIPPED
from hearback.engine.whisper.wheels import PUBLISHED
from hearback.reading.options import TrainingOptions
from hearback.reading.pretrained.folders import CARD, CONFIG, is_built
from hearback.reading.pretrained.sources import SCORER_LICENCE, SOURCES
from hearback.reading.recipe import Recipe, find_recipes
from hearback.reading.steps import check_models

DEFAULT_BACKBONE = "openai/whisper-tiny.en"


def main() -> int:
    """Train, and write the scorer; return 1 if a fold is not trained."""
    recipes = find_small_recipes()
    competition = _competition(recipes)
    arguments = command.read_arguments(competition)
    options = TrainingOptions.gather(arguments)
    check(arguments, options)
    models = models_of(recipes, arguments, options)
    # Not for --help: they import torch.
    from hearback.reading.models.provide import provide_directories  # noqa: PLC0415
    from hearback.reading.pretrained.assembling import assemble  # noqa: PLC0415

    names = {name for each in models for name, _ in options.pretrained_models(each)}
    provide_directories(sorted(names), options.assets)
    status = command.main(competition)
    if status:
        print(f"{arguments.out / arguments.name}: not written, because folds are missing")
        return status
    assemble(arguments, options, models)
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
    parser.conflict_handler = "resolve"  # --backbone replaces that of training
    add = parser.add_argument_group("the scorer").add_argument
    add("--name", required=True, help="name of the scorer, and of its folder")
    add("--out", type=Path, default=Path(), help="folder that gets the scorer's folder")
    add(
        "--backbone",
        default=DEFAULT_BACKBONE,
        help="Whisper that it hears with: its hub id, by which who loads the scorer gets it",
    )
    add(
        "--keep_folds",
        nargs="+",
        type=cli.int_of_at_least(0),
        help="folds that the scorer consists of (default: all that are trained)",
    )
    add("--causes", type=Path, help="CSV with the columns filename and why: scores by cause")
    add(
        "--source",
        help=f"for the card: what the recordings are, or {', '.join(SOURCES)} (default: that the "
        "builder did not describe them)",
    )
    add(
        "--licence",
        help="for the card: the licence of the recordings (default: that of --source, where known)",
    )
    add(
        "--scorer_licence",
        default=SCORER_LICENCE,
        help="for the card: the licence under which you give the scorer itself, its trained "
        "weights, to others",
    )
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


if __name__ == "__main__":
    cli.run(main)
