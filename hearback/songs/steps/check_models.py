"""Step 3: show the out-of-fold scores of the trained models, and the folds to train again.

The exit status is 1 if a fold stands out, else 0. --retrain trains those folds again with the
commands shown, and then shows the tables again. The tables include the ensembles of the two
published systems if their models are trained. Ends with a page of the same models, without sound.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from hearback.engine import cli
from hearback.engine.data import corrections
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import check_models, fold_tables
from hearback.engine.evaluation.outliers import Outlier
from hearback.engine.page import flags as page_flags
from hearback.engine.project import PACKAGE
from hearback.songs import REPORT_COMMAND, SUBFOLDER, evaluation, pictures
from hearback.songs.evaluation import ModelName
from hearback.songs.options import SongOptions
from hearback.songs.trained import TrainedModels, read_trained

if TYPE_CHECKING:
    from hearback.engine.page.writing import PageOptions


def main() -> int:
    """Print the tables; return 1 if a fold stands out, else 0."""
    parser = cli.parser(__doc__)
    check_models.add_flags(parser, SUBFOLDER)
    corrections.add_flag(parser)
    parser.add_argument(
        "--picture", type=Path, help="draw the confusion matrices into this file (.png, .svg, …)"
    )
    page_flags.add_page_flags(
        parser, "page to write, without sound (default: check_models.html in the assets)"
    )
    flags = parser.parse_args()
    default = flags.assets / "check_models.html"
    page = page_flags.choose_page(flags.page, default, is_off=flags.no_page)

    def read() -> TrainedModels:
        return read_trained(flags.data, flags.assets, flags.models, corrections=flags.corrections)

    first = read()
    first.corrected.announce()
    status, trained = check_models.check(
        flags, first, read, lambda found: show(found, flags.assets, flags.picture), read_command
    )
    names = ("data", "assets", "models", "corrections")  # flags of the step report, too
    again = page_flags.repeated(REPORT_COMMAND, parser, flags, names)
    page_flags.end_check_models(
        page, lambda options: _write_page(options, trained, flags.data), again
    )
    return status


def _write_page(options: "PageOptions", trained: TrainedModels, data: Path) -> None:
    # Here: --help and the tables need none of it.
    from hearback.songs.report.write import write_out_of_fold  # noqa: PLC0415

    write_out_of_fold(options, trained, data)


def show(trained: TrainedModels, assets: Path, picture: Path | None = None) -> list[Outlier]:
    """Print the tables of models in `assets`; return the folds that stand out."""
    snippets, tables = trained.snippets, trained.tables
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


def show_trained(options: SongOptions, models: list[str]) -> None:
    """Print the tables of `models`, after a training with `options`."""
    trained = read_trained(options.data, options.assets, models, corrections=options.corrections)
    trained.corrected.announce()
    show(trained, options.assets)


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
