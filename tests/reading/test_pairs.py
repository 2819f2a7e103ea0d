"""Pairs of every pairing, and their batches by window length."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import pytest
import torch

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.whisper.tokenizer import TextTokenizer, TokenizedText
from hearback.reading.augment import Augmentation
from hearback.reading.pairs import (
    Example,
    HardNegativeText,
    PairDataset,
    Pairing,
    PairSource,
    encode_context,
    join,
)
from hearback.reading.window_batches import (
    LONGEST_WINDOW_SAMPLES,
    UNKNOWN,
    WINDOW_SAMPLES,
    Batch,
    LabelledText,
    Pair,
    batch_by_window,
    collate,
    collate_texts,
    window_samples,
)

STEP = 10_240  # samples in 0.64 s


def test_the_reference_comes_first() -> None:
    reference, learner = np.ones(3, np.float32), np.zeros(2, np.float32)
    joined = join(reference, learner)
    np.testing.assert_array_equal(joined, [1, 1, 1, 0, 0])
    assert joined.dtype == np.float32


@pytest.mark.parametrize("n_reference", [200_000, 256_000, 300_000])
def test_a_joined_pair_is_cut_at_16_seconds(n_reference: int) -> None:
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
    return list(batch_by_window(iter(pairs), batch_size, window, 0.64))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_every_pair_is_in_exactly_one_batch(batch_size: int) -> None:
    pairs = make_pairs()
    batches = make_batches(pairs, batch_size)
    assert Counter(int(row) for batch in batches for row in batch.rows) == Counter(range(50))
    assert max(len(batch) for batch in batches) <= batch_size


def test_a_batch_has_pairs_of_one_window_length_with_zero_padding() -> None:
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


def test_only_remaining_batches_are_small_and_the_longest_comes_first() -> None:
    batches = make_batches(make_pairs())
    n_full = next(index for index, batch in enumerate(batches) if len(batch) < 4)
    assert n_full > 3
    rest = [batch.waveforms.shape[1] for batch in batches[n_full:]]
    assert rest == sorted(set(rest), reverse=True)


def test_the_order_of_the_batches_depends_only_on_that_of_the_pairs() -> None:
    pairs = make_pairs()
    rows = [[batch.rows.tolist() for batch in make_batches(some)] for some in (pairs, list(pairs))]
    assert rows[0] == rows[1]
    # A batch is yielded as soon as it is full: later pairs do not change it.
    assert [batch.rows.tolist() for batch in make_batches(pairs[:30])][:3] == rows[0][:3]


def test_fixed_windows_are_batched_in_the_order_of_the_pairs() -> None:
    batches = make_batches(make_pairs(10), window="fixed")
    assert [batch.rows.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert all(batch.waveforms.shape[1] == WINDOW_SAMPLES for batch in batches)


@pytest.mark.parametrize("fill", [False, True])
def test_batches_of_long_windows_hold_no_more_seconds_than_those_of_16_s(fill: bool) -> None:
    context, rng = np.zeros(2, np.float32), np.random.default_rng(0)
    lengths = rng.integers(1, LONGEST_WINDOW_SAMPLES + 1, 120)
    pairs = [Pair(np.ones(n, np.float32), context, row) for row, n in enumerate(lengths)]
    batches = list(
        batch_by_window(pairs, 4, "trimmed", 3.0, longest=LONGEST_WINDOW_SAMPLES, fill=fill)
    )
    assert Counter(int(row) for batch in batches for row in batch.rows) == Counter(range(120))
    sizes: dict[int, set[int]] = {}
    for batch in batches:
        n_pairs, window = batch.waveforms.shape
        assert n_pairs * window <= 4 * WINDOW_SAMPLES
        assert batch.n_frames.tolist() == [np.ceil(lengths[row] / 320) for row in batch.rows]
        sizes.setdefault(window, set()).add(n_pairs)
    assert max(sizes[LONGEST_WINDOW_SAMPLES]) == 2
    assert max(n_pairs for each in sizes.values() for n_pairs in each) == 4


def make_text(tokens_of_words: Sequence[int], target: float = UNKNOWN) -> LabelledText:
    """A text with the given number of tokens per word, after a prompt of two."""
    n_words = len(tokens_of_words)
    words = np.repeat(np.arange(n_words + 1), [*tokens_of_words, 1])
    tokens = np.array([90, 91, *(10 * len(words) + np.arange(len(words) - 1)), 99])
    said = np.full(n_words, target, np.float32)
    return LabelledText(
        TokenizedText(tokens, words), said, np.full(n_words + 1, target, np.float32)
    )


def test_all_tensors_of_a_batch_move_to_the_device() -> None:
    pairs = [
        replace(pair, reference=pair.waveform, texts=(make_text((1, 2)),)) for pair in make_pairs(4)
    ]
    batch = make_batches(pairs, window="fixed")[0].to(torch.device("meta"))
    assert batch.texts is not None
    values = {**vars(batch), **vars(batch.texts)}
    devices = {
        name: value.device.type for name, value in values.items() if isinstance(value, torch.Tensor)
    }
    assert devices.pop("rows") == "cpu"  # read by the host only
    assert len(devices) == 15 and set(devices.values()) == {"meta"}
    assert batch.texts.n_prompt == 2


def test_expected_texts_come_first_and_clips_index_the_recordings() -> None:
    a, b, c, d, e = (make_text([n]) for n in (1, 2, 3, 4, 5))
    texts = collate_texts([(a, d), (b,), (c, e, a)])
    assert texts.clips.tolist() == [0, 1, 2, 0, 2, 2]
    assert texts.n_targets.tolist() == [2, 3, 4, 5, 6, 2]
    for line, text in enumerate((a, b, c, d, e, a)):
        assert texts.tokens[line, : len(text.tokenized.tokens)].tolist() == list(
            text.tokenized.tokens
        )


def test_texts_are_padded_with_the_end_of_text() -> None:
    texts = collate_texts([[make_text((2, 1), target=1)], [make_text((1,), target=0)]])
    assert texts.n_prompt == 2
    assert texts.tokens.tolist() == [[90, 91, 40, 41, 42, 99], [90, 91, 20, 99, 99, 99]]
    assert texts.n_targets.tolist() == [4, 2]
    assert texts.word_ids.tolist() == [[0, 0, 1, 2], [0, 1, 1, 1]]
    assert texts.n_words.tolist() == [2, 1]
    assert texts.said.tolist() == [[1, 1], [0, UNKNOWN]]
    assert texts.complete.tolist() == [[1, 1, 1], [0, 0, UNKNOWN]]
    assert texts.tokens.dtype == texts.word_ids.dtype == torch.int64


def test_a_batch_has_references_and_texts_only_where_its_pairs_have() -> None:
    plain = make_pairs(2)
    batch = collate(plain, WINDOW_SAMPLES)
    assert batch.references is batch.n_reference_frames is batch.texts is None
    assert not batch.is_negative.any()
    apart = [
        replace(pair, reference=-pair.waveform[:500], is_negative=bool(pair.row)) for pair in plain
    ]
    batch = collate(apart, WINDOW_SAMPLES)
    assert batch.references is not None and batch.n_reference_frames is not None
    torch.testing.assert_close(batch.references[:, :500], -batch.waveforms[:, :500])
    assert not batch.references[:, 500:].any()
    assert batch.n_reference_frames.tolist() == [2, 2]
    assert batch.is_negative.tolist() == [False, True]


def test_a_window_holds_the_longer_of_learner_and_reference() -> None:
    context = np.zeros(2, np.float32)
    short, long = np.ones(100, np.float32), np.ones(STEP + 1, np.float32)
    for waveform, reference in ((short, long), (long, short)):
        (batch,) = make_batches([Pair(waveform, context, 0, reference=reference)])
        assert batch.references is not None
        assert batch.waveforms.shape == batch.references.shape == (1, 2 * STEP)


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
    """Fake references or recordings: constant waveforms of different lengths and levels."""

    level: float
    lengths: dict[str, int] = field(default_factory=dict)

    def waveform(self, name: str) -> np.ndarray:
        return np.full(self.lengths[name], self.level * (1 + len(name)), np.float32)

    get = waveform

    def n_samples(self, name: str) -> int:
        return self.lengths[name]


TEXTS = ("a", "bb b", "ccc", "a")
NAMES = tuple(f"{number}.wav" for number in range(4))
LABELS = np.array([1, 0, 1, 1], np.float32)


def make_source(labels: np.ndarray | None = LABELS, seconds: int = 0) -> PairSource:
    metadata = pd.DataFrame(
        {"filename": NAMES, "task": "blending", "expected_text": TEXTS, "grade": list("1231")}
    )
    more = 16_000 * seconds
    lengths = {"a": 100 + more, "bb b": 200 + more, "ccc": 300 + more}
    references: Any = Sounds(0.1, lengths)
    recordings = {name: 50 + 10 * number + more for number, name in enumerate(NAMES)}
    store: Any = Sounds(-0.1, recordings)
    return PairSource(metadata, references, store, labels)


EXAMPLES = (Example(0, "a", 1.0), Example(1, "bb b", 0.0), Example(1, "ccc", 0.0, is_negative=True))


def pairs_of(
    pairing: Pairing = "joined", examples: Sequence[Example] = EXAMPLES, **options: Any
) -> list[Pair]:
    dataset = PairDataset(make_source(), examples, pairing, **options)
    assert len(dataset) == len(examples)
    return [dataset[index] for index in range(len(examples))]


def test_a_joined_pair_is_the_reference_of_the_text_and_the_row_s_learner() -> None:
    source = make_source()
    for example, pair in zip(EXAMPLES, pairs_of("joined"), strict=True):
        reference, learner = source.references.waveform(example.text), source.learner(example.row)
        np.testing.assert_array_equal(pair.waveform, join(reference, learner))
        assert pair.reference is None
        assert pair.texts == ()
        assert pair.n_samples == len(reference) + len(learner)


def test_an_aligned_pair_has_learner_and_reference_separately() -> None:
    source = make_source()
    for example, pair in zip(EXAMPLES, pairs_of("aligned"), strict=True):
        np.testing.assert_array_equal(pair.waveform, source.learner(example.row))
        np.testing.assert_array_equal(pair.reference, source.references.waveform(example.text))
        assert pair.texts == ()
        assert pair.n_samples == source.references.n_samples(example.text)


def test_a_tokens_pair_is_the_learner_and_the_tokenized_text(
    tokenizer: Path,
) -> None:
    source, text_tokenizer = make_source(), TextTokenizer(tokenizer)
    for example, pair in zip(
        EXAMPLES, pairs_of("tokens", text_tokenizer=text_tokenizer), strict=True
    ):
        np.testing.assert_array_equal(pair.waveform, source.learner(example.row))
        assert pair.reference is None
        (text,) = pair.texts
        np.testing.assert_array_equal(
            text.tokenized.tokens, text_tokenizer.encode(example.text).tokens
        )
        np.testing.assert_array_equal(
            text.tokenized.word_ids, text_tokenizer.encode(example.text).word_ids
        )


@pytest.mark.parametrize("pairing", ["joined", "aligned", "tokens"])
def test_a_pair_has_the_row_label_and_context_of_its_example(
    pairing: Pairing, tokenizer: Path
) -> None:
    contexts = make_source().contexts
    for example, pair in zip(
        EXAMPLES, pairs_of(pairing, text_tokenizer=TextTokenizer(tokenizer)), strict=True
    ):
        assert (pair.row, pair.label, pair.is_negative) == (
            example.row,
            example.label,
            example.is_negative,
        )
        np.testing.assert_array_equal(pair.context, contexts[example.row])


@pytest.mark.parametrize("pairing", ["aligned", "tokens"])
def test_separate_waveforms_are_cut_at_16_seconds_each(pairing: Pairing, tokenizer: Path) -> None:
    dataset = PairDataset(
        make_source(seconds=17), EXAMPLES, pairing, text_tokenizer=TextTokenizer(tokenizer)
    )
    pair = dataset[1]
    assert len(pair.waveform) == pair.n_samples == WINDOW_SAMPLES
    assert pair.reference is None or len(pair.reference) == WINDOW_SAMPLES


def test_n_samples_is_known_before_the_pair_is_built() -> None:
    source = make_source()
    rows = range(len(source))
    assert [source.n_samples(row, "joined") for row in rows] == [150, 260, 370, 180]
    assert [source.n_samples(row, "aligned") for row in rows] == [100, 200, 300, 100]
    assert [source.n_samples(row, "tokens") for row in rows] == [50, 60, 70, 80]


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
@pytest.mark.parametrize("pairing", ["joined", "aligned", "tokens"])
def test_with_speeds_changes_learners_and_not_references(pairing: Pairing, speed: float) -> None:
    source = make_source().with_speeds([speed] * 4)
    for row, text in enumerate(source.texts):
        learner, reference = source.learner(row), source.references.waveform(text)
        assert len(learner) == round((50 + 10 * row) / speed)
        assert len(reference) == len(make_source().references.waveform(text))
        expected = {
            "joined": len(reference) + len(learner),
            "aligned": max(len(reference), len(learner)),
            "tokens": len(learner),
        }
        assert source.n_samples(row, pairing) == expected[pairing]
    assert source.with_speeds([1.0] * 4).n_samples(0, "tokens") == 50


def test_each_grade_has_a_speed_of_its_own() -> None:
    source = make_source().with_speeds([0.6, 0.8, 1.0, 1.25])  # KG, 1, 2, 3
    assert [source.speed_of(row) for row in range(len(source))] == [0.8, 1.0, 1.25, 0.8]


@pytest.mark.parametrize(
    ("seconds", "speed"), [(10, 0.8), (14, 14 / 16), (15.999, 15.999 / 16), (16, 1), (20, 1)]
)
def test_slowing_down_stops_at_the_window_s_length(seconds: float, speed: float) -> None:
    source = make_source().with_speeds([0.8] * 4)
    n_samples = round(SAMPLE_RATE * seconds)
    source.store = cast(Any, Sounds(-0.1, dict.fromkeys(NAMES, n_samples)))
    assert source.speed_of(0) == pytest.approx(speed)
    expected = min(n_samples / speed, max(n_samples, WINDOW_SAMPLES))
    assert source.n_samples(0, "tokens") == len(source.learner(0)) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("label", [1.0, 0.0, float("nan")])
def test_word_targets_are_known_for_correct_clips_only(label: float, tokenizer: Path) -> None:
    (pair,) = pairs_of(
        "tokens", [Example(1, "bb b", label)], text_tokenizer=TextTokenizer(tokenizer)
    )
    target = 1.0 if label == 1 else UNKNOWN
    assert pair.texts[0].said.tolist() == [target] * 2
    assert pair.texts[0].complete.tolist() == [target] * 3


def test_hard_negatives_are_texts_of_the_same_recording(tokenizer: Path) -> None:
    text_tokenizer = TextTokenizer(tokenizer)
    said, complete = np.array([1, 0], np.float32), np.array([1, 1, 0], np.float32)
    example = Example(1, "bb b", 1.0, hard_negatives=(HardNegativeText("bb c", said, complete),))
    (pair,) = pairs_of("tokens", [example], text_tokenizer=text_tokenizer)
    own, other = pair.texts
    np.testing.assert_array_equal(own.tokenized.tokens, text_tokenizer.encode("bb b").tokens)
    np.testing.assert_array_equal(other.tokenized.tokens, text_tokenizer.encode("bb c").tokens)
    assert other.said.tolist() == [1, 0]
    assert other.complete.tolist() == [1, 1, 0]


def test_labels_are_nan_without_labels() -> None:
    source = make_source(labels=None)
    assert np.isnan(source.labels).all()
    assert np.isnan(PairDataset(source, [Example(0, "a")], "joined")[0].label)


NOISE, GAIN = Augmentation(noise=1.0), Augmentation(gain=1.0)


def test_augmentation_depends_only_on_seeds_and_index() -> None:
    options: dict[str, Any] = {"augmentations": (GAIN, NOISE)}
    one, again = (pairs_of(seeds=(7, 1), **options) for _ in range(2))
    other = pairs_of(seeds=(7, 2), **options)
    for pair, same, different in zip(one, again, other, strict=True):
        np.testing.assert_array_equal(pair.waveform, same.waveform)
        assert not np.array_equal(pair.waveform, different.waveform)
    twice = pairs_of(examples=EXAMPLES[:1] * 2, seeds=(7, 1), **options)
    np.testing.assert_array_equal(twice[0].waveform, one[0].waveform)
    noises = [pair.waveform[100:] - pair.waveform[100:].mean() for pair in twice]
    assert abs(np.corrcoef(noises)[0, 1]) < 0.5  # one clip at two indices


@pytest.mark.parametrize("pairing", ["joined", "aligned", "tokens"])
def test_reference_and_learner_have_separate_augmentations(
    pairing: Pairing, tokenizer: Path
) -> None:
    text_tokenizer = TextTokenizer(tokenizer)
    (plain,), (augmented,) = (
        pairs_of(pairing, EXAMPLES[:1], text_tokenizer=text_tokenizer, **options)
        for options in ({}, {"augmentations": (GAIN, NOISE), "seeds": (7, 1)})
    )
    learners = [pair.waveform[-50:] for pair in (augmented, plain)]
    assert 0.02 < (learners[0] - learners[1]).std() < 0.04
    if pairing == "tokens":
        return
    references = [
        pair.waveform[:100] if pair.reference is None else pair.reference
        for pair in (augmented, plain)
    ]
    ratio = references[0] / references[1]
    assert 0.7 <= ratio[0] <= 1.3
    assert ratio[0] != 1
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
