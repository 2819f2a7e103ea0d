"""Show the out-of-fold log loss of the trained models, and the folds to train again.

Ends with status 1 where a fold stands out, with 0 where none does. `--retrain` trains those again,
with the commands that are shown, and then shows how it is now.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pandas as pd

from hearback import cli, evaluation, options
from hearback.dataset import read_labelled
from hearback.errors import HearbackError
from hearback.evaluation import OutOfFold
from hearback.tables import Report

HERE = Path(__file__).parent
LADDER = "benchmarks.ladder"


@dataclass(frozen=True)
class Outlier:
    """A fold that stands out, why, and the command that trains it again, as its story has it."""

    model: str
    fold: int
    reason: str
    command: str


def main() -> int:
    """Print the tables; return 1 where a fold stands out."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"), help="folder of the tables")
    add("--assets", type=Path, default=Path("assets"), help="folder of the folds")
    add("--models", nargs="+", help="only these (default: all that are trained)")
    add("--causes", type=Path, help="CSV of filename and why: AUC of each cause")
    add("--retrain", action="store_true", help="train the folds that stand out again")
    asked = parser.parse_args()
    outliers = show(asked.data, asked.assets, asked.models, asked.causes)
    if asked.retrain and outliers:
        # All are checked before the first one runs for hours.
        commands = [command_for(outlier, asked.data, asked.assets) for outlier in outliers]
        for outlier, command in zip(outliers, commands, strict=True):
            print(f"\n{outlier.model} fold {outlier.fold}: {outlier.command}", flush=True)
            if status := run(command):
                print(f"FAILED: {outlier.model} fold {outlier.fold}, status {status}")
        outliers = show(asked.data, asked.assets, asked.models, asked.causes)
    return 1 if outliers else 0


def show(
    data: Path, assets: Path, models: list[str] | None = None, causes: Path | None = None
) -> list[Outlier]:
    """Print how good the models are, where and for whom; name and return what stands out."""
    report = Report()
    metadata, labels = read_labelled(data, report)
    metadata = metadata.assign(score=labels)
    why = None if causes is None else evaluation.read_causes(causes, metadata, report)
    report.raise_if_errors()
    tables = evaluation.read_out_of_fold(assets, models)

    sections: dict[str, pd.DataFrame] = {
        "Out of fold": evaluation.summary(tables, metadata),
        "Log loss per fold": evaluation.by_fold(tables),
        "Log loss per task": evaluation.by_column(tables, metadata, "task"),
        **evaluation.error_analysis(tables, metadata, why),
    }
    attempts = evaluation.attempts(assets, tables)
    if len(attempts):
        sections["Attempts at folds that needed more than one"] = attempts
    for title, frame in sections.items():
        print(f"\n{title}\n{cli.as_text(frame)}")
    print()
    for table in tables:
        if table.missing_folds:
            print(f"{table.model}: folds {table.missing_folds} are not trained; python train.py")
    outliers = find_outliers(tables)
    for outlier in outliers:
        print(f"{outlier.model} fold {outlier.fold} stands out: {outlier.reason}. Train it again:")
        print(f"  {outlier.command}")
    if not outliers:
        print("No fold stands out.")
    return outliers


def find_outliers(tables: list[OutOfFold]) -> list[Outlier]:
    """Return the folds that stand out among those of their model."""
    return [
        Outlier(table.model, fold, reason, table.stories[fold]["command_again"])
        for table in tables
        for fold, reason in evaluation.folds_that_stand_out(table).items()
    ]


class _Flags(cli.Parser):
    """Raises HearbackError where a parser of a command line would end the program."""

    def error(self, message: str) -> NoReturn:
        raise HearbackError(message)


def command_for(outlier: Outlier, data: Path, assets: Path) -> list[str]:
    """Return the arguments that train an outlier again.

    A story may have been downloaded, so its command is not trusted: it has to be one of this
    project's trainings, of this very fold, with flags that are known, of these data, into these
    assets. Raises HearbackError for any other.
    """
    try:
        return _arguments_of(outlier, data, assets)
    except (HearbackError, ValueError) as error:  # ValueError: a quotation without an end
        raise HearbackError(
            f"{assets / outlier.model}_{outlier.fold}.json: --retrain does not run its command "
            f"({error}): {outlier.command}"
        ) from None


def _arguments_of(outlier: Outlier, data: Path, assets: Path) -> list[str]:
    script = f"train_{outlier.model}.py"
    match shlex.split(outlier.command):
        case ["python", first, *flags] if first == script and _is_ours(script):
            program = [str(HERE / script)]
        case ["python", "-m", module, "--rungs", rung, *flags] if (
            module == LADDER and outlier.model == f"model_ladder_{rung}"
        ):
            program = ["-m", LADDER, "--rungs", rung]
        case _:
            raise HearbackError(f"neither python {script} nor python -m {LADDER} of this model")
    parser = _Flags(add_help=False)
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    options.add_options(parser)
    asked = parser.parse_args(flags)
    if asked.fold != outlier.fold:
        raise HearbackError(f"it is of fold {asked.fold}")
    for name, shown in (("data", data), ("assets", assets)):
        if getattr(asked, name).resolve() != shown.resolve():
            raise HearbackError(f"from here, its --{name} is not {shown}")
    return [sys.executable, *program, *flags]


def _is_ours(script: str) -> bool:
    return re.fullmatch(r"train_model\w+\.py", script) is not None and (HERE / script).is_file()


def run(command: list[str]) -> int:
    """Run a training, from the folder that we are in, and return its status."""
    paths = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths}  # for `-m`, from any folder
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    cli.run(main)
