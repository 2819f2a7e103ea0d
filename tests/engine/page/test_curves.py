"""The learning curves of trained folds, from their metadata."""

from typing import Any

import pandas as pd
import pytest

from hearback.engine.page import curves
from hearback.engine.page.content import Attempt
from tests.engine.toy_competition import ToyOutOfFold

EMPTY = pd.DataFrame({"filename": [], "label": [], "pred": [], "fold": [], "base": []})


def fold(*validation: float, first: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a fold's metadata with these log losses of epochs, counted from `first`."""
    epochs = [
        {"epoch": number, "validation_log_loss": loss, "train_log_loss": loss / 2}
        for number, loss in enumerate(validation, start=first)
    ]
    if not first:
        del epochs[0]["train_log_loss"]  # before training
    return {"epochs": epochs, "best_epoch": epochs[-1]["epoch"], "attempts": [], **fields}


def table(**metadata: dict[str, Any]) -> ToyOutOfFold:
    by_fold = {int(name[-1]): each for name, each in metadata.items()}
    return ToyOutOfFold("model1m", len(by_fold), EMPTY, by_fold)


def test_a_curve_has_a_value_for_every_epoch_from_before_the_training_on() -> None:
    found = table(fold0=fold(0.7, 0.5, 0.4), fold1=fold(0.6, 0.3, first=1, best_epoch=1))
    first, second = curves.learning_curves([found])
    assert (first.model, first.fold, first.best_epoch) == ("model1m", 0, 2)
    assert (first.validation, first.train) == ([0.7, 0.5, 0.4], [None, 0.25, 0.2])
    # Without an evaluation before the training, its place is empty: the best epoch is an index.
    assert (second.validation, second.train) == ([None, 0.6, 0.3], [None, 0.3, 0.15])
    assert second.validation[second.best_epoch] == 0.6


def test_what_was_not_trained_by_epochs_has_no_curve() -> None:
    assert curves.learning_curves([table(fold0=fold(0.7), fold1={"epochs": []})]) == []


def test_attempts_are_listed_and_a_stalled_fold_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = [
        {"attempt": 1, "outcome": "stalled", "reason": "no gradient", "epoch": 1},
        {"attempt": 2, "outcome": "finished", "reason": None, "epoch": 2},
    ]
    monkeypatch.setattr(curves, "stall_reasons", lambda _: {1: "learns nothing"})
    found = table(fold0=fold(0.7, 0.5, attempts=attempts), fold1=fold(0.7, 0.7))
    first, second = curves.learning_curves([found])
    assert first.attempts == [Attempt("stalled", "no gradient"), Attempt("finished", "")]
    assert second.attempts == [Attempt("stalled", "learns nothing")]
