"""Masked pooling, classifiers, and the layer initialised as a logistic regression."""

from itertools import product
from typing import Literal, get_args

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from hearback.engine.whisper.heads import (
    AttentionPooling,
    Head,
    LogisticInitLinear,
    MeanPooling,
    Pooling,
)

DropoutOn = Literal["frames", "pooled"]
WIDTH, N_FRAMES = 6, 10
LENGTHS = torch.tensor([10, 4, 1])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def make_frames() -> tuple[Tensor, Tensor]:
    """Three pairs, (3, 10, 6), of 10, 4 and 1 frames, (3, 10)."""
    return torch.randn(len(LENGTHS), N_FRAMES, WIDTH), torch.arange(N_FRAMES) < LENGTHS[:, None]


def make_head(
    pooling: Pooling = "mean",
    hidden: int | None = None,
    dropout: float = 0.0,
    dropout_on: DropoutOn = "frames",
) -> Head:
    return Head(WIDTH, 2, pooling=pooling, hidden=hidden, dropout=dropout, dropout_on=dropout_on)


def test_mean_pooling_is_the_mean_over_the_mask() -> None:
    frames, mask = make_frames()
    expected = [pair[:n].mean(0) for pair, n in zip(frames, LENGTHS.tolist(), strict=True)]
    torch.testing.assert_close(MeanPooling()(frames, mask), torch.stack(expected))


def test_attention_s_weights_sum_to_one() -> None:
    frames, mask = make_frames()
    frames[..., 0] = 1  # pooled, this is the sum of the weights
    pooled = AttentionPooling(WIDTH)(frames, mask)
    torch.testing.assert_close(pooled[:, 0], torch.ones(len(LENGTHS)))


def test_attention_selects_the_valid_frames_with_the_highest_scores() -> None:
    frames, mask = make_frames()
    pooling = AttentionPooling(WIDTH)

    class FirstValue(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 100 * x[..., :1]

    pooling.score = FirstValue()  # type: ignore[assignment]
    # The frame with the highest score is beyond the second pair's end.
    frames[:, :, 0] = torch.tensor([0, 2, 0, 0, 0, 0, 0, 0, 0, 3.0])
    expected = torch.stack([frames[0, 9], frames[1, 1], frames[2, 0]])
    torch.testing.assert_close(pooling(frames, mask), expected)


HEADS = list(product(get_args(Pooling), (None, 5), get_args(DropoutOn)))


@pytest.mark.parametrize(("pooling", "hidden", "dropout_on"), HEADS)
def test_logits_do_not_depend_on_the_padding(
    pooling: Pooling, hidden: int | None, dropout_on: DropoutOn
) -> None:
    head = make_head(pooling, hidden, 0.4, dropout_on).eval()
    frames, mask = make_frames()
    context = torch.rand(len(frames), 2)
    logits = head(frames, mask, context)
    assert logits.shape == (len(frames),)
    beyond = torch.where(mask[..., None], frames, 1e3)
    torch.testing.assert_close(head(beyond, mask, context), logits)
    within = torch.where(mask[..., None], frames + 1, frames)
    assert (head(within, mask, context) != logits).all()
    assert (head(frames, mask, context + 1) != logits).all()


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_frames_in_the_padding_have_no_gradient(pooling: Pooling) -> None:
    frames, mask = make_frames()
    frames.requires_grad_()
    make_head(pooling)(frames, mask, torch.zeros(3, 2)).sum().backward()
    assert frames.grad is not None
    assert frames.grad.isfinite().all()
    assert ((frames.grad != 0).any(-1) == mask).all()


@pytest.mark.parametrize(
    ("pooling", "hidden", "shapes"),
    [
        ("mean", None, [(1, WIDTH + 2)]),
        ("attention", None, [(1, WIDTH + 2)]),
        ("mean", 128, [(128, WIDTH + 2), (1, 128)]),
        ("attention+mean", WIDTH, [(WIDTH, 2 * WIDTH + 2), (1, WIDTH)]),
    ],
)
def test_classifiers_have_the_recipes_shapes(
    pooling: Pooling, hidden: int | None, shapes: list[tuple[int, int]]
) -> None:
    layers = make_head(pooling, hidden).classifier.modules()
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == shapes


def classifier_s_input(head: Head, frames: Tensor, mask: Tensor, context: Tensor) -> Tensor:
    seen = []
    head.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    head(frames, mask, context)
    return seen[0]


def test_both_poolings_are_concatenated() -> None:
    frames, mask = make_frames()
    context = torch.rand(3, 2)
    head = make_head("attention+mean")
    expected = [head.poolings[0](frames, mask), MeanPooling()(frames, mask), context]
    torch.testing.assert_close(
        classifier_s_input(head, frames, mask, context), torch.cat(expected, dim=1)
    )


def test_dropout_is_on_frames_or_on_the_pooled_vector_and_never_on_the_context() -> None:
    frames, context = torch.ones(4, 400, WIDTH), torch.full((4, 2), 0.25)
    mask = torch.ones(4, 400, dtype=torch.bool)
    inputs = {
        where: classifier_s_input(
            make_head(dropout=0.5, dropout_on=where).train(), frames, mask, context
        )
        for where in get_args(DropoutOn)
    }
    for seen in inputs.values():
        torch.testing.assert_close(seen[:, WIDTH:], context)
    # About half of 400 frames remain, doubled; of a pooled value all or nothing remains.
    of_frames, of_pooled = inputs["frames"][:, :WIDTH], inputs["pooled"][:, :WIDTH]
    torch.testing.assert_close(of_frames, torch.ones(4, WIDTH), atol=0.3, rtol=0)
    assert of_frames.unique().numel() > 2
    torch.testing.assert_close(of_pooled, 2 * (of_pooled > 1).float())
    assert 0 < (of_pooled > 1).float().mean() < 1


def make_table(n_rows: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Features of different scales, (80, 3), and labels that depend on the first two, (80,)."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n_rows, 3)) * [1, 20, 0.1] + [3, -50, 0]
    labels = features[:, 0] - features[:, 1] / 20 + rng.normal(size=n_rows) > 5.5
    return features, labels.astype(np.float32)


@pytest.mark.parametrize("c", [0.1, 10.0])
def test_an_initialised_layer_is_a_logistic_regression_on_z_scored_features(c: float) -> None:
    features, labels = make_table()
    layer = LogisticInitLinear(3)
    layer.init_from_pretrained(features, labels, c)
    scaled = (features - features.mean(0)) / features.std(0)
    expected = LogisticRegression(C=c, max_iter=5000).fit(scaled, labels)
    logits = layer(torch.from_numpy(features))
    assert logits.dtype == torch.float32
    np.testing.assert_allclose(logits.detach(), expected.decision_function(scaled), atol=1e-4)


def test_an_initialised_layer_keeps_its_state_and_is_trainable() -> None:
    features, labels = make_table()
    layer, again = LogisticInitLinear(3), LogisticInitLinear(3)
    layer.init_from_pretrained(features, labels)
    again.load_state_dict(layer.state_dict())
    x = torch.from_numpy(features)
    torch.testing.assert_close(again(x), layer(x), atol=0, rtol=0)
    assert {name for name, _ in layer.named_parameters()} == {"linear.weight", "linear.bias"}
    layer(x).sum().backward()
    assert layer.linear.weight.grad is not None and layer.linear.weight.grad.any()


# 0.1 and -7.3 change when rounded to half precision, unlike the stored mean.
@pytest.mark.parametrize("constant", [0.0, 0.75, 0.1, -7.3])
def test_a_constant_feature_has_no_effect_after_rounding_to_half_precision(
    constant: float,
) -> None:
    features, labels = make_table()
    features[:, 2] = np.float32(constant)
    layer, kept = LogisticInitLinear(3), LogisticInitLinear(3)
    layer.init_from_pretrained(features, labels)
    kept.load_state_dict({k: v.half().float() for k, v in layer.state_dict().items()})
    two = LogisticInitLinear(2)
    two.init_from_pretrained(features[:, :2], labels)
    x = torch.from_numpy(features)
    torch.testing.assert_close(layer(x), two(x[:, :2]), atol=1e-3, rtol=0)
    torch.testing.assert_close(kept(x), layer(x), atol=0.05, rtol=0)


def test_features_are_standardised_in_full_precision_under_autocast() -> None:
    features, labels = make_table()
    layer = LogisticInitLinear(3)
    layer.init_from_pretrained(features, labels)
    x = torch.from_numpy(features).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer(x), layer(x.double()), atol=0, rtol=0)
        assert layer(x).dtype == torch.float32


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_labels_of_one_class_give_their_base_rate(label: float) -> None:
    features, _ = make_table()
    layer = LogisticInitLinear(3)
    layer.init_from_pretrained(features, np.full(len(features), label))
    logits = layer(torch.from_numpy(features).float())
    expected = np.log(len(features) + 1) * (1 if label else -1)
    torch.testing.assert_close(logits, torch.full_like(logits, expected))
