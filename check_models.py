"""Show the out-of-fold log loss of the trained models, and the folds to train again."""

from pathlib import Path

import pandas as pd

from hearback import cli, evaluation
from hearback.dataset import read_labelled
from hearback.tables import Report


def main() -> None:
    """Print the tables."""
    parser = cli.parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the tables")
    parser.add_argument("--assets", type=Path, default=Path("assets"), help="folder of the folds")
    parser.add_argument("--models", nargs="+", help="only these (default: all that are trained)")
    parser.add_argument("--causes", type=Path, help="CSV of filename and why: AUC of each cause")
    arguments = parser.parse_args()
    show(arguments.data, arguments.assets, arguments.models, arguments.causes)


def show(
    data: Path, assets: Path, models: list[str] | None = None, causes: Path | None = None
) -> None:
    """Print how good the models are, where and for whom, and name the folds that stand out."""
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
    for title, frame in sections.items():
        print(f"\n{title}\n{cli.as_text(frame)}")
    print()
    n_outliers = 0
    for table in tables:
        if table.missing_folds:
            print(f"{table.model}: folds {table.missing_folds} are not trained; python train.py")
        for fold, reason in evaluation.folds_that_stand_out(table).items():
            n_outliers += 1
            print(f"{table.model} fold {fold} stands out: {reason}. Train it again:")
            print(f"  {table.stories[fold]['command_again']}")
    if not n_outliers:
        print("No fold stands out.")


if __name__ == "__main__":
    cli.run(main)
