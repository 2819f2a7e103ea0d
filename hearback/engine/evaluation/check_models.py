"""The step check_models, for every competition: flags, outlier folds, and their retraining."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import pandas as pd

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import fold_tables
from hearback.engine.evaluation.oof import OutOfFold
from hearback.engine.evaluation.outliers import Outlier, find_outliers
from hearback.engine.launch.processes import with_project_path

# Maps a model and its split retrain command to Python's arguments and the parsed flags.
# Raises HearbackError if the command is not a training of this model by this project.
ReadCommand = Callable[[str, Sequence[str]], tuple[list[str], argparse.Namespace]]


Trained = TypeVar("Trained")  # what a competition reads of its trained models


def add_flags(parser: argparse.ArgumentParser, subfolder: str = "") -> None:
    """Add the flags of check_models; data and assets are in `subfolder` by default."""
    add_folder_flags(parser, subfolder)
    parser.add_argument("--retrain", action="store_true", help="retrain the folds that stand out")


def add_folder_flags(parser: argparse.ArgumentParser, subfolder: str = "") -> None:
    """Add the flags that select trained models: --data, --assets and --models."""
    folders = {"data": "folder of the tables", "assets": "folder of the trained folds"}
    cli.add_folders(parser, folders, subfolder)
    parser.add_argument(
        "--models", nargs="+", help="only these models (default: all trained models)"
    )


def check(
    flags: argparse.Namespace,
    trained: Trained,
    read: Callable[[], Trained],
    show: Callable[[Trained], list[Outlier]],
    read_command: ReadCommand,
) -> tuple[int, Trained]:
    """Run the step: print the tables, with `--retrain` retrain outliers and print them again.

    `show` prints the tables of `trained`, or of what `read` returns after the retraining; it
    returns the folds that stand out. Returns 1 if a fold stands out at the end, else 0; and the
    models that were shown last.
    """
    outliers = show(trained)
    if flags.retrain and outliers:
        corrections = getattr(flags, "corrections", None)  # not every competition has them
        retrain(outliers, flags.data, flags.assets, read_command, corrections)
        trained = read()
        outliers = show(trained)
    return (1 if outliers else 0), trained


def print_sections(
    sections: Mapping[str, pd.DataFrame], assets: Path, tables: Sequence[OutOfFold]
) -> None:
    """Print tables by title, then the training attempts if a fold needed several."""
    attempts = fold_tables.attempts(assets, tables)
    several = {"Attempts of folds that needed several": attempts} if len(attempts) else {}
    fold_tables.print_tables({**sections, **several})


def print_outliers(tables: Sequence[OutOfFold]) -> list[Outlier]:
    """Print the missing folds and those that stand out; return the latter."""
    print()
    for table in tables:
        if table.missing_folds:
            print(
                f"{table.model}: folds {table.missing_folds} are not trained; {table.TRAIN_COMMAND}"
            )
    outliers = find_outliers(tables)
    for outlier in outliers:
        print(f"{outlier.model} fold {outlier.fold} stands out: {outlier.reason}. Retrain with:")
        print(f"  {outlier.command}")
    if not outliers:
        print("No fold stands out.")
    return outliers


def retrain(
    outliers: Sequence[Outlier],
    data: Path,
    assets: Path,
    read_command: ReadCommand,
    corrections: Path | None = None,
) -> None:
    """Retrain folds with the commands in their metadata, and print failures.

    Raises HearbackError, before anything is run, if `retrain_arguments` rejects a command.
    """
    commands = [
        retrain_arguments(outlier, data, assets, read_command, corrections) for outlier in outliers
    ]
    for outlier, command in zip(outliers, commands, strict=True):
        print(f"\n{outlier.model} fold {outlier.fold}: {outlier.command}", flush=True)
        if status := run(command):
            print(f"FAILED: {outlier.model} fold {outlier.fold}, status {status}")


def retrain_arguments(
    outlier: Outlier,
    data: Path,
    assets: Path,
    read_command: ReadCommand,
    corrections: Path | None = None,
) -> list[str]:
    """Return the command line that retrains an outlier, beginning with this Python.

    Metadata may have been downloaded, so its command is not trusted: it must train this fold with a
    script of this project, known flags and these folders and corrections. Raises HearbackError
    otherwise.
    """
    try:
        arguments, flags = read_command(outlier.model, shlex.split(outlier.command))
        if flags.fold != outlier.fold:
            raise HearbackError(f"it trains fold {flags.fold}")
        for name, expected in (("data", data), ("assets", assets), ("corrections", corrections)):
            if _resolved(getattr(flags, name, None)) != _resolved(expected):
                wrong = f"is not {expected}" if expected is not None else "is not given here"
                raise HearbackError(f"its --{name}, relative to this folder, {wrong}")
    except (HearbackError, ValueError) as error:  # ValueError: unbalanced quotation marks
        raise HearbackError(
            f"{assets / outlier.model}_{outlier.fold}.json: --retrain does not run its command "
            f"({error}): {outlier.command}"
        ) from None
    return [sys.executable, *arguments]


def _resolved(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()


class _FlagParser(cli.Parser):
    """A parser that raises HearbackError instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise HearbackError(message)


def read_training_flags(
    flags: Sequence[str], add_options: Callable[[argparse.ArgumentParser], None]
) -> argparse.Namespace:
    """Parse a training's flags: --fold, --attempt and those that `add_options` adds.

    Raises HearbackError for any other flag.
    """
    parser = _FlagParser(add_help=False)
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    add_options(parser)
    return parser.parse_args(flags)


def run(command: Sequence[str]) -> int:
    """Run a training in the current folder and return its status."""
    environment = with_project_path(os.environ)
    return subprocess.run(command, env=environment, check=False).returncode
