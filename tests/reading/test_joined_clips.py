"""Several clips of one speaker as one example: which are drawn, what is heard, how one trains."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.wav import write_wav
from hearback.engine.errors import HearbackError
from hearback.engine.phones import layout
from hearback.engine.whisper.encoder import SAMPLES_PER_FRAME
from hearback.engine.whisper.tokenizer import TextTokenizer
from hearback.reading import training
from hearback.reading.augment import Augmentation
from hearback.reading.joined_clips import (
    LONGEST_PAUSE,
    ClipJoiner,
    JoinedClips,
    augment,
    draw_fixed,
    join_targets,
)
from hearback.reading.options import TrainingOptions
from hearback.reading.pairs import Example, HardNegativeText, PairDataset, PairSource
from hearback.reading.recipe import Recipe
from hearback.reading.sampler import EpochSampler
from hearback.reading.tables import GRADES, LONGEST_TEXT
from hearback.reading.window_batches import (
    LONGEST_WINDOW_SAMPLES,
    UNKNOWN,
    WINDOW_SAMPLES,
    Batch,
    Encoding,
)
from hearback.reading.word_labels import ReadWords, WordLabels, WordTargets
from tests.reading.quick_recipes import QUICK_GOP, QUICK_LOW, QUICK_TOKENS
from tests.toy import spoken

pytestmark = pytest.mark.usefixtures("letters_as_sounds")
TEXTS = ("the dog ran home", "a red hat", "boy", "toy", "the fat cat ran", "sunshine")
SHORTEST = 8 * SAMPLE_RATE
TOKENS = replace(QUICK_TOKENS, joined_clips=0.5, hard_negatives=1.0)


class Recordings:
    """A fake store: recording n has its own length, and all of its samples are n + 1."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self.lengths = [round(each * SAMPLE_RATE) for each in seconds]

    def n_samples(self, filename: str) -> int:
        return self.lengths[int(filename)]

    def get(self, filename: str) -> np.ndarray:
        return np.full(self.n_samples(filename), int(filename) + 1, np.float32)


def make_data(n_rows: int = 120, seconds: Sequence[float] | None = None) -> Any:
    """Rows of eight speakers in four folds, of 2 to 6 s; two of seven have label 0."""
    metadata = pd.DataFrame(
        {
            "filename": [str(row) for row in range(n_rows)],
            "task": [("blending", "deletion")[row // 8 % 2] for row in range(n_rows)],
            "expected_text": [TEXTS[row % len(TEXTS)] for row in range(n_rows)],
            "grade": [GRADES[row // 16 % 4] for row in range(n_rows)],
            "speaker": [f"s{row % 8}" for row in range(n_rows)],
        }
    )
    labels = np.array([row % 7 not in (1, 4) for row in range(n_rows)], np.float32)
    store: Any = Recordings(seconds or [2 + row % 5 for row in range(n_rows)])
    folds = np.arange(n_rows) % 8 // 2
    return SimpleNamespace(
        metadata=metadata,
        labels=labels,
        folds=folds,
        source=PairSource(metadata, None, store, labels),
        word_labels=WordLabels(),
        validation_rows=lambda fold: np.flatnonzero(folds == fold),
    )


def n_samples(data: Any, joined: JoinedClips) -> int:
    return sum(data.source.store.lengths[row] for row in joined.rows) + sum(joined.pauses)


def draw(data: Any, n: int = 200, rows: np.ndarray | None = None, seed: int = 0) -> Any:
    rows = np.arange(len(data.labels)) if rows is None else rows
    return ClipJoiner(data, rows).draw(n, np.random.default_rng(seed))


def test_clips_of_one_speaker_are_joined_to_8_to_30_s() -> None:
    data, rows = make_data(), np.arange(10, 120)
    drawn = draw(data, rows=rows)
    assert len(drawn) == 200
    for joined in drawn:
        assert len(joined.rows) == len(set(joined.rows)) == len(joined.pauses) + 1 >= 2
        assert set(joined.rows) <= set(rows.tolist())
        assert len({row % 8 for row in joined.rows}) == 1
        assert SHORTEST <= n_samples(data, joined) <= LONGEST_WINDOW_SAMPLES
        assert 0 <= min(joined.pauses) <= max(joined.pauses) <= LONGEST_PAUSE
    seconds = [n_samples(data, joined) / SAMPLE_RATE for joined in drawn]
    assert np.histogram(seconds, bins=[8, 13, 18, 23, 30])[0].min() > 10
    assert {row % 8 for joined in drawn for row in joined.rows} == set(range(8))


def test_about_half_are_all_correct_and_the_others_have_a_wrong_clip_anywhere() -> None:
    data = make_data()
    labels = [[data.labels[row] for row in joined.rows] for joined in draw(data)]
    assert np.mean([all(each) for each in labels]) == pytest.approx(0.5, abs=0.1)
    wrong = [each for each in labels if not all(each)]
    assert {each[0] for each in wrong} == {each[-1] for each in wrong} == {0.0, 1.0}


@pytest.mark.parametrize("label", [0, 1])
def test_clips_of_one_label_are_joined_all_the_same(label: int) -> None:
    data = make_data()
    data.labels[:] = label
    assert len(draw(data)) == 200


def test_draws_depend_on_the_seed_alone() -> None:
    data = make_data()
    assert draw(data) == draw(data)
    assert draw(data) != draw(data, seed=1)


def test_without_speakers_clips_of_one_task_and_grade_are_joined() -> None:
    data = make_data()
    data.metadata = data.metadata.drop(columns="speaker")
    drawn = draw(data)
    for joined in drawn:
        for column in ("task", "grade"):
            assert len(set(data.metadata[column].iloc[list(joined.rows)])) == 1
    assert any(len({row % 8 for row in joined.rows}) > 1 for joined in drawn)


def test_few_or_long_clips_make_what_they_can() -> None:
    few = make_data(16)  # two of each speaker
    assert all(len(joined.rows) == 2 for joined in draw(few))
    long = make_data(16, seconds=[*[25] * 8, *[4] * 8])
    assert all(len(joined.rows) == 2 for joined in draw(long))


def test_texts_fit_into_the_decoder() -> None:
    data = make_data(80, seconds=[1.0] * 80)
    data.source.texts = ["supercalifragilistic " * 3 + "dog"] * 80  # 66 bytes a second
    drawn = draw(data)
    longest = max(len(joined.text(data.source.texts)) for joined in drawn)
    assert LONGEST_TEXT - 67 < longest <= LONGEST_TEXT


@pytest.mark.parametrize("seconds", [[3.0] * 8, [16.0] * 24], ids=["one each", "too long"])
def test_clips_that_cannot_be_joined_are_an_error(seconds: list[float]) -> None:
    data = make_data(len(seconds), seconds)
    with pytest.raises(HearbackError, match=r"two clips that fit into 30 s.*joined_clips=0"):
        draw(data)


def test_those_of_all_folds_are_of_one_fold_each() -> None:
    data = make_data()
    joined = draw_fixed(TOKENS, data)
    assert len(joined) == 60
    assert joined == draw_fixed(TOKENS, data)
    of_fold = [{int(data.folds[row]) for row in each.rows} for each in joined]
    assert all(len(folds) == 1 for folds in of_fold)
    assert set.union(*of_fold) == {0, 1, 2, 3}
    # What a fold trains on does not depend on the labels that it is validated with.
    before = [each for each, folds in zip(joined, of_fold, strict=True) if folds != {2}]
    data.labels[data.folds == 2] = 1
    after = draw_fixed(TOKENS, data)
    assert [each for each in after if data.folds[each.rows[0]] != 2] == before
    assert after != joined
    assert draw_fixed(QUICK_TOKENS, data) == ()


def test_what_is_heard_are_the_clips_with_pauses() -> None:
    data = make_data(seconds=[row % 3 / 1000 for row in range(120)])
    joined = JoinedClips((2, 10, 1), (3, 0))
    heard = joined.waveform(data.source.learner)
    assert heard.dtype == np.float32
    assert heard.tolist() == [*[3] * 32, 0, 0, 0, *[11] * 16, *[2] * 16]
    assert joined.text(data.source.texts) == "boy the fat cat ran a red hat"


@pytest.mark.parametrize(
    ("end", "start", "border"),
    [(1, 1, 1), (1, 0, 0), (0, UNKNOWN, 0), (UNKNOWN, 1, UNKNOWN), (0.5, 1, 0.5)],
)
def test_targets_are_joined_with_one_border(end: float, start: float, border: float) -> None:
    def targets(said: list[float], complete: list[float]) -> WordTargets:
        return WordTargets(np.array(said, np.float32), np.array(complete, np.float32))

    parts = [targets([1, 0.2], [1, 0, end]), targets([UNKNOWN], [start, 1]), targets([0], [1, 1])]
    said, complete = join_targets(parts)
    np.testing.assert_allclose(said, [1, 0.2, UNKNOWN, 0])
    assert complete.tolist() == [1, 0, border, 1, 1]
    assert said.dtype == complete.dtype == np.float32


def test_an_augmentation_that_does_not_fit_is_drawn_again() -> None:
    waveform = np.ones(28 * SAMPLE_RATE, np.float32)
    slower = Augmentation(speed=1.0, speed_low=0.7, speed_high=1.1)
    lengths = {len(augment(slower, waveform, np.random.default_rng(seed))) for seed in range(20)}
    assert len(lengths) == 20
    assert max(lengths) <= LONGEST_WINDOW_SAMPLES
    always = replace(slower, speed_high=0.7)
    assert augment(always, waveform, np.random.default_rng(0)) is waveform


def sample(data: Any, recipe: Recipe = TOKENS, seed: int = 0) -> list[Example]:
    sampler = EpochSampler(recipe, data, np.flatnonzero(data.folds != 0))
    return sampler.sample_epoch(np.random.default_rng(seed))


def test_an_epoch_has_joined_clips_with_their_texts_and_labels() -> None:
    data = make_data()
    joined = [example for example in sample(data) if example.joined is not None]
    assert len(joined) == 45  # half of 90 rows
    for each in joined:
        assert each.joined is not None
        rows = each.joined.rows
        assert each.row == rows[0] and not each.is_negative
        assert 0 not in data.folds[list(rows)]
        assert each.text == " ".join(data.source.texts[row] for row in rows)
        assert each.label == data.labels[list(rows)].prod()
        assert len(each.hard_negatives) == each.label  # one, if it is correct
        for negative in each.hard_negatives:
            assert negative.text != each.text
            assert (negative.said == 0).sum() + (negative.complete == 0).sum() == 1
    without = sample(data, replace(TOKENS, hard_negatives=0.0))
    assert not any(each.hard_negatives for each in without)
    assert [each.joined for each in sample(data, seed=1)] != [each.joined for each in sample(data)]


def test_their_labels_are_products_of_soft_ones() -> None:
    data = make_data()
    read = ReadWords.of(("the", "dog", "ran", "home"), np.array([1, 0.8, 1, 1], np.float32))
    data.word_labels = WordLabels({str(row): read for row in range(0, 120, 6)})
    recipe = replace(TOKENS, uses_word_labels=True, soft_labels=0.5)
    softened = 1 - 0.5 * (1 - read.probability("the dog ran home"))
    for each in sample(data, recipe):
        if each.joined is not None and (data.labels[list(each.joined.rows)] == 1).all():
            n_labelled = sum(row % 6 == 0 for row in each.joined.rows)
            assert each.label == pytest.approx(softened**n_labelled)


def test_without_joined_clips_an_epoch_is_what_it_was() -> None:
    data = make_data()
    plain = sample(data, replace(TOKENS, joined_clips=0.0))
    assert all(example.joined is None for example in plain)
    again = [example for example in sample(data) if example.joined is None]
    assert sorted(each.row for each in again) == sorted(each.row for each in plain)


def test_epochs_of_encoded_recordings_have_those_of_the_training_folds() -> None:
    data = make_data()
    recipe = replace(QUICK_LOW, joined_clips=0.5)
    expected = {each for each in draw_fixed(recipe, data) if data.folds[each.rows[0]] != 0}
    for seed in (0, 1):
        epoch = [each.joined for each in sample(data, recipe, seed) if each.joined is not None]
        assert set(epoch) == expected


def make_pair(data: Any, example: Example, tokenizer: Path, **options: Any) -> Any:
    options["text_tokenizer"] = TextTokenizer(tokenizer)
    return PairDataset(data.source, [example], "tokens", **options)[0]


JOINED = JoinedClips((2, 10, 1), (160, 0))  # 4, 2 and 3 s; row 1 is wrong
BOY_CAT_HAT = "boy the fat cat ran a red hat"


def test_a_pair_of_joined_clips_is_heard_whole(tokenizer: Path) -> None:
    data = make_data(seconds=[9.0] * 120)
    example = Example(2, BOY_CAT_HAT, 0.0, joined=JOINED)
    pair = make_pair(data, example, tokenizer)
    np.testing.assert_array_equal(pair.waveform, JOINED.waveform(data.source.learner))
    assert pair.n_samples > WINDOW_SAMPLES  # a single clip is cut there
    assert (pair.row, pair.label) == (2, 0.0)
    gain = Augmentation(gain=1.0, gain_low=0.5, gain_high=0.5)
    quieter = make_pair(data, example, tokenizer, augmentations=(Augmentation(), gain))
    np.testing.assert_allclose(quieter.waveform, 0.5 * pair.waveform)


def test_their_words_have_the_targets_of_each_clip(tokenizer: Path) -> None:
    data = make_data()
    (text,) = make_pair(data, Example(2, BOY_CAT_HAT, 0.0, joined=JOINED), tokenizer).texts
    assert text.tokenized.n_words == 8
    assert text.said.tolist() == [1] * 5 + [UNKNOWN] * 3
    assert text.complete.tolist() == [1] * 5 + [UNKNOWN] * 4
    read = ReadWords.of(("a", "red", "big", "hat"), np.array([0.2, 1, 1, 0.8], np.float32))
    labels = WordLabels({"1": read})
    example = Example(2, BOY_CAT_HAT, 0.0, joined=JOINED)
    (text,) = make_pair(data, example, tokenizer, word_labels=labels).texts
    np.testing.assert_allclose(text.said, [1, 1, 1, 1, 1, 0.2, 1, 0.8])
    assert text.complete.tolist() == [1, 1, 1, 1, 1, 1, 1, 0, 1]


def test_their_hard_negatives_have_the_targets_of_the_words_that_were_read(
    tokenizer: Path,
) -> None:
    data, joined = make_data(), JoinedClips((2, 10), (0,))
    said = np.array([1, 1, 0, 1, 1], np.float32)
    negative = HardNegativeText("boy the big cat ran", said, np.ones(6, np.float32))
    example = Example(2, "boy the fat cat ran", 1.0, hard_negatives=(negative,), joined=joined)
    _, text = make_pair(data, example, tokenizer).texts
    assert text.said.tolist() == said.tolist()
    labels = WordLabels({"10": ReadWords.of(("the", "fat", "cat", "ran"), said[:4] * 0.5 + 0.4)})
    _, text = make_pair(data, example, tokenizer, word_labels=labels).texts
    np.testing.assert_allclose(text.said, [1, 0.9, 0, 0.4, 0.9])  # "big" was not read


def test_an_encoded_pair_has_a_version_of_the_joined_clips(tokenizer: Path) -> None:
    asked = []

    class Encoded:
        n_augmented = 3

        def get(self, clip: int | JoinedClips, version: int) -> Encoding:
            asked.append((clip, version))
            return Encoding(np.zeros((1000, 4), np.float16), 990)

    data = make_data()
    data.source = data.source.with_encoded(Encoded())
    example = Example(2, BOY_CAT_HAT, 0.0, joined=JOINED)
    augmentations = (Augmentation(), Augmentation())
    pair = make_pair(data, example, tokenizer, augmentations=augmentations)
    assert pair.n_samples == 1000 * 320
    assert asked[0][0] == JOINED and asked[0][1] in (1, 2, 3)


def write_long(options: TrainingOptions) -> None:
    """Replace the recordings of the corpus by ones of 5 s, of which each speaker has four."""
    table = pd.read_csv(options.data / "train_metadata.csv")
    for name, text in zip(table["filename"], table["expected_text"], strict=True):
        write_wav(options.data / name, np.resize(spoken(text), 5 * SAMPLE_RATE), SAMPLE_RATE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", [QUICK_TOKENS, QUICK_LOW, QUICK_GOP], ids=lambda recipe: recipe.name
)
def test_a_fold_trains_with_joined_clips(
    options: TrainingOptions, phones: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    write_long(options)
    shutil.copytree(phones, options.assets / layout.NAME)
    batches: list[tuple[float, int]] = []
    compute_logits = training.ReadingTask.compute_logits

    def recorded(self: Any, model: Any, batch: Batch) -> Any:
        frames = batch.waveforms if batch.frames is None else batch.frames
        samples_each = 1 if batch.frames is None else SAMPLES_PER_FRAME
        batches.append((frames.shape[1] * samples_each / SAMPLE_RATE, len(batch)))
        return compute_logits(self, model, batch)

    monkeypatch.setattr(training.ReadingTask, "compute_logits", recorded)
    recipe = replace(recipe, joined_clips=0.5, augment_learner=Augmentation(gain=0.5))
    data = options.load_data()
    metadata = training.train_fold(recipe.with_epochs(1), 0, options, data)
    n_rows = len(data.training_rows(0))
    n_joined = sum(round(0.5 * len(data.validation_rows(fold))) for fold in (1, 2))
    assert sum(n for _, n in batches) == n_rows + n_joined
    assert max(seconds for seconds, _ in batches) > 16
    assert max(seconds * n for seconds, n in batches) <= 16 * recipe.batch_size
    assert metadata["recipe"]["joined_clips"] == 0.5
    assert np.isfinite(metadata["epochs"][-1]["validation_log_loss"])
