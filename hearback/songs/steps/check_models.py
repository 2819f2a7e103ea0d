"""Step 3: show the out-of-fold scores of the trained models, and the folds to train again.

The exit status is 1 if a fold stands out, else 0. --retrain trains those folds again with the
commands shown, and then shows the tables again. The tables include the ensembles of the two
published systems if their models are trained.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hearback.engine import cli
from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import check_models, fold_tables
from hearback.engine.evaluation.oof import read_tables
from hearback.engine.evaluation.outliers import Outlier
from hearback.engine.project import PACKAGE
from hearback.songs import SUBFOLDER, evaluation, pictures
from hearback.songs.evaluation import ClassOutOfFold, ModelName
from hearback.songs.options import SongOptions
from hearback.songs.tables import read_snippets


def main() -> int:
    """Print the tables; return 1 if a fold stands out, else 0."""
    parser = cli.parser(__doc__)
    check_models.add_flags(parser, SUBFOLDER)
    parser.add_argument(
        "--picture", type=Path, help="draw the confusion matrices into this file (.png, .svg, …)"
    )
    flags = parser.parse_args()

    def show_all() -> list[Outlier]:
        return show(flags.data, flags.assets, flags.models, flags.picture)

    return check_models.check(flags, show_all, read_command)


def show(
    data: Path, assets: Path, models: list[str] | None = None, picture: Path | None = None
) -> list[Outlier]:
    """Print the tables; return the folds that stand out."""
    report = Report()
    snippets = read_snippets(data, report)
    report.raise_if_errors()
    tables = read_tables(ClassOutOfFold, assets, models)
    ensembles = evaluation.published_ensembles(tables, snippets)
    all_tables = [*tables, *(ensemble.table for ensemble in ensembles)]
    n_groups = snippets["group"].nunique()

    sections: dict[str, pd.DataFrame] = {
        f"Out of fold ([2.5, 97.5 %] of a bootstrap over {n_groups} singers and musics)": (
            evaluation.summary([evaluation.majority(snippets), *all_tables], snippets)
        ),
        "Accuracy per fold": evaluation.accuracy_by_fold(all_tables),
        "Log loss per fold": fold_tables.log_loss_by_fold(all_tables),
        "Recall per class": evaluation.recall_table(all_tables),
        "Recall of several singers, by whether one of them is in training": (
            evaluation.by_known_singers(all_tables, snippets)
        ),
    }
    differences = evaluation.differences(tables, ensembles, snippets)
    if len(differences):
        sections["Differences (paired over singers)"] = differences
    for table in all_tables:
        sections[f"Confusion matrix of {table.model}"] = evaluation.confusion_table(table)
    check_models.print_sections(sections, assets, tables)
    if picture is not None:
        matrices = {table.model: table.confusion() for table in all_tables}
        pictures.draw_confusions(matrices, picture)
        print(f"\nwrote {picture}")
    return check_models.print_outliers(tables)


def read_command(model: str, words: Sequence[str]) -> tuple[list[str], argparse.Namespace]:
    """Parse a command that trains `model`; see `check_models.ReadCommand`."""
    name = ModelName.parse(model)
    module = f"hearback.songs.recipes.{name.recipe}"
    match words:
        case ["python", "-m", first, *flags] if first == module and _is_recipe(name.recipe):
            parsed = check_models.read_training_flags(flags, SongOptions.declare)
        case _:
            raise HearbackError(f"not python -m {module}")
    trained = ModelName(name.recipe, parsed.separate, parsed.seed or 1)
    if trained != name:
        raise HearbackError(f"it trains {trained}")
    return ["-m", module, *flags], parsed


def _is_recipe(name: str) -> bool:
    return (PACKAGE / "songs" / "recipes" / f"{name}.py").is_file()


if __name__ == "__main__":
    cli.run(main)
