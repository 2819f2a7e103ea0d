"""benchmarks/convolutions.py: both sides compute the same, and the table says how fast."""

from dataclasses import replace

import pytest
import torch

from benchmarks import convolutions
from hearback.songs.models.convolutions import MOST_POSITIONS, UnrolledConv2d
from hearback.songs.recipes.resnet34 import RECIPE


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hearback.songs.models.classifiers.RESNET34_WIDTHS", (4, 4, 8, 8))
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


def test_both_sides_of_a_network_are_the_same_but_for_what_is_unrolled() -> None:
    networks = [
        side.run.args[0].args[0]  # type: ignore[attr-defined]
        for what, _, sides in convolutions.cases("resnet34")
        if what == "the whole network"
        for side in sides
    ]
    unrolled, usual = networks[:2]
    torch.testing.assert_close(unrolled.state_dict(), usual.state_dict())
    limits = [
        {layer.most_positions for layer in network.modules() if isinstance(layer, UnrolledConv2d)}
        for network in networks
    ]
    assert limits == [{MOST_POSITIONS}, {0}] * 2


def test_both_sides_of_a_size_have_the_same_weights() -> None:
    unrolled, usual = convolutions.sides_of((2, 4, 5, 3), torch.float32)
    one, other = (side.run.args[0].weight for side in (unrolled, usual))  # type: ignore[attr-defined]
    assert one is other
