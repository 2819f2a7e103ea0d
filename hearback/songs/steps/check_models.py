"""Show how good the trained models are out of fold, and the folds to train again.

Ends with status 1 where a fold stands out, with 0 where none does. `--retrain` trains those again,
with the commands that are shown, and then shows how it is now. Beside the models there are the
ensembles as the two course solutions had them, of the models that are trained.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hearback.engine import cli
from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import oof, outliers
from hearback.engine.evaluation.outliers import Outlier
from hearback.engine.launch.processes import ROOT
from hearback.songs import SUBFOLDER, evaluation, options, pictures
from hearback.songs.evaluation import ClassOutOfFold, ModelName
from hearback.songs.tables import read_snippets


def main() -> int:
    """Print the tables; return 1 where a fold stands out."""
    parser = cli.parser(__doc__)
    outliers.declare(parser, SUBFOLDER)
    parser.add_argument(
        "--picture", type=Path, help="draw the confusion matrices into this file (.png, .svg, …)"
    )
    asked = parser.parse_args()

    def show_all() -> list[Outlier]:
        return show(asked.data, asked.assets, asked.models, asked.picture)

    return outliers.check(asked, show_all, read_command)


def show(
    data: Path, assets: Path, models: list[str] | None = None, picture: Path | None = None
) -> list[Outlier]:
    """Print how good the models are and what they mistake; name and return what stands out."""
    report = Report()
    snippets = read_snippets(data, report)
    report.raise_if_errors()
    tables = oof.read_tables(ClassOutOfFold, assets, models)
    ensembles = evaluation.as_published(tables, snippets)
    everyone = [*tables, *(ensemble.table for ensemble in ensembles)]
    n_groups = snippets["group"].nunique()

    sections: dict[str, pd.DataFrame] = {
        f"Out of fold ([2.5, 97.5 %] of a bootstrap over {n_groups} singers and musics)": (
            evaluation.summary([evaluation.majority(snippets), *everyone], snippets)
        ),
        "Accuracy per fold": evaluation.accuracy_by_fold(everyone),
        "Log loss per fold": oof.by_fold(everyone),
        "Accuracy per class": evaluation.accuracy_by_class(everyone),
        "Accuracy on several singers, by whether its training knows one of them": (
            evaluation.by_known_singers(everyone, snippets)
        ),
    }
    differences = evaluation.differences(tables, ensembles, snippets)
    if len(differences):
        sections["Differences (paired: of both models on the same singers)"] = differences
    for table in everyone:
        sections[f"Confusion matrix of {table.model}"] = evaluation.confusion_table(table)
    attempts = oof.attempts(assets, tables)
    if len(attempts):
        sections["Attempts at folds that needed more than one"] = attempts
    for title, frame in sections.items():
        print(f"\n{title}\n{cli.as_text(frame)}")
    if picture is not None:
        pictures.draw_confusions({table.model: table.confusion() for table in everyone}, picture)
        print(f"\nwrote {picture}")
    print()
    return outliers.show_outliers(tables)


def read_command(model: str, words: Sequence[str]) -> tuple[list[str], argparse.Namespace]:
    """Read a command that trains `model`, as `outliers.ReadCommand` says."""
    name = ModelName.of(model)
    module = f"hearback.songs.recipes.{name.recipe}"
    match words:
        case ["python", "-m", first, *flags] if first == module and _is_ours(name.recipe):
            asked = outliers.read_flags(flags, options.add_options)
        case _:
            raise HearbackError(f"not python -m {module}")
    asked_for = ModelName(name.recipe, asked.separate, asked.seed or 1)
    if asked_for != name:
        raise HearbackError(f"it trains {asked_for}")
    return ["-m", module, *flags], asked


def _is_ours(recipe: str) -> bool:
    return (ROOT / "hearback" / "songs" / "recipes" / f"{recipe}.py").is_file()


if __name__ == "__main__":
    cli.run(main)
