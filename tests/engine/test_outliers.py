"""Folds that stand out among their siblings, and the log loss of a cross-fitted epoch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hearback.engine.evaluation.outliers import outlier_reasons
from tests.engine.toy_competition import ToyOutOfFold


def out_of_fold(*losses: float, base: float = 0.5) -> ToyOutOfFold:
    """Return folds of two rows with these log losses and a base rate with loss -log(`base`)."""
    folds = np.repeat(np.arange(len(losses)), 2)
    pred = np.exp(-np.array(losses))[folds]
    rows = pd.DataFrame({"label": 1.0, "pred": pred, "fold": folds, "base": base})
    return ToyOutOfFold("model1m", len(losses), rows, {})


@pytest.mark.parametrize(
    ("losses", "outliers"),
    [
        # The example of the docstring: siblings at 0.22 to 0.24, outliers above 0.28.
        ((0.22, 0.225, 0.23, 0.285, 0.235, 0.24), [3]),
        ((0.22, 0.225, 0.23, 0.26, 0.235, 0.24), []),
        ((0.22, 0.23, 0.69, 0.24, 0.23, 0.69), [2, 5]),
        ((0.22, 0.23, 0.15, 0.24, 0.23, 0.225), []),  # better than its siblings
        # A small corpus: little gain over the base rate of 0.693, in one fold none.
        ((0.61, 0.625, 0.62, 0.63, 0.693, 0.615), [4]),
        ((0.61, 0.625, 0.62, 0.63, 0.635, 0.615), []),
        # Folds that differ much.
        ((0.50, 0.56, 0.62, 0.53, 0.64, 0.59), []),
        ((0.62, 0.61, 0.69), [2]),
        ((0.22, 0.69), []),  # too few to compare
        ((0.22,), []),
    ],
)
def test_folds_that_gain_less_than_their_siblings_stand_out(
    losses: tuple[float, ...], outliers: list[int]
) -> None:
    assert list(outlier_reasons(out_of_fold(*losses))) == outliers


def test_the_rule_compares_gains_and_not_losses() -> None:
    # A fold with a harder mix of labels has a higher loss, and a higher one of the base rate.
    table = out_of_fold(0.22, 0.23, 0.30, 0.24)
    assert list(outlier_reasons(table)) == [2]
    table.rows.loc[table.rows["fold"] == 2, "base"] = 0.5 * np.exp(-0.07)
    assert not outlier_reasons(table)


def test_the_reason_has_the_numbers() -> None:
    reason = outlier_reasons(out_of_fold(0.22, 0.23, 0.30, 0.24))[2]
    gain, median = np.log(2) - 0.30, np.log(2) - 0.23
    for number in (0.30, 0.23, gain, median):
        assert f"{number:.4f}" in reason


def epochs_with(norm: float, loss: float) -> dict[str, Any]:
    """Return fold metadata with one epoch of 100 equal steps."""
    return {
        "epochs": [{"epoch": 1, "losses": [loss] * 100, "gradient_norms": [norm] * 100}],
        "retrain_command": "again",
    }


@pytest.mark.parametrize(
    ("last", "stalled"),
    [
        ((0.01, 0.69), True),
        ((0.01, 0.3), False),  # the loss is low
        ((0.8, 0.69), False),
    ],
)
def test_a_fold_that_stalled_compared_with_later_siblings_stands_out(
    last: tuple[float, float], stalled: bool
) -> None:
    metadata_by_fold = {0: epochs_with(*last), 1: epochs_with(1.0, 0.3), 2: epochs_with(2.0, 0.35)}
    table = replace(out_of_fold(0.3, 0.3, 0.3), metadata_by_fold=metadata_by_fold)
    found = outlier_reasons(table)
    assert list(found) == ([0] if stalled else [])
    if stalled:
        assert found[0].startswith(
            "epoch 1, step 60: gradient norm 0.01 and loss 0.690, the other "
        )


def test_a_stalled_fold_of_high_loss_has_both_reasons() -> None:
    metadata_by_fold = {
        0: epochs_with(0.01, 0.69),
        1: epochs_with(1.0, 0.3),
        2: epochs_with(2.0, 0.35),
    }
    table = replace(out_of_fold(0.69, 0.3, 0.3), metadata_by_fold=metadata_by_fold)
    (reason,) = outlier_reasons(table).values()
    assert reason.startswith("log loss 0.6900") and "; epoch 1, step 60: gradient norm" in reason


def with_curves(curves: Sequence[Sequence[float]], n_rows: Sequence[int]) -> ToyOutOfFold:
    metadata_by_fold = {
        fold: {"epochs": [{"validation_log_loss": loss} for loss in curve], "n_validation": n}
        for fold, (curve, n) in enumerate(zip(curves, n_rows, strict=True))
    }
    return ToyOutOfFold("model1m", len(curves), pd.DataFrame(), metadata_by_fold)


def test_the_cross_fitted_epoch_is_chosen_on_the_other_folds() -> None:
    table = with_curves([[0.60, 0.50, 0.70], [0.60, 0.65, 0.55], [0.6, 0.58, 0.56]], [1, 1, 2])
    # The mean of folds 1 and 2 is lowest in epoch 3, that of 0 and 2 in 2, that of 0 and 1 in 2.
    assert table.cross_fitted_epoch_log_loss() == pytest.approx((0.70 + 0.65 + 2 * 0.58) / 4)


@pytest.mark.parametrize("curves", [[[0.6, 0.5]], [[0.6, 0.5], [0.6]]])
def test_a_single_fold_or_unequal_epochs_have_no_cross_fitted_epoch(
    curves: list[list[float]],
) -> None:
    assert np.isnan(with_curves(curves, [1] * len(curves)).cross_fitted_epoch_log_loss())
