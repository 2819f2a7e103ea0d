"""Step 3: show the out-of-fold log loss of the trained models, and the folds to train again.

The exit status is 1 if a fold stands out, else 0. --retrain runs the training commands shown for
these folds, then shows the tables again.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hearback.engine import cli
from hearback.engine.data import corrections
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import check_models, fold_tables
from hearback.engine.evaluation.outliers import Outlier
from hearback.engine.page import flags as page_flags
from hearback.engine.project import SHIPPED
from hearback.engine.training.recipe import name_with_seed, split_seed
from hearback.reading import evaluation, step_command
from hearback.reading.options import TrainingOptions

PAGE = Path("check_models.html")  # report.html has the ensemble and sound: it is kept
ABLATION = "hearback.reading.baselines.ablation"


def main() -> int:
    """Print the tables; return 1 if a fold stands out, else 0."""
    parser = cli.parser(__doc__)
    check_models.add_flags(parser)
    corrections.add_flag(parser)
    parser.add_argument(
        "--causes", type=Path, help="CSV with the columns filename and why: print the AUC by cause"
    )
    parser.add_argument(
        "--compare_with",
        "--against",
        type=Path,
        help="folder with other trainings of the same models: print paired differences",
    )
    page_flags.add_page_flags(parser, f"page to write, without sound (default: {PAGE})")
    flags = parser.parse_args()
    page = page_flags.choose_page(flags.page, PAGE, is_off=flags.no_page)

    def show_all() -> list[Outlier]:
        return show(
            flags.data,
            flags.assets,
            flags.models,
            flags.causes,
            flags.compare_with,
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
    from hearback.reading.report.write import OutOfFoldSources, write_out_of_fold  # noqa: PLC0415

    sources = OutOfFoldSources(
        data=flags.data,
        assets=flags.assets,
        models=flags.models,
        causes=flags.causes,
        corrections=flags.corrections,
    )
    print()
    write_out_of_fold(PageOptions(page, audio=page_flags.NO), sources)
    print(f"{step_command('report')} writes it with the ensemble and with sound")


def show(
    data: Path,
    assets: Path,
    models: list[str] | None = None,
    causes_path: Path | None = None,
    other_assets: Path | None = None,
    *,
    corrections_path: Path | None = None,
) -> list[Outlier]:
    """Print the tables; return the folds that stand out."""
    metadata, causes, corrected = evaluation.read_corrected_metadata(
        data, causes_path, corrections_path
    )
    if corrections_path is not None:
        print(corrected)
    tables = evaluation.read_out_of_fold(assets, models, corrected)
    sections: dict[str, pd.DataFrame] = {
        "Out of fold": evaluation.summary(tables, metadata),
        "Log loss per fold": fold_tables.log_loss_by_fold(tables),
        "Log loss per task": evaluation.by_column(tables, metadata, "task"),
        **evaluation.error_analysis(tables, metadata, causes),
    }
    if other_assets is not None:
        title = f"Log loss compared with {other_assets} (paired; 2.5 to 97.5 % of a bootstrap)"
        others = evaluation.read_out_of_fold(other_assets)
        sections[title] = evaluation.compare_with(tables, others, metadata)
    check_models.print_sections(sections, assets, tables)
    return check_models.print_outliers(tables)


def show_trained(options: TrainingOptions, models: list[str]) -> None:
    """Print the tables of `models`, after a training with `options`."""
    show(options.data, options.assets, models, corrections_path=options.corrections)


def read_command(model: str, words: Sequence[str]) -> tuple[list[str], argparse.Namespace]:
    """Parse a command that trains `model`; see `check_models.ReadCommand`."""
    recipe, _ = split_seed(model)
    script = f"train_{recipe}.py"
    match words:
        case ["python", first, *flags] if first == script and _is_training_script(script):
            program = [str(SHIPPED / script)]
        case ["python", "-m", module, "--variants", variant, *flags] if (
            module == ABLATION and recipe == f"model_ablation_{variant}"
        ):
            program = ["-m", ABLATION, "--variants", variant]
        case _:
            raise HearbackError(f"neither python {script} nor python -m {ABLATION} for this model")
    parsed = check_models.read_training_flags(flags, TrainingOptions.declare)
    trained = recipe if parsed.seed is None else name_with_seed(recipe, parsed.seed)
    if trained != model:
        raise HearbackError(f"it trains {trained}")
    return [*program, *flags], parsed


def _is_training_script(script: str) -> bool:
    return re.fullmatch(r"train_model\w+\.py", script) is not None and (SHIPPED / script).is_file()


if __name__ == "__main__":
    cli.run(main)
