"""benchmarks/layouts.py: both sides learn the same, and the table says how fast."""

from dataclasses import replace

import pytest
import torch

from benchmarks import layouts
from hearback.songs.recipes.cnn4 import RECIPE as CNN4

TINY = replace(CNN4, batch_size=2)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hearback.songs.models.classifiers.CNN4_WIDTHS", (4, 4, 8, 8))


def test_the_table_has_both_precisions_of_a_model() -> None:
    frame = layouts.table([TINY], n_rounds=2, clock="wall")
    assert list(frame.index) == [("cnn4", "float32"), ("cnn4", "bfloat16")]
    rates = frame[["channels last", "channels first"]]
    assert (rates > 0).all(axis=None) and (frame["low"] <= frame["high"]).all()


def test_the_sides_differ_in_their_layout_alone() -> None:
    last, first = layouts.sides_of(TINY, torch.float32)
    for side, is_last in ((last, True), (first, False)):
        assert side.run() == 2
        model = side.run.args[0]  # type: ignore[attr-defined]
        weight = model.layers[4].weight
        assert weight.is_contiguous(memory_format=torch.channels_last) is is_last
        assert weight.grad is not None and weight.grad.abs().sum() > 0


def test_the_gradient_is_cleared_between_steps() -> None:
    model = layouts.build(TINY).eval()  # no dropout
    features = torch.randn(2, 130, 128)
    layouts.learn(model, features, torch.float32)
    weight = model.get_parameter("classifier.weight")
    assert weight.grad is not None
    once = weight.grad.clone()
    layouts.learn(model, features, torch.float32)
    torch.testing.assert_close(weight.grad, once)
