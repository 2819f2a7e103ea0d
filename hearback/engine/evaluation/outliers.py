"""The folds that a person should look at, and the commands that train them again."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.oof import OutOfFold
from hearback.engine.launch.processes import with_our_modules
from hearback.engine.training.stall_detector import Curve, StallDetector

# Of a model and the words of a command: the arguments for Python, and what its flags ask for.
# Raises HearbackError where that is no training of this model by this project.
ReadCommand = Callable[[str, Sequence[str]], tuple[list[str], argparse.Namespace]]


@dataclass(frozen=True)
class Outlier:
    """A fold that stands out, why, and the command that trains it again, as its metadata has it."""

    model: str
    fold: int
    reason: str
    command: str


def declare(parser: argparse.ArgumentParser, subfolder: str = "") -> None:
    """Declare the flags of every check_models, the folders as `fold_options.declare_common`."""
    add = parser.add_argument
    declare_trained(parser, subfolder)
    add("--retrain", action="store_true", help="train the folds that stand out again")


def declare_trained(parser: argparse.ArgumentParser, subfolder: str = "") -> None:
    """Declare the flags that say of which trained models a step is."""
    add = parser.add_argument
    add("--data", type=Path, default=Path("data", subfolder), help="folder of the tables")
    add("--assets", type=Path, default=Path("assets", subfolder), help="folder of the folds")
    add("--models", nargs="+", help="only these (default: all that are trained)")


def check(asked: argparse.Namespace, show: Callable[[], list[Outlier]], read: ReadCommand) -> int:
    """Show how the models are, with `--retrain` train what stands out, and show them again.

    Returns 1 where a fold stands out at the end, else 0.
    """
    found = show()
    if asked.retrain and found:
        retrain(found, asked.data, asked.assets, read)
        found = show()
    return 1 if found else 0


def find_outliers(tables: Sequence[OutOfFold]) -> list[Outlier]:
    """Return the folds that stand out among those of their model."""
    return [
        Outlier(table.model, fold, reason, table.metadata_by_fold[fold]["retrain_command"])
        for table in tables
        for fold, reason in folds_that_stand_out(table).items()
    ]


def show_outliers(tables: Sequence[OutOfFold]) -> list[Outlier]:
    """Print the folds that are not trained and those that stand out; return the latter."""
    for table in tables:
        if table.missing_folds:
            print(f"{table.model}: folds {table.missing_folds} are not trained; {table.TRAIN}")
    outliers = find_outliers(tables)
    for outlier in outliers:
        print(f"{outlier.model} fold {outlier.fold} stands out: {outlier.reason}. Train it again:")
        print(f"  {outlier.command}")
    if not outliers:
        print("No fold stands out.")
    return outliers


def retrain(outliers: Sequence[Outlier], data: Path, assets: Path, read: ReadCommand) -> None:
    """Train folds again with the commands of their metadata, and name those where that fails.

    Raises HearbackError, before any is run, where `command_for` does.
    """
    # All are checked before the first one runs for hours.
    commands = [command_for(outlier, data, assets, read) for outlier in outliers]
    for outlier, command in zip(outliers, commands, strict=True):
        print(f"\n{outlier.model} fold {outlier.fold}: {outlier.command}", flush=True)
        if status := run(command):
            print(f"FAILED: {outlier.model} fold {outlier.fold}, status {status}")


def command_for(outlier: Outlier, data: Path, assets: Path, read: ReadCommand) -> list[str]:
    """Return the arguments that train an outlier again.

    A metadata may have been downloaded, so its command is not trusted: it has to be one of this
    project's trainings, of this very fold, with flags that are known, of these data, into these
    assets. Raises HearbackError for any other.
    """
    try:
        arguments, asked = read(outlier.model, shlex.split(outlier.command))
        if asked.fold != outlier.fold:
            raise HearbackError(f"it is of fold {asked.fold}")
        for name, shown in (("data", data), ("assets", assets)):
            if getattr(asked, name).resolve() != shown.resolve():
                raise HearbackError(f"from here, its --{name} is not {shown}")
    except (HearbackError, ValueError) as error:  # ValueError: a quotation without an end
        raise HearbackError(
            f"{assets / outlier.model}_{outlier.fold}.json: --retrain does not run its command "
            f"({error}): {outlier.command}"
        ) from None
    return [sys.executable, *arguments]


class _Flags(cli.Parser):
    """Raises HearbackError where a parser of a command line would end the program."""

    def error(self, message: str) -> NoReturn:
        raise HearbackError(message)


def read_flags(
    flags: Sequence[str], add_options: Callable[[argparse.ArgumentParser], None]
) -> argparse.Namespace:
    """Read a training's flags: its fold and attempt, and what `add_options` declares.

    Raises HearbackError for flags that it has not.
    """
    parser = _Flags(add_help=False)
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    add_options(parser)
    return parser.parse_args(flags)


def run(command: list[str]) -> int:
    """Run a training, from the folder that we are in, and return its status."""
    environment = with_our_modules(os.environ)
    return subprocess.run(command, env=environment, check=False).returncode


OUTLIER_DEVIATIONS = 3.0  # robust standard deviations of the sibling folds' gains
OUTLIER_SHARE = 0.1  # of the siblings' gain over the base rate
_MAD_TO_DEVIATION = 1.4826  # for a normal distribution


def folds_that_stand_out(table: OutOfFold) -> dict[int, str]:
    """Return the folds that a person should look at, with the reasons in words."""
    learned_less, stalled = folds_that_learned_less(table), folds_that_stalled(table)
    return {
        fold: "; ".join(found[fold] for found in (learned_less, stalled) if fold in found)
        for fold in sorted({*learned_less, *stalled})
    }


def folds_that_stalled(table: OutOfFold) -> dict[int, str]:
    """Return the folds that training's guard would stop against their siblings, and why.

    The first folds of a model are trained without any to compare with, and so are folds that are
    trained side by side; seen from the end, each has siblings.
    """
    curves = {
        fold: Curve.of(fold_metadata["epochs"])
        for fold, fold_metadata in table.metadata_by_fold.items()
    }
    reasons = {}
    for fold in table.metadata_by_fold:
        others = [x for other, x in curves.items() if other != fold and x is not None]
        if others and (
            reason := StallDetector(others).replay(table.metadata_by_fold[fold]["epochs"])
        ):
            reasons[fold] = reason
    return reasons


def folds_that_learned_less(table: OutOfFold) -> dict[int, str]:
    """Return the folds that learned less than their siblings did, with the reason in words.

    What is compared is the gain over the base rate, so that the rule fits any level of loss: a fold
    stands out where its gain falls short of its siblings' median by more than three robust standard
    deviations of theirs (or standard errors of its own), and by more than a tenth of it. With
    siblings at 0.22 to 0.24 and a base rate of 0.69, that begins at 0.28.
    """
    row_gains = table.row_gains()
    gains = table.fold_gains()
    losses = table.fold_log_losses()
    reasons = {}
    for fold, gain in gains.items():
        siblings = gains.drop(fold)
        if len(siblings) < 2:
            continue
        median = siblings.median()
        deviation = _MAD_TO_DEVIATION * (siblings - median).abs().median()
        error = row_gains[table.rows["fold"] == fold].sem()  # few rows tell a fold's gain badly
        margin = max(OUTLIER_DEVIATIONS * max(deviation, error), OUTLIER_SHARE * abs(median))
        if median - gain > margin:
            reasons[int(fold)] = (
                f"log loss {losses[fold]:.4f} where its siblings' median is "
                f"{losses.drop(fold).median():.4f}: it gains {gain:.4f} on the base rate, they "
                f"{median:.4f}, and {margin:.4f} less would still be usual"
            )
    return reasons
