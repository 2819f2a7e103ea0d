"""songs/sampling.py: what an epoch hears, and how much each class counts."""

import numpy as np
import pytest
import torch

from hearback.engine.errors import HearbackError
from hearback.songs.sampler import class_weights, draw_epoch

LABELS = np.repeat([0, 1, 2, 3], [180, 420, 420, 180])
ROWS = 5 * np.arange(len(LABELS)) + 2


def test_an_epoch_hears_every_row_once_in_another_order_each_time() -> None:
    rng = np.random.default_rng(0)
    one, other = (draw_epoch(ROWS, LABELS, False, rng) for _ in "ab")
    assert sorted(one) == sorted(other) == ROWS.tolist()
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, ROWS)


def test_the_same_seed_draws_the_same() -> None:
    for balanced in (False, True):
        one, same = (draw_epoch(ROWS, LABELS, balanced, np.random.default_rng(4)) for _ in "ab")
        assert np.array_equal(one, same)


def test_balanced_draws_hear_every_class_as_often_as_torchs_sampler() -> None:
    rng = np.random.default_rng(0)
    label_of = dict(zip(ROWS.tolist(), LABELS.tolist(), strict=True))
    drawn = np.concatenate([draw_epoch(ROWS, LABELS, True, rng) for _ in range(20)])
    assert len(drawn) == 20 * len(ROWS)
    shares = np.bincount([label_of[row] for row in drawn.tolist()]) / len(drawn)
    sampler = torch.utils.data.WeightedRandomSampler(
        (1 / np.bincount(LABELS)[LABELS]).tolist(),
        num_samples=20 * len(ROWS),
        generator=torch.Generator().manual_seed(0),
    )
    torchs = np.bincount(LABELS[list(sampler)]) / len(drawn)
    np.testing.assert_allclose(shares, 0.25, atol=0.02)
    np.testing.assert_allclose(shares, torchs, atol=0.03)
    assert len(set(drawn[: len(ROWS)].tolist())) < len(ROWS)  # with replacement


def test_a_class_that_is_missing_is_not_drawn() -> None:
    drawn = draw_epoch(np.arange(4), np.array([0, 0, 0, 3]), True, np.random.default_rng(0))
    assert set(drawn.tolist()) <= {0, 1, 2, 3}


def test_labels_of_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="labels"):
        draw_epoch(ROWS[:10], LABELS, True, np.random.default_rng(0))


def test_class_weights_are_inverse_to_size_and_one_on_average() -> None:
    weights = class_weights(LABELS, 4)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, 1200 / (4 * np.array([180, 420, 420, 180])), rtol=1e-6)
    assert weights[LABELS].mean() == pytest.approx(1)


def test_a_class_without_a_snippet_has_no_weight() -> None:
    with pytest.raises(HearbackError, match="class 2"):
        class_weights(np.array([0, 1, 3]), 4)
