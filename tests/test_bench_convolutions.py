"""benchmarks/convolutions.py: both sides compute the same, and the table says how fast."""

import copy
from dataclasses import replace

import pytest
import torch

from benchmarks import convolutions
from songs.convolutions import UnrolledConv2d
from songs.train_resnet34 import RECIPE


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("songs.models.RESNET34_WIDTHS", (4, 4, 8, 8))
    recipes = {"resnet34": replace(RECIPE, batch_size=2)}
    monkeypatch.setattr("benchmarks.convolutions.find_recipes", lambda: recipes)
    monkeypatch.setattr(convolutions, "SIZES", {"resnet34": [(2, 4, 5, 3)]})


def test_the_table_has_sizes_and_the_network_in_both_precisions() -> None:
    frame = convolutions.table(["resnet34"], n_rounds=2, clock="wall")
    assert list(frame.index) == [
        ("resnet34", what, precision)
        for what in ("2 × (4, 5 × 3)", "the whole network")
        for precision in ("float32", "bfloat16")
    ]
    assert (frame[["unrolled", "as usual"]] > 0).all(axis=None)
    assert (frame["low"] <= frame["high"]).all()


def test_only_one_side_is_unrolled() -> None:
    for _, _, sides in convolutions.cases("resnet34"):
        limits = [
            {
                module.most_positions
                for module in copy.copy(side.run.args[0].args[0]).modules()  # type: ignore[attr-defined]
                if isinstance(module, UnrolledConv2d)
            }
            if isinstance(side.run.args[0], convolutions.partial)  # type: ignore[attr-defined]
            else isinstance(side.run.args[0], UnrolledConv2d)  # type: ignore[attr-defined]
            for side in sides
        ]
        assert limits in ([True, False], [{60}, {0}])
        assert [side.run() for side in sides] == [1.0, 1.0]


def test_both_sides_of_a_size_have_the_same_weights() -> None:
    unrolled, usual = convolutions.sides_of((2, 4, 5, 3), torch.float32)
    one, other = (side.run.args[0].weight for side in (unrolled, usual))  # type: ignore[attr-defined]
    assert one is other
