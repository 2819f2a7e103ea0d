"""The examples of an epoch: clips with their own texts, negatives and hard negatives."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hearback.engine.errors import HearbackError
from hearback.reading.hard_negatives import HardNegative, write_hard_negatives
from hearback.reading.pairs import Example
from hearback.reading.recipe import Recipe
from hearback.reading.sampler import EpochSampler, hard_negative_text
from hearback.reading.tables import GRADES
from hearback.reading.word_labels import ReadWords, WordLabels
from tests.reading.quick_recipes import UNLABELLED
from train_model1m import RECIPE as JOINED
from train_modeltok import RECIPE as LABELLED

TEXTS = ("the dog ran home", "a red hat", "boy", "toy", "the fat cat ran", "sunshine")
PLAIN_JOINED = replace(JOINED, negatives=0.0, hard_negatives=0.0)
TOKENS = replace(LABELLED, **UNLABELLED)
PLAIN_TOKENS = replace(TOKENS, negatives=0.0, hard_negatives=0.0)


@pytest.fixture(autouse=True)
def spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use letters as phonemes: fast, and without a voice's package."""
    monkeypatch.setattr(
        "hearback.reading.hard_negatives.generator.hibari_pronounce", lambda: str.lower
    )


def make_data(folder: Path | None = None, n_rows: int = 48) -> Any:
    """Rows of two tasks; two of seven have label 0."""
    texts = [TEXTS[row % len(TEXTS)] for row in range(n_rows)]
    tasks = ["deletion" if row % len(TEXTS) in (2, 3, 5) else "blending" for row in range(n_rows)]
    return SimpleNamespace(
        source=SimpleNamespace(texts=texts, references=SimpleNamespace(folder=folder)),
        labels=np.array([row % 7 not in (1, 4) for row in range(n_rows)], np.float32),
        metadata=pd.DataFrame({"task": tasks, "grade": [GRADES[row % 4] for row in range(n_rows)]}),
    )


def sample(
    recipe: Recipe, data: Any, rows: np.ndarray | None = None, seed: int = 0
) -> tuple[list[Example], list[Example]]:
    """Return the examples with their own text, and the negatives."""
    rows = np.arange(len(data.labels)) if rows is None else rows
    examples = EpochSampler(recipe, data, rows).sample_epoch(np.random.default_rng(seed))
    for each in examples:
        assert each.is_negative == (each.text != data.source.texts[each.row])
    own = [example for example in examples if not example.is_negative]
    return own, [example for example in examples if example.is_negative]


@pytest.mark.parametrize("recipe", [PLAIN_JOINED, PLAIN_TOKENS], ids=["joined", "tokens"])
def test_an_epoch_has_every_clip_once_with_its_text_and_label(recipe: Recipe) -> None:
    data, rows = make_data(), np.array([0, 1, 4, 7, 30, 31])
    own, added = sample(recipe, data, rows)
    assert sorted(example.row for example in own) == rows.tolist()
    assert {example.row: example.label for example in own} == {
        int(row): data.labels[row] for row in rows
    }
    assert not added
    assert not any(example.hard_negatives or example.is_negative for example in own)


@pytest.mark.parametrize("recipe", [PLAIN_JOINED, TOKENS], ids=["joined", "tokens"])
def test_clips_repeat_by_grade(recipe: Recipe) -> None:
    data = make_data(n_rows=400)
    own, _ = sample(replace(recipe, repeats_by_grade=(3.0, 1.5, 1.0, 0.25)), data)
    times = Counter(example.row for example in own)
    by_grade = {g: [times[row] for row in range(at, 400, 4)] for at, g in enumerate(GRADES)}
    assert set(by_grade["KG"]) == {3}
    assert set(by_grade["2"]) == {1}
    assert set(by_grade["1"]) == {1, 2}
    assert np.mean(by_grade["1"]) == pytest.approx(1.5, abs=0.15)
    assert set(by_grade["3"]) == {0, 1}
    assert np.mean(by_grade["3"]) == pytest.approx(0.25, abs=0.15)


def test_each_repeat_of_a_clip_has_a_hard_negative() -> None:
    data = make_data()
    own, _ = sample(
        replace(TOKENS, hard_negatives=1.0, repeats_by_grade=(2.0, 2.0, 2.0, 2.0)), data
    )
    assert {len(example.hard_negatives) for example in own if example.label == 1} == {1}
    assert not any(example.hard_negatives for example in own if example.label == 0)
    assert len(own) == 2 * len(data.labels)


def test_repeats_must_be_positive() -> None:
    with pytest.raises(HearbackError, match="repeats_by_grade"):
        replace(TOKENS, repeats_by_grade=(1.0, 1.0, 1.0, 0.0))


def test_examples_are_in_random_order() -> None:
    orders = [
        [example.row for example in sample(PLAIN_TOKENS, make_data(), seed=seed)[0]]
        for seed in (0, 1)
    ]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


@pytest.mark.parametrize("share", [0.5, 2.0])
@pytest.mark.parametrize("recipe", [JOINED, PLAIN_TOKENS], ids=["joined", "tokens"])
def test_negatives_are_correct_clips_with_other_texts_of_their_task(
    recipe: Recipe, share: float
) -> None:
    data = make_data()
    own, negatives = sample(replace(recipe, negatives=share), data)
    assert len(own) == len(data.labels)
    n_correct = int(data.labels.sum())
    # A sampled text that equals the clip's own is dropped: about one in three here.
    assert 0.4 * share * n_correct < len(negatives) <= share * n_correct + 1
    task_of = dict(zip(data.source.texts, data.metadata["task"], strict=True))
    for negative in negatives:
        assert data.labels[negative.row] == 1
        assert negative.label == 0
        assert not negative.hard_negatives
        assert task_of[negative.text] == data.metadata["task"][negative.row]


def test_negatives_use_only_clips_and_texts_of_the_fold() -> None:
    data, rows = make_data(), np.array([1, 4, 6, 7, 12, 13, 25, 10])
    _, negatives = sample(replace(JOINED, negatives=9.0), data, rows)
    assert negatives
    assert {n.row for n in negatives} <= set(rows.tolist())
    assert {n.text for n in negatives} == {"the dog ran home", "a red hat", "the fat cat ran"}


@pytest.mark.parametrize("share", [0.25, 1.0, 2.0])
def test_token_scorers_have_hard_negatives_of_correct_clips(share: float) -> None:
    data = make_data()
    own, added = sample(replace(PLAIN_TOKENS, hard_negatives=share), data)
    assert not added  # they are scored on the clip's own recording
    counts = Counter({example.row: len(example.hard_negatives) for example in own})
    assert not any(counts[row] for row in np.flatnonzero(data.labels == 0).tolist())
    n_correct = int(data.labels.sum())
    assert counts.total() == round(share * n_correct)
    of_correct = [counts[row] for row in np.flatnonzero(data.labels == 1).tolist()]
    assert max(of_correct) - min(of_correct) <= (share % 1 > 0)
    for each in own:
        for negative in each.hard_negatives:
            assert negative.text != each.text
            assert len(negative.said) == len(negative.text.split())
            assert len(negative.complete) == len(negative.said) + 1
            assert (negative.said == 0).sum() + (negative.complete == 0).sum() == 1


def test_one_word_texts_have_hard_negatives_of_one_word() -> None:
    data = make_data()
    own, _ = sample(replace(PLAIN_TOKENS, hard_negatives=3.0), data)
    negatives = {
        text: {
            negative.text
            for example in own
            if example.text == text
            for negative in example.hard_negatives
        }
        for text in ("boy", "sunshine")
    }
    assert all(negatives.values())
    for text, of_text in negatives.items():
        assert text not in of_text
        assert all(len(negative.split()) == 1 for negative in of_text)
    assert "toy" in negatives["boy"]


def test_a_text_without_a_possible_hard_negative_has_none() -> None:
    data = make_data()
    data.source.texts[0] = "?!"
    own, _ = sample(replace(PLAIN_TOKENS, hard_negatives=1.0), data)
    negatives = {example.row: example.hard_negatives for example in own}
    assert data.labels[0] == 1 and negatives[0] == ()
    assert negatives[2]


def write_table(folder: Path) -> dict[str, tuple[HardNegative, ...]]:
    table: dict[str, tuple[HardNegative, ...]] = {
        "the dog ran home": (
            HardNegative("the hog ran home", "substitute", (1,)),
            HardNegative("the dog home", "omit", (), 2),
        ),
        "boy": (HardNegative("toy", "neighbour", (0,)),),
    }
    write_hard_negatives(table, folder)
    return table


@pytest.mark.parametrize("pair", ["joined", "aligned"])
def test_models_with_references_use_rendered_hard_negatives(tmp_path: Path, pair: str) -> None:
    table, data = write_table(tmp_path), make_data(tmp_path)
    recipe = PLAIN_JOINED.with_settings([f"pair={pair}", "hard_negatives=2"])
    own, added = sample(recipe, data)
    assert len(own) == len(data.labels)
    assert not any(example.hard_negatives for example in own)
    correct = [row for row in np.flatnonzero(data.labels == 1) if data.source.texts[row] in table]
    assert Counter(example.row for example in added) == Counter(dict.fromkeys(correct, 2))
    for negative in added:
        assert negative.label == 0
        texts = {entry.text for entry in table[data.source.texts[negative.row]]}
        assert negative.text in texts
    expected = {entry.text for entries in table.values() for entry in entries}
    assert {example.text for example in added} == expected


def test_missing_rendered_hard_negatives_are_an_error_with_the_command(tmp_path: Path) -> None:
    recipe = replace(PLAIN_JOINED, hard_negatives=1.0)
    with pytest.raises(HearbackError, match=r"python preprocess\.py .*--hard_negatives"):
        EpochSampler(recipe, make_data(tmp_path), np.arange(4))
    # A recipe without them does not need the table.
    assert sample(PLAIN_JOINED, make_data(tmp_path))[0]


@pytest.mark.parametrize("pair", ["joined", "tokens"])
def test_an_epoch_depends_only_on_its_random_generator(tmp_path: Path, pair: str) -> None:
    write_table(tmp_path)
    data = make_data(tmp_path)
    base = TOKENS if pair == "tokens" else JOINED
    recipe = replace(base, negatives=0.5, hard_negatives=1.0)
    sampler, again = (EpochSampler(recipe, data, np.arange(48)) for _ in range(2))

    def epoch(of: EpochSampler, seed: int) -> list[tuple[int, str, bool, list[str]]]:
        examples = of.sample_epoch(np.random.default_rng(seed))
        return [
            (
                example.row,
                example.text,
                example.is_negative,
                [negative.text for negative in example.hard_negatives],
            )
            for example in examples
        ]

    first = epoch(sampler, 0)
    assert epoch(sampler, 1) != first
    assert epoch(sampler, 0) == first  # independent of earlier epochs
    assert epoch(again, 0) == first


def with_words(data: Any) -> Any:
    """Add labels: rows 0 to 11 were read as expected, 12 to 23 had another text; others have none.

    Each word has the share 0.8.
    """
    names = [f"{row}.wav" for row in range(len(data.labels))]
    texts = [f"{text} twice" if row >= 12 else text for row, text in enumerate(data.source.texts)]
    read = {
        name: ReadWords.of(tuple(text.split()), np.full(len(text.split()), 0.8, np.float32))
        for name, text in zip(names[:24], texts[:24], strict=True)
    }
    data.source.filenames, data.word_labels = names, WordLabels(read)
    return data


def epoch_of(recipe: Recipe, data: Any, rows: np.ndarray | None = None) -> list[Example]:
    rows = np.arange(len(data.labels)) if rows is None else rows
    return EpochSampler(recipe, data, rows).sample_epoch(np.random.default_rng(0))


def test_read_texts_are_added_where_another_text_is_expected() -> None:
    data = with_words(make_data())
    recipe = replace(PLAIN_TOKENS, uses_word_labels=True, read_texts=1.0)
    examples = epoch_of(recipe, data, np.arange(6, 48))
    added = [each for each in examples if each.text != data.source.texts[each.row]]
    assert sorted(each.row for each in added) == list(range(12, 24))
    for each in added:
        read = data.word_labels.get(f"{each.row}.wav")
        assert each.text == read.text
        assert each.label == pytest.approx(0.94208 ** len(read.words), rel=1e-5)
        assert not each.is_negative and not each.hard_negatives
    others = [each for each in examples if each.text == data.source.texts[each.row]]
    assert sorted(each.row for each in others) == list(range(6, 48))
    assert all(each.label == data.labels[each.row] for each in others)


def test_a_share_of_the_read_texts_is_added() -> None:
    data = with_words(make_data())
    counts = []
    for seed in range(40):
        recipe = replace(PLAIN_TOKENS, uses_word_labels=True, read_texts=0.25)
        sampler = EpochSampler(recipe, data, np.arange(48))
        counts.append(len(sampler.sample_epoch(np.random.default_rng(seed))) - 48)
    assert np.mean(counts) == pytest.approx(3, abs=1)


def test_read_texts_have_hard_negatives_where_the_recipe_does() -> None:
    data = with_words(make_data())
    recipe = replace(TOKENS, hard_negatives=1.0, uses_word_labels=True, read_texts=1.0)
    added = [each for each in epoch_of(recipe, data) if each.text != data.source.texts[each.row]]
    assert {len(each.hard_negatives) for each in added} == {1}
    assert all(each.hard_negatives[0].text != each.text for each in added)


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_labels_are_softened_by_what_the_experts_say(weight: float) -> None:
    data = with_words(make_data())
    recipe = replace(PLAIN_TOKENS, uses_word_labels=True, soft_labels=weight)
    examples = epoch_of(recipe, data)
    assert len(examples) == 48
    for each in examples:
        label = data.labels[each.row]
        if each.row < 24:
            n_words = len(each.text.split())
            # Of a text that was not read whole, experts would say that it was not said.
            probability = 0.94208**n_words if each.row < 12 else 0.0
            label = (1 - weight) * label + weight * probability
        assert each.label == pytest.approx(label, rel=1e-5)


def test_labels_of_words_change_nothing_for_recipes_that_do_not_use_them() -> None:
    recipe = replace(TOKENS, hard_negatives=1.0, negatives=0.5)

    def described(recipe: Recipe, data: Any) -> list[tuple[Any, ...]]:
        return [
            (each.row, each.text, each.label, [other.text for other in each.hard_negatives])
            for each in epoch_of(recipe, data)
        ]

    without = described(recipe, make_data())
    assert described(recipe, with_words(make_data())) == without
    # These only have other word targets (`pairs.PairDataset`).
    assert described(replace(recipe, uses_word_labels=True), with_words(make_data())) == without


def test_a_fold_without_correct_clips_has_no_negatives() -> None:
    data = make_data()
    rows = np.flatnonzero(data.labels == 0)
    own, added = sample(replace(TOKENS, negatives=1.0, hard_negatives=1.0), data, rows)
    assert len(own) == len(rows)
    assert not added
    assert not any(example.hard_negatives for example in own)


@pytest.mark.parametrize(
    ("negative", "said", "complete"),
    [
        (HardNegative("the hog ran", "substitute", (1,)), [1, 0, 1], [1, 1, 1, 1]),
        (HardNegative("dog ran", "omit", (), 0), [1, 1], [0, 1, 1]),
        (HardNegative("the dog", "omit", (), 2), [1, 1], [1, 1, 0]),
        (HardNegative("the dog ran off", "insert", (3,)), [1, 1, 1, 0], [1, 1, 1, 1, 1]),
        (HardNegative("toy", "neighbour", (0,)), [0], [1, 1]),
        (HardNegative("bay now", "respell", (0, 1), 1), [0, 0], [1, 0, 1]),
    ],
)
def test_a_hard_negative_has_targets_for_its_words(
    negative: HardNegative, said: list[float], complete: list[float]
) -> None:
    text = hard_negative_text(negative)
    assert text.text == negative.text
    assert text.said.tolist() == said
    assert text.complete.tolist() == complete
    assert text.said.dtype == text.complete.dtype == np.float32
