"""Folds that stand out among the folds of their model: a much higher log loss, or a stall."""

from collections.abc import Sequence
from dataclasses import dataclass

from hearback.engine.evaluation.oof import OutOfFold
from hearback.engine.training.stall_detector import Curve, StallDetector

OUTLIER_DEVIATIONS = 3.0  # robust standard deviations of the sibling folds' gains
OUTLIER_SHARE = 0.1  # of the siblings' gain over the base rate
_MAD_TO_DEVIATION = 1.4826  # for a normal distribution


@dataclass(frozen=True)
class Outlier:
    """A fold that stands out, the reason, and the command of its metadata that retrains it."""

    model: str
    fold: int
    reason: str
    command: str


def find_outliers(tables: Sequence[OutOfFold]) -> list[Outlier]:
    """Return the folds that stand out among the folds of their model."""
    return [
        Outlier(table.model, fold, reason, table.metadata_by_fold[fold]["retrain_command"])
        for table in tables
        for fold, reason in outlier_reasons(table).items()
    ]


def outlier_reasons(table: OutOfFold) -> dict[int, str]:
    """Return the reasons why folds stand out, by fold number."""
    high_loss, stalled = high_loss_reasons(table), stall_reasons(table)
    return {
        fold: "; ".join(reasons[fold] for reasons in (high_loss, stalled) if fold in reasons)
        for fold in sorted({*high_loss, *stalled})
    }


def stall_reasons(table: OutOfFold) -> dict[int, str]:
    """Return, by fold number, the stall that the detector finds compared with the sibling folds.

    Training compares a fold only with folds that are finished at the time. Here each fold is
    compared with all of its siblings.
    """
    epochs_by_fold = {fold: metadata["epochs"] for fold, metadata in table.metadata_by_fold.items()}
    curves = {fold: Curve.of(epochs) for fold, epochs in epochs_by_fold.items()}
    reasons = {}
    for fold, epochs in epochs_by_fold.items():
        siblings = [x for other, x in curves.items() if other != fold and x is not None]
        if siblings and (reason := StallDetector(siblings).replay(epochs)):
            reasons[fold] = reason
    return reasons


def high_loss_reasons(table: OutOfFold) -> dict[int, str]:
    """Return, by fold number, why a fold's log loss is too high compared with its siblings.

    The rule compares gains over the base rate, so that it fits any level of loss. A fold stands out
    if its gain is below the siblings' median by more than three of their robust standard deviations
    (or three of its own standard errors, if larger) and by more than a tenth of that median. With
    siblings at 0.22 to 0.24 and a base rate of 0.69, a log loss above 0.28 stands out.
    """
    row_gains = table.row_gains()
    gains = table.fold_gains()
    losses = table.fold_log_losses()
    reasons = {}
    for fold, gain in gains.items():
        siblings = gains.drop(fold)
        if len(siblings) < 2:
            continue
        median = siblings.median()
        deviation = _MAD_TO_DEVIATION * (siblings - median).abs().median()
        error = row_gains[table.rows["fold"] == fold].sem()  # large if the fold has few rows
        margin = max(OUTLIER_DEVIATIONS * max(deviation, error), OUTLIER_SHARE * abs(median))
        if median - gain > margin:
            reasons[int(fold)] = (
                f"log loss {losses[fold]:.4f}, its siblings' median is "
                f"{losses.drop(fold).median():.4f}; gain over the base rate {gain:.4f}, theirs "
                f"{median:.4f}, tolerance {margin:.4f}"
            )
    return reasons
