"""Show the out-of-fold log loss of the trained models, and the folds to train again.

Ends with status 1 where a fold stands out, with 0 where none does. `--retrain` trains those again,
with the commands that are shown, and then shows how it is now.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hearback.engine import cli
from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import oof, outliers
from hearback.engine.evaluation.outliers import Outlier
from hearback.engine.project import SHIPPED
from hearback.engine.training.recipe import name_with_seed, split_seed
from hearback.reading import evaluation, options
from hearback.reading.dataset import read_labelled

ABLATION = "hearback.reading.baselines.ablation"


def main() -> int:
    """Print the tables; return 1 where a fold stands out."""
    parser = cli.parser(__doc__)
    outliers.declare(parser)
    parser.add_argument("--causes", type=Path, help="CSV of filename and why: AUC of each cause")
    parser.add_argument(
        "--against", type=Path, help="folder of the same models, trained otherwise: what that gave"
    )
    asked = parser.parse_args()

    def show_all() -> list[Outlier]:
        return show(asked.data, asked.assets, asked.models, asked.causes, asked.against)

    return outliers.check(asked, show_all, read_command)


def show(
    data: Path,
    assets: Path,
    models: list[str] | None = None,
    causes: Path | None = None,
    others: Path | None = None,
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
        "Log loss per fold": oof.by_fold(tables),
        "Log loss per task": evaluation.by_column(tables, metadata, "task"),
        **evaluation.error_analysis(tables, metadata, why),
    }
    if others is not None:
        title = f"Log loss against that in {others} (paired; 2.5 to 97.5 % of a bootstrap)"
        namesakes = evaluation.read_out_of_fold(others)
        sections[title] = evaluation.against(tables, namesakes, metadata)
    attempts = oof.attempts(assets, tables)
    if len(attempts):
        sections["Attempts at folds that needed more than one"] = attempts
    for title, frame in sections.items():
        print(f"\n{title}\n{cli.as_text(frame)}")
    print()
    return outliers.show_outliers(tables)


def read_command(model: str, words: Sequence[str]) -> tuple[list[str], argparse.Namespace]:
    """Read a command that trains `model`, as `outliers.ReadCommand` says."""
    recipe, _ = split_seed(model)
    script = f"train_{recipe}.py"
    match words:
        case ["python", first, *flags] if first == script and _is_ours(script):
            program = [str(SHIPPED / script)]
        case ["python", "-m", module, "--variants", variant, *flags] if (
            module == ABLATION and recipe == f"model_ablation_{variant}"
        ):
            program = ["-m", ABLATION, "--variants", variant]
        case _:
            raise HearbackError(f"neither python {script} nor python -m {ABLATION} of this model")
    asked = outliers.read_flags(flags, options.add_options)
    trained = recipe if asked.seed is None else name_with_seed(recipe, asked.seed)
    if trained != model:
        raise HearbackError(f"it trains {trained}")
    return [*program, *flags], asked


def _is_ours(script: str) -> bool:
    return re.fullmatch(r"train_model\w+\.py", script) is not None and (SHIPPED / script).is_file()


if __name__ == "__main__":
    cli.run(main)
