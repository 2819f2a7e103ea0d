"""Step 3: show the out-of-fold log loss of the trained models, and the folds to train again.

The exit status is 1 if a fold stands out, else 0. --retrain runs the training commands shown for
these folds, then shows the tables again.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from hearback.engine import cli
from hearback.engine.data import corrections
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import check_models, fold_tables
from hearback.engine.evaluation.oof import trained_folds
from hearback.engine.evaluation.outliers import Outlier
from hearback.engine.page import flags as page_flags
from hearback.engine.project import SHIPPED
from hearback.engine.training.recipe import name_with_seed, split_seed
from hearback.reading import comparison, evaluation, step_command, word_evaluation
from hearback.reading.ensemble import ABLATION, ABLATION_PREFIX
from hearback.reading.options import TrainingOptions
from hearback.reading.trained import TrainedModels, read_trained

if TYPE_CHECKING:
    from hearback.engine.page.writing import PageOptions

PAGE = Path("check_models.html")  # report.html has the ensemble and sound: it is kept
_REPEATED = ("data", "assets", "models", "causes", "corrections")  # flags of report.py, too


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

    def read() -> TrainedModels:
        return read_trained(
            flags.data,
            flags.assets,
            flags.models,
            causes=flags.causes,
            corrections=flags.corrections,
        )

    first = read()
    first.corrected.announce()
    status, trained = check_models.check(
        flags,
        first,
        read,
        lambda found: show(found, flags.assets, flags.compare_with),
        read_command,
    )
    again = page_flags.repeated(step_command("report"), parser, flags, _REPEATED)
    page_flags.end_check_models(page, lambda options: _write_page(options, trained, flags), again)
    return status


def _write_page(options: "PageOptions", trained: TrainedModels, flags: argparse.Namespace) -> None:
    # Here: --help and the tables need none of it.
    from hearback.reading.report.write import OutOfFoldSources, write_out_of_fold  # noqa: PLC0415

    write_out_of_fold(options, trained, OutOfFoldSources(flags.data, flags.assets))


def show(trained: TrainedModels, assets: Path, other_assets: Path | None = None) -> list[Outlier]:
    """Print the tables of models in `assets`; return the folds that stand out."""
    metadata, tables = trained.metadata, trained.tables
    sections: dict[str, pd.DataFrame] = {
        "Out of fold": evaluation.summary(tables, metadata),
        "Log loss per fold": fold_tables.log_loss_by_fold(tables),
        "Log loss per task": evaluation.by_column(tables, metadata, "task"),
        **evaluation.error_analysis(tables, metadata, trained.causes),
    }
    agreement = word_evaluation.by_model(assets, tables, metadata, trained.word_labels)
    if len(agreement):
        sections[word_evaluation.TITLE] = agreement
    if other_assets is not None:
        title = f"Log loss compared with {other_assets} (paired; 2.5 to 97.5 % of a bootstrap)"
        others = _read_others(other_assets, tables)
        parts = metadata if trained.causes is None else metadata.assign(cause=trained.causes)
        sections[title] = comparison.compare_models(tables, others, parts)
        names = {other.model for other in others}
        compared = [table for table in tables if table.model in names]
        if missing := [table.model for table in tables if table.model not in names]:
            print(f"\nnot in {other_assets}: {', '.join(missing)}")
        if note := comparison.describe_other_data(compared, others):
            print(f"\n{other_assets}: {note}")
    check_models.print_sections(sections, assets, tables)
    for line in word_evaluation.describe_training_labels(tables, trained.word_labels):
        print(f"\n{line}")
    return check_models.print_outliers(tables)


def _read_others(
    assets: Path, tables: Sequence[evaluation.ReadingOutOfFold]
) -> list[evaluation.ReadingOutOfFold]:
    """Return the tables of the same models in another folder; of all, if it has none of these.

    Other models there may be of another split.
    """
    there = trained_folds(assets)
    return evaluation.read_out_of_fold(
        assets, [table.model for table in tables if table.model in there] or None
    )


def show_trained(options: TrainingOptions, models: list[str]) -> None:
    """Print the tables of `models`, after a training with `options`."""
    trained = read_trained(options.data, options.assets, models, corrections=options.corrections)
    trained.corrected.announce()
    show(trained, options.assets)


def read_command(model: str, words: Sequence[str]) -> tuple[list[str], argparse.Namespace]:
    """Parse a command that trains `model`; see `check_models.ReadCommand`."""
    recipe, _ = split_seed(model)
    script = f"train_{recipe}.py"
    match words:
        case ["python", first, *flags] if first == script and _is_training_script(script):
            program = [str(SHIPPED / script)]
        case ["python", "-m", module, "--variants", variant, *flags] if (
            module == ABLATION and recipe == f"{ABLATION_PREFIX}{variant}"
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
