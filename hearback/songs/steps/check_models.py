"""Step 3: show the out-of-fold scores of the trained models, and the folds to train again.

The exit status is 1 if a fold stands out, else 0. --retrain trains those folds again with the
commands shown, and then shows the tables again. The tables include the ensembles of the two
published systems if their models are trained. Ends with a page of the same models, without sound.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hearback.engine import cli
from hearback.engine.data import corrections
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import check_models, fold_tables
from hearback.engine.evaluation.oof import read_tables
from hearback.engine.evaluation.outliers import Outlier
from hearback.engine.page import flags as page_flags
from hearback.engine.project import PACKAGE
from hearback.songs import SUBFOLDER, evaluation, pictures
from hearback.songs.evaluation import ClassOutOfFold, ModelName
from hearback.songs.options import SongOptions
from hearback.songs.tables import read_corrected_snippets


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

    def show_all() -> list[Outlier]:
        return show(
            flags.data,
            flags.assets,
            flags.models,
            flags.picture,
            corrections_path=flags.corrections,
        )

    status = check_models.check(flags, show_all, read_command)
    if page is not None:
        _write_page(page, flags)
    return status


def _write_page(page: Path, flags: argparse.Namespace) -> None:
    """Write the page of the same models, without the ensemble, which is not fitted yet."""
    # Here: --help and the tables need none of it.
    from hearback.engine.page.writing import PageOptions  # noqa: PLC0415
    from hearback.songs.report.write import OutOfFoldSources, write_out_of_fold  # noqa: PLC0415

    sources = OutOfFoldSources(
        data=flags.data, assets=flags.assets, models=flags.models, corrections=flags.corrections
    )
    print()
    write_out_of_fold(PageOptions(page, audio=page_flags.NO), sources)
    print("python -m hearback.songs report writes it with the ensemble and with sound")


def show(
    data: Path,
    assets: Path,
    models: list[str] | None = None,
    picture: Path | None = None,
    *,
    corrections_path: Path | None = None,
) -> list[Outlier]:
    """Print the tables; return the folds that stand out."""
    snippets, corrected = read_corrected_snippets(data, corrections_path)
    if corrections_path is not None:
        print(corrected)
    tables = read_tables(ClassOutOfFold, assets, models, corrected)
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
    show(options.data, options.assets, models, corrections_path=options.corrections)


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
