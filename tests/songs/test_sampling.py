"""Sampling of an epoch's snippets, and class weights."""

import numpy as np
import pytest
import torch

from hearback.engine.errors import HearbackError
from hearback.songs.sampler import class_weights, sample_epoch

LABELS = np.repeat([0, 1, 2, 3], [180, 420, 420, 180])
ROWS = 5 * np.arange(len(LABELS)) + 2


def test_epoch_has_every_row_once_in_random_order() -> None:
    rng = np.random.default_rng(0)
    first, second = (sample_epoch(ROWS, LABELS, False, rng) for _ in "ab")
    assert sorted(first) == sorted(second) == ROWS.tolist()
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, ROWS)


def test_same_seed_gives_the_same_sample() -> None:
    for balanced in (False, True):
        first, second = (
            sample_epoch(ROWS, LABELS, balanced, np.random.default_rng(4)) for _ in "ab"
        )
        assert np.array_equal(first, second)


def test_balanced_sampling_equals_torch_s_sampler() -> None:
    rng = np.random.default_rng(0)
    label_of = dict(zip(ROWS.tolist(), LABELS.tolist(), strict=True))
    sampled = np.concatenate([sample_epoch(ROWS, LABELS, True, rng) for _ in range(20)])
    assert len(sampled) == 20 * len(ROWS)
    shares = np.bincount([label_of[row] for row in sampled.tolist()]) / len(sampled)
    sampler = torch.utils.data.WeightedRandomSampler(
        (1 / np.bincount(LABELS)[LABELS]).tolist(),
        num_samples=20 * len(ROWS),
        generator=torch.Generator().manual_seed(0),
    )
    torchs = np.bincount(LABELS[list(sampler)]) / len(sampled)
    np.testing.assert_allclose(shares, 0.25, atol=0.02)
    np.testing.assert_allclose(shares, torchs, atol=0.03)
    assert len(set(sampled[: len(ROWS)].tolist())) < len(ROWS)  # with replacement


def test_missing_class_is_not_sampled() -> None:
    sampled = sample_epoch(np.arange(4), np.array([0, 0, 0, 3]), True, np.random.default_rng(0))
    assert set(sampled.tolist()) <= {0, 1, 2, 3}


def test_labels_of_another_length_are_an_error() -> None:
    with pytest.raises(ValueError, match="labels"):
        sample_epoch(ROWS[:10], LABELS, True, np.random.default_rng(0))


def test_class_weights_are_inverse_to_size_with_mean_one() -> None:
    weights = class_weights(LABELS, 4)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, 1200 / (4 * np.array([180, 420, 420, 180])), rtol=1e-6)
    assert weights[LABELS].mean() == pytest.approx(1)


def test_class_without_snippets_is_an_error() -> None:
    with pytest.raises(HearbackError, match="class 2"):
        class_weights(np.array([0, 1, 3]), 4)
