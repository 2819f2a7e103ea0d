"""Reference and learner in one waveform, and waveforms in batches."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch

from hearback.augment import Augmentation
from hearback.pairs import (
    WINDOW_SAMPLES,
    Batch,
    Pair,
    PairDataset,
    PairSource,
    batched,
    encode_context,
    join,
    window_samples,
)

STEP = 10_240  # samples in 0.64 s


def test_the_reference_comes_first() -> None:
    reference, learner = np.ones(3, np.float32), np.zeros(2, np.float32)
    joined = join(reference, learner)
    np.testing.assert_array_equal(joined, [1, 1, 1, 0, 0])
    assert joined.dtype == np.float32


@pytest.mark.parametrize("n_reference", [200_000, 256_000, 300_000])
def test_a_pair_is_cut_at_16_seconds(n_reference: int) -> None:
    reference = np.arange(n_reference, dtype=np.float32)
    learner = -np.arange(1, 100_001, dtype=np.float32)
    joined = join(reference, learner)
    np.testing.assert_array_equal(joined, np.concatenate([reference, learner])[: 16 * 16_000])


@pytest.mark.parametrize(
    ("n_samples", "step_seconds", "expected"),
    [
        (1, 0.64, STEP),
        (STEP, 0.64, STEP),
        (STEP + 1, 0.64, 2 * STEP),
        (255_999, 0.64, 256_000),
        (256_001, 0.64, 256_000),
        (0, 0.64, STEP),
        (1000, 0.02, 1280),
        (1000, 0.001, 1280),  # never below an encoder frame
        (16_000, 0.65, 2 * STEP),  # 32.5 frames, rounded to 32
        (250_000, 3.0, 256_000),  # a step that does not divide 16 s
    ],
)
def test_a_window_is_the_pair_s_length_rounded_up_to_a_step(
    n_samples: int, step_seconds: float, expected: int
) -> None:
    assert window_samples(n_samples, "trimmed", step_seconds) == expected


@pytest.mark.parametrize("step_seconds", [0.05, 0.33, 0.64, 1.0, 20.0])
def test_windows_are_whole_encoder_frames_that_hold_the_pair(step_seconds: float) -> None:
    for n_samples in range(1, WINDOW_SAMPLES + 1, 997):
        window = window_samples(n_samples, "trimmed", step_seconds)
        assert window % 320 == 0
        assert n_samples <= window <= WINDOW_SAMPLES
        assert window < n_samples + step_seconds * 16_000 + 320


@pytest.mark.parametrize("n_samples", [1, 256_000, 300_000])
def test_a_fixed_window_is_always_16_seconds(n_samples: int) -> None:
    assert window_samples(n_samples, "fixed", 0.64) == 16 * 16_000


def make_pairs(n_pairs: int = 50) -> list[Pair]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 6 * STEP, n_pairs)
    context = np.array([0.25, 0.75], np.float32)
    return [
        Pair(rng.random(n, dtype=np.float32) + 1, context, row, row % 2)
        for row, n in enumerate(lengths)
    ]


def make_batches(
    pairs: list[Pair], batch_size: int = 4, window: Literal["trimmed", "fixed"] = "trimmed"
) -> list[Batch]:
    return list(batched(iter(pairs), batch_size, window, 0.64))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_no_pair_is_lost_or_given_twice(batch_size: int) -> None:
    pairs = make_pairs()
    batches = make_batches(pairs, batch_size)
    assert Counter(int(row) for batch in batches for row in batch.rows) == Counter(range(50))
    assert max(len(batch) for batch in batches) <= batch_size


def test_a_batch_holds_pairs_of_one_window_length_with_silence_to_the_edge() -> None:
    pairs = make_pairs()
    for batch in make_batches(pairs):
        for line, row in enumerate(batch.rows.tolist()):
            pair, waveform = pairs[row], batch.waveforms[line].numpy()
            assert len(waveform) == window_samples(len(pair.waveform), "trimmed", 0.64)
            np.testing.assert_array_equal(waveform[: len(pair.waveform)], pair.waveform)
            assert not waveform[len(pair.waveform) :].any()
            assert batch.n_frames[line] == np.ceil(len(pair.waveform) / 320)
            assert batch.labels[line] == pair.label
            np.testing.assert_array_equal(batch.context[line], pair.context)


def test_only_left_over_batches_are_small_and_the_longest_of_them_comes_first() -> None:
    batches = make_batches(make_pairs())
    n_full = next(place for place, batch in enumerate(batches) if len(batch) < 4)
    assert n_full > 3
    rest = [batch.waveforms.shape[1] for batch in batches[n_full:]]
    assert rest == sorted(set(rest), reverse=True)


def test_the_order_of_the_batches_follows_from_the_order_of_the_pairs() -> None:
    pairs = make_pairs()
    rows = [[batch.rows.tolist() for batch in make_batches(some)] for some in (pairs, list(pairs))]
    assert rows[0] == rows[1]
    # A batch is given when it is full: what comes later does not change it.
    assert [batch.rows.tolist() for batch in make_batches(pairs[:30])][:3] == rows[0][:3]


def test_fixed_windows_make_batches_in_the_order_of_the_pairs() -> None:
    batches = make_batches(make_pairs(10), window="fixed")
    assert [batch.rows.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert all(batch.waveforms.shape[1] == WINDOW_SAMPLES for batch in batches)


def test_a_batch_moves_as_a_whole() -> None:
    batch = make_batches(make_pairs(4), window="fixed")[0].to(torch.device("meta"))
    assert {value.device.type for value in vars(batch).values()} == {"meta"}


@pytest.mark.parametrize(
    ("task", "grade", "expected"),
    [
        ("deletion", "KG", (0, 0)),
        ("blending", "1", (0.25, 0.25)),
        ("nonword_repetition", "2", (0.5, 0.5)),
        ("sentence_repetition", "3", (0.75, 0.75)),
    ],
)
def test_task_and_grade_are_ids_divided_by_4(
    task: str, grade: str, expected: tuple[float, float]
) -> None:
    context = encode_context(task, grade)
    np.testing.assert_array_equal(context, expected)
    assert context.dtype == np.float32


@dataclass
class Sounds:
    """References or recordings: constant waveforms, each of another length and level."""

    level: float
    lengths: dict[str, int] = field(default_factory=dict)

    def waveform(self, name: str) -> np.ndarray:
        return np.full(self.lengths[name], self.level * (1 + len(name)), np.float32)

    get = waveform

    def n_samples(self, name: str) -> int:
        return self.lengths[name]


TEXTS = ("a", "bb", "ccc", "a")


def make_source(labels: np.ndarray | None = None) -> PairSource:
    names = [f"{number}.wav" for number in range(4)]
    metadata = pd.DataFrame(
        {"filename": names, "task": "blending", "expected_text": TEXTS, "grade": list("1231")}
    )
    references: Any = Sounds(0.1, {"a": 100, "bb": 200, "ccc": 300})
    store: Any = Sounds(-0.1, {name: 50 + 10 * number for number, name in enumerate(names)})
    return PairSource(metadata, references, store, labels)


def pairs_of(learners: list[int], texts: list[int], **options: Any) -> dict[tuple[int, int], Pair]:
    source = make_source(np.array([1, 0, 1, 1], np.float32))
    dataset = PairDataset(source, np.array(learners), np.array(texts), **options)
    return {
        (learner, text): dataset[index]
        for index, (learner, text) in enumerate(zip(learners, texts, strict=True))
    }


def test_a_pair_is_the_reference_of_the_text_and_the_row_s_learner() -> None:
    source = make_source()
    for (learner, text), pair in pairs_of([0, 1, 1], [0, 1, 2]).items():
        np.testing.assert_array_equal(
            pair.waveform, join(source.reference(text), source.learner(learner))
        )
        np.testing.assert_array_equal(pair.context, source.contexts[learner])
        assert pair.row == learner
    assert [source.n_samples(row) for row in range(len(source))] == [150, 260, 370, 180]


def test_a_learner_with_another_row_s_text_has_the_label_0() -> None:
    labels = {key: pair.label for key, pair in pairs_of([0, 1, 2, 0, 2], [0, 1, 2, 1, 0]).items()}
    assert labels == {(0, 0): 1, (1, 1): 0, (2, 2): 1, (0, 1): 0, (2, 0): 0}


def test_without_labels_they_are_nan() -> None:
    rows = np.arange(4)
    dataset = PairDataset(make_source(), rows, rows)
    assert len(dataset) == 4
    assert all(np.isnan(dataset[row].label) for row in range(4))


NOISE, GAIN = Augmentation(noise=1.0), Augmentation(gain=1.0)


def test_randomness_follows_from_seeds_and_row_and_not_from_the_order() -> None:
    options = {"augmentations": (GAIN, NOISE), "seeds": (7, 1)}
    one = pairs_of([0, 1, 2, 0], [0, 1, 2, 2], **options)
    other = pairs_of([2, 0, 0, 1], [2, 2, 0, 1], **options)
    assert one.keys() == other.keys()
    for key, pair in one.items():
        np.testing.assert_array_equal(pair.waveform, other[key].waveform)
    next_epoch = pairs_of([0], [0], augmentations=(GAIN, NOISE), seeds=(7, 2))
    assert not np.array_equal(next_epoch[0, 0].waveform, one[0, 0].waveform)


def test_reference_and_learner_have_an_augmentation_each() -> None:
    plain, augmented = (
        pairs_of([0], [0], **options)[0, 0].waveform
        for options in ({}, {"augmentations": (GAIN, NOISE), "seeds": (7, 1)})
    )
    ratio = augmented[:100] / plain[:100]
    assert 0.7 <= ratio[0] <= 1.3
    assert ratio[0] != 1
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
    assert 0.02 < (augmented[100:] - plain[100:]).std() < 0.04


def test_the_row_s_own_randomness_is_not_another_row_s() -> None:
    options = {"augmentations": (Augmentation(), NOISE), "seeds": (7, 1)}
    noises = [
        pair.waveform[100:150] - pair.waveform[100:150].mean()
        for pair in pairs_of([0, 3], [0, 3], **options).values()
    ]
    assert abs(np.corrcoef(noises)[0, 1]) < 0.5
