"""Show the out-of-fold log loss of the trained models, and the folds to train again."""

from pathlib import Path

from hearback import cli, evaluation
from hearback.dataset import read_labelled
from hearback.tables import Report


def main() -> None:
    """Print the tables."""
    parser = cli.parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the tables")
    parser.add_argument("--assets", type=Path, default=Path("assets"), help="folder of the folds")
    parser.add_argument("--models", nargs="+", help="only these (default: all that are trained)")
    arguments = parser.parse_args()
    show(arguments.data, arguments.assets, arguments.models)


def show(data: Path, assets: Path, models: list[str] | None = None) -> None:
    """Print log loss per model, fold, task and grade, and name the folds that stand out."""
    report = Report()
    metadata, labels = read_labelled(data, report)
    report.raise_if_errors()
    metadata = metadata.assign(score=labels)
    tables = evaluation.read_out_of_fold(assets, models)

    def section(title: str, frame: object) -> None:
        print(f"\n{title}\n{frame}")

    section("Out of fold", cli.as_text(evaluation.summary(tables, metadata)))
    section("Log loss per fold", cli.as_text(evaluation.by_fold(tables)))
    for column in ("task", "grade"):
        section(
            f"Log loss per {column}", cli.as_text(evaluation.by_column(tables, metadata, column))
        )
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
