"""Out-of-fold predictions of models and their ensemble, on the rows of the training table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.page.predictions import Ensemble, collect, listed
from tests.engine.toy_competition import ToyOutOfFold

TABLE = pd.DataFrame(
    {"filename": [f"{number}.wav" for number in range(6)], "label": [1.0, 0, 1, 0, 1, 0]}
)


class Config:
    """What a page reads of a configuration."""

    def __init__(self, weights: dict[str, float], stated: float | None = None) -> None:
        self.models = tuple(ModelConfig(name, (0,), weight) for name, weight in weights.items())
        self.models_to_run = tuple(model for model in self.models if model.weight)
        self.log_losses = {} if stated is None else {"cross_fitted": stated}


def table_of(model: str, rows: Sequence[int], quality: float) -> ToyOutOfFold:
    """Return predictions of some rows: `quality` is the probability of the label."""
    frame = TABLE.iloc[list(rows)].assign(
        pred=lambda x: np.where(x["label"] == 1, quality, 1 - quality),
        fold=[row % 2 for row in rows],
        base=0.25,
    )
    return ToyOutOfFold(model, 2, frame, {})


GOOD, BAD = table_of("good", [5, 1, 3], 0.9), table_of("bad", [0, 1, 2, 3], 0.6)


def fit(members: Sequence[ToyOutOfFold]) -> tuple[pd.DataFrame, float]:
    assert [table.model for table in members] == ["bad", "good"]  # in the configuration's order
    return pd.DataFrame({"filename": ["3.wav", "1.wav"], "pred": [0.2, 0.3]}), 0.29


def ensemble(*weights: float, stated: float | None = 0.29) -> "Ensemble[ToyOutOfFold]":
    config = Config(dict(zip(("bad", "good", "lost"), weights, strict=False)), stated)
    return Ensemble("ensemble.json", config, fit, "python get_config.py")


def test_the_best_model_is_first_and_every_predicted_row_is_there() -> None:
    found = collect([BAD, GOOD], TABLE, "pred")
    assert found.rows["filename"].tolist() == ["0.wav", "1.wav", "2.wav", "3.wav", "5.wav"]
    assert found.rows["fold"].tolist() == [0, 1, 0, 1, 1]
    assert list(found.by_model) == ["good", "bad"]
    assert [table.model for table in found.tables] == ["good", "bad"]
    assert found.by_model["good"] == pytest.approx([np.nan, 0.1, np.nan, 0.1, 0.1], nan_ok=True)
    assert found.by_model["bad"] == pytest.approx([0.6, 0.4, 0.6, 0.4, np.nan], nan_ok=True)
    losses = -np.log([0.25, 0.75, 0.25, 0.75, 0.75])
    assert found.base_losses == pytest.approx(losses)
    assert (found.weights, found.warnings) == ({}, ())


def test_the_ensemble_is_fitted_again_and_is_first() -> None:
    found = collect([BAD, GOOD], TABLE, "pred", ensemble(0.0, 0.7))
    assert list(found.by_model) == ["ensemble", "good", "bad"]
    expected = [np.nan, 0.3, np.nan, 0.2, np.nan]
    assert found.by_model["ensemble"] == pytest.approx(expected, nan_ok=True)
    assert found.weights == {"good": 0.7}
    assert not found.warnings


@pytest.mark.parametrize(("stated", "is_warned"), [(0.2899, False), (0.27, True), (None, False)])
def test_an_ensemble_of_other_predictions_is_shown_with_a_warning(
    stated: float | None, is_warned: bool
) -> None:
    found = collect([BAD, GOOD], TABLE, "pred", ensemble(0.1, 0.7, stated=stated))
    assert "ensemble" in found.by_model
    warning = "ensemble.json was fitted on other predictions; python get_config.py fits it again."
    assert found.warnings == ((warning,) if is_warned else ())


def test_an_ensemble_with_a_missing_model_or_without_weights_is_not_shown() -> None:
    found = collect([BAD, GOOD], TABLE, "pred", ensemble(0.1, 0.7, 0.2))
    assert list(found.by_model) == ["good", "bad"]
    assert found.warnings == (
        "The ensemble of ensemble.json is not shown: the predictions of lost are not among these.",
    )
    found = collect([BAD, GOOD], TABLE, "pred", ensemble(0.0, 0.0))
    assert list(found.by_model) == ["good", "bad"]
    assert (found.weights, found.warnings) == ({}, ())


def test_predictions_of_classes_are_collected_by_column() -> None:
    rows = BAD.rows.assign(p0=0.2, p1=0.8)
    table = ToyOutOfFold("bad", 2, rows, {})
    found = collect([table], TABLE, ["p0", "p1"])
    assert found.by_model["bad"].tolist() == [[0.2, 0.8]] * 4


def test_a_changed_training_table_is_an_error() -> None:
    with pytest.raises(HearbackError, match=r"changed since the training, first in the row of 5"):
        collect([GOOD], TABLE.assign(label=1 - TABLE["label"]), "pred")


def test_a_page_holds_none_for_nan() -> None:
    assert listed(np.array([0.5, np.nan])) == [0.5, None]
