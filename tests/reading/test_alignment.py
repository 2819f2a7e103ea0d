"""Dynamic time warping and the alignment head."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from hearback.engine.whisper.encoder import FRAMES_PER_SECOND
from hearback.reading.models.alignment import (
    PATH_FEATURES,
    AlignmentPath,
    dtw,
    path_features,
    word_spans,
)
from hearback.reading.models.alignment_head import (
    FEATURES,
    POOLED,
    AlignmentHead,
    pool,
    standardise,
)

WIDTH = 24


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def frames(rng: np.random.Generator, *lengths: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal((*lengths, WIDTH)).astype(np.float32))


def cheapest(costs: NDArray[np.float64]) -> float:
    """Sakoe & Chiba's symmetric recursion, cell by cell, from the definition."""
    totals = {(0, 0): 2 * costs[0, 0]}
    for i, j in np.ndindex(costs.shape):
        if (i, j) != (0, 0):
            totals[i, j] = min(
                totals[cell] + weight * costs[i, j]
                for cell, weight in (((i - 1, j - 1), 2), ((i - 1, j), 1), ((i, j - 1), 1))
                if cell in totals
            )
    return totals[costs.shape[0] - 1, costs.shape[1] - 1]


def test_dtw_finds_a_cheapest_path(rng: np.random.Generator) -> None:
    costs = rng.random((5, 9, 12), dtype=np.float32)
    n_rows, n_columns = np.array([9, 1, 4, 9, 1]), np.array([12, 7, 12, 1, 1])
    rows, columns, lengths = dtw(costs, n_rows, n_columns)
    for b in range(len(costs)):
        i, j = rows[b, : lengths[b]], columns[b, : lengths[b]]
        assert (i[0], j[0]) == (0, 0)
        assert (i[-1], j[-1]) == (n_rows[b] - 1, n_columns[b] - 1)
        down, right = np.diff(i), np.diff(j)
        assert set(zip(down, right, strict=True)) <= {(0, 1), (1, 0), (1, 1)}
        weights = np.concatenate([[2], down + right])
        expected = cheapest(costs[b, : n_rows[b], : n_columns[b]].astype(np.float64))
        assert (weights * costs[b, i, j]).sum() == pytest.approx(expected)


def test_identical_sequences_have_a_diagonal_path_of_zero_cost(rng: np.random.Generator) -> None:
    same = frames(rng, 20)
    path = AlignmentHead(WIDTH).alignment_path(same, same)
    np.testing.assert_array_equal(path.reference, np.arange(20))
    np.testing.assert_array_equal(path.learner, np.arange(20))
    np.testing.assert_allclose(path.costs, 0, atol=1e-5)


def test_a_path_is_monotonic(rng: np.random.Generator) -> None:
    path = AlignmentHead(WIDTH).alignment_path(frames(rng, 31), frames(rng, 17))
    assert (np.diff(path.reference) >= 0).all()
    assert (np.diff(path.learner) >= 0).all()
    assert (path.reference[-1], path.learner[-1]) == (16, 30)
    assert len(path.reference) == len(path.learner) == len(path.costs)


def test_an_inserted_block_is_found(rng: np.random.Generator) -> None:
    reference, inserted = frames(rng, 60), frames(rng, 15)
    learner = torch.cat([reference[:40], inserted, reference[40:]])
    path = AlignmentHead(WIDTH).alignment_path(learner, reference)
    inside = (path.learner >= 40) & (path.learner < 55)
    assert path.costs[inside].mean() > 5 * path.costs[~inside].mean()
    assert np.ptp(path.reference[inside]) <= 6  # the reference hardly advances
    assert np.isin(path.reference[inside], np.arange(35, 46)).all()
    features = dict(zip(PATH_FEATURES, path_features(path.reference, path.learner), strict=True))
    assert 9 <= features["longest_learner_only"] <= 15
    assert features["longest_reference_only"] <= 3


def test_a_replaced_block_has_the_highest_cost(rng: np.random.Generator) -> None:
    reference = frames(rng, 100)
    learner = torch.cat([reference[:10], reference[10:70], frames(rng, 15), reference[85:]])
    path = AlignmentHead(WIDTH).alignment_path(learner, reference)
    replaced = path.cost_between(70 / FRAMES_PER_SECOND, 85 / FRAMES_PER_SECOND)
    assert replaced > 5 * path.cost_between(0, 60 / FRAMES_PER_SECOND)


def test_a_path_maps_the_references_time_to_the_learners() -> None:
    reference = np.array([0, 1, 2, 2, 2, 3])
    path = AlignmentPath(reference, np.array([0, 0, 1, 2, 3, 4]), np.arange(6, dtype=np.float32))
    second = 1 / FRAMES_PER_SECOND
    assert path.learner_between(2 * second, 3 * second) == pytest.approx((1 * second, 4 * second))
    assert path.cost_between(2 * second, 3 * second) == pytest.approx(3)
    assert np.isnan(path.cost_between(9, 10))


def test_a_clip_does_not_depend_on_padding_or_on_its_batch(rng: np.random.Generator) -> None:
    learner, reference = frames(rng, 3, 64), frames(rng, 3, 64)
    n_learner, n_reference = torch.tensor([64, 20, 3]), torch.tensor([7, 64, 40])
    head = AlignmentHead(WIDTH, hidden=8).eval()
    assert head.correction is not None
    torch.nn.init.normal_(head.correction.weigh.weight)
    together = head(learner, reference, n_learner, n_reference)
    features = head.features(learner, reference, n_learner, n_reference)
    for b in range(3):
        alone = (
            learner[b : b + 1, : n_learner[b]],
            reference[b : b + 1, : n_reference[b]],
            n_learner[b : b + 1],
            n_reference[b : b + 1],
        )
        torch.testing.assert_close(head.features(*alone)[0], features[b], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(head(*alone)[0], together[b], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lengths", [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_the_shortest_clips_have_finite_features_and_gradients(
    rng: np.random.Generator, lengths: tuple[int, int]
) -> None:
    n_learner, n_reference = lengths
    learner, reference = frames(rng, 1, n_learner), frames(rng, 1, n_reference)
    learner.requires_grad_()
    head = AlignmentHead(WIDTH, hidden=8)
    inputs = (learner, reference, torch.tensor([n_learner]), torch.tensor([n_reference]))
    assert head.features(*inputs).isfinite().all()
    head(*inputs).sum().backward()
    assert learner.grad is not None
    assert learner.grad.isfinite().all()


def test_gradients_reach_valid_frames_of_both_sides_only(
    rng: np.random.Generator,
) -> None:
    learner, reference = frames(rng, 2, 50).requires_grad_(), frames(rng, 2, 50).requires_grad_()
    n_learner, n_reference = torch.tensor([50, 30]), torch.tensor([20, 50])
    head = AlignmentHead(WIDTH, hidden=8)
    head(learner, reference, n_learner, n_reference).sum().backward()
    for side, lengths in ((learner, n_learner), (reference, n_reference)):
        assert side.grad is not None
        for gradient, n in zip(side.grad, lengths, strict=True):
            assert gradient.isfinite().all()
            assert (gradient[:n].abs().sum(1) > 0).all()
            assert (gradient[n:] == 0).all()
    trained = {name for name, p in head.named_parameters() if p.grad is not None and p.grad.any()}
    # The correction's last layer is zero, so at first no gradient passes it.
    assert trained == {
        "projection.weight",
        "classifier.linear.weight",
        "classifier.linear.bias",
        "correction.weigh.weight",
        "correction.weigh.bias",
    }


def test_gradients_are_those_of_a_fixed_path(rng: np.random.Generator) -> None:
    learner, reference = frames(rng, 1, 9).double(), frames(rng, 1, 6).double()
    head = AlignmentHead(WIDTH)
    n_learner, n_reference = torch.tensor([9]), torch.tensor([6])

    def mean_cost(learner: Tensor) -> Tensor:
        return head.features(learner, reference, n_learner, n_reference)[0, 0]

    head = head.double()
    learner.requires_grad_()
    (gradient,) = torch.autograd.grad(mean_cost(learner), learner)
    direction = torch.from_numpy(rng.standard_normal(learner.shape))
    with torch.no_grad():
        step = 1e-2
        change = mean_cost(learner + step * direction) - mean_cost(learner - step * direction)
    assert (gradient * direction).sum().item() == pytest.approx(change.item() / 2 / step, rel=0.05)


def test_the_head_is_initialised_as_a_logistic_regression(rng: np.random.Generator) -> None:
    head = AlignmentHead(WIDTH, n_context=2, hidden=8)
    learner, reference = frames(rng, 40, 30), frames(rng, 40, 30)
    n_learner = torch.from_numpy(rng.integers(5, 30, 40))
    n_reference = torch.from_numpy(rng.integers(5, 30, 40))
    context = torch.from_numpy(rng.random((40, 2)).astype(np.float32))
    labels = rng.integers(0, 2, 40)
    with torch.no_grad():
        features = head.features(learner, reference, n_learner, n_reference, context)
        inputs = features.double().numpy()
        head.classifier.init_from_pretrained(inputs, labels, c=0.3)
        logits = head(learner, reference, n_learner, n_reference, context).numpy()
    scaled = StandardScaler().fit_transform(inputs)
    expected = LogisticRegression(C=0.3, max_iter=5000).fit(scaled, labels)
    np.testing.assert_allclose(logits, expected.decision_function(scaled), atol=2e-3)


def test_a_constant_feature_has_zero_weight_at_initialisation(rng: np.random.Generator) -> None:
    head = AlignmentHead(WIDTH)
    features = rng.random((30, len(FEATURES)))
    features[:, 4] = 7.0
    head.classifier.init_from_pretrained(features, np.arange(30) % 2)
    assert head.classifier.linear.weight.isfinite().all()
    assert head.classifier.linear.weight[0, 4] == 0


def test_each_feature_has_a_name(rng: np.random.Generator) -> None:
    one = torch.tensor([9])
    features = AlignmentHead(WIDTH).features(frames(rng, 1, 9), frames(rng, 1, 9), one, one)
    assert features.shape == (1, len(FEATURES))
    assert len(set(FEATURES)) == len(FEATURES)


def test_standardised_frames_do_not_depend_on_scale_and_offset_and_are_zero_in_the_padding(
    rng: np.random.Generator,
) -> None:
    x = frames(rng, 2, 40)
    mask = torch.arange(40) < torch.tensor([[40], [25]])
    out = standardise(x, mask)
    torch.testing.assert_close(out, standardise(3 * x + 5, mask), rtol=1e-3, atol=1e-3)
    assert (out[1, 25:] == 0).all()
    torch.testing.assert_close(out[1, :25].mean(0), torch.zeros(WIDTH), rtol=0, atol=1e-5)


def test_pooling_ignores_the_padding() -> None:
    series = torch.tensor([[0.0] * 30 + [9.0] * 10 + [99.0] * 20, [1.0] * 3 + [99.0] * 57])
    pooled = pool(series, torch.tensor([40, 3]))
    first = dict(zip(POOLED, pooled[0].tolist(), strict=True))
    assert first["mean"] == pytest.approx(90 / 40)
    assert first["high"] == 9
    assert first["worst_10"] == pytest.approx(9)
    assert first["worst_25"] == pytest.approx(90 / 25)
    torch.testing.assert_close(pooled[1], torch.ones(len(POOLED)))


def test_word_spans_divide_the_time_that_is_not_silent() -> None:
    silence, tone = np.zeros(8000, np.float32), np.ones(16000, np.float32)
    spans = word_spans(np.concatenate([silence, tone, silence, tone, silence]), "abcd efgh")
    np.testing.assert_allclose(spans, [(0.5, 1.5), (2.0, 3.0)], atol=0.021)


def test_longer_words_have_longer_spans() -> None:
    spans = word_spans(np.ones(32000, np.float32), "a well-read reader")
    assert spans[0][0] == 0
    assert spans[-1][1] == pytest.approx(2, abs=0.021)
    lengths = [end - start for start, end in spans]
    assert lengths[0] < lengths[2] < lengths[1]
    for (_, end), (start, _) in pairwise(spans):
        assert start == pytest.approx(end, abs=0.021)


@pytest.mark.parametrize(("samples", "text"), [(np.zeros(16000), "word"), (np.ones(16000), " ")])
def test_word_spans_reject_silence_and_empty_texts(samples: NDArray[np.float64], text: str) -> None:
    with pytest.raises(ValueError, match="word"):
        word_spans(samples.astype(np.float32), text)
