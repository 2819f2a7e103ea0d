"""Learning curves of trained folds."""

from collections.abc import Sequence

from hearback.engine.evaluation.oof import OutOfFold
from hearback.engine.evaluation.outliers import stall_reasons
from hearback.engine.page.content import Attempt, Curve


def learning_curves(tables: Sequence[OutOfFold]) -> list[Curve]:
    """Return the curve of every fold that was trained by epochs, with its attempts.

    A fold that learned nothing compared with the others of its model has a last attempt "stalled".
    """
    curves = []
    for table in tables:
        stalls = stall_reasons(table)
        for fold, metadata in table.metadata_by_fold.items():
            epochs = metadata.get("epochs") or []
            if len(epochs) < 2:  # baselines, and models without a step of training
                continue
            by_epoch = {epoch["epoch"]: epoch for epoch in epochs}
            numbers = range(max(by_epoch) + 1)
            attempts = [
                Attempt(each["outcome"], each["reason"] or "")
                for each in metadata.get("attempts", [])
            ]
            if fold in stalls:
                attempts.append(Attempt("stalled", stalls[fold]))
            curves.append(
                Curve(
                    table.model,
                    fold,
                    validation=[by_epoch.get(n, {}).get("validation_log_loss") for n in numbers],
                    train=[by_epoch.get(n, {}).get("train_log_loss") for n in numbers],
                    best_epoch=metadata["best_epoch"],
                    attempts=attempts,
                )
            )
    return curves
