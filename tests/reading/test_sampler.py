"""What an epoch is made of, beside every clip with its own text."""

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
from hearback.reading.sampler import EpochSampler, other_text
from hearback.reading.tables import GRADES
from train_model1m import RECIPE as JOINED
from train_modeltok import RECIPE as TOKENS

TEXTS = ("the dog ran home", "a red hat", "boy", "toy", "the fat cat ran", "sunshine")
PLAIN_JOINED = replace(JOINED, negatives=0.0, hard_negatives=0.0)
PLAIN_TOKENS = replace(TOKENS, negatives=0.0, hard_negatives=0.0)


@pytest.fixture(autouse=True)
def spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let letters be sounds: quick, and no voice's package is needed."""
    monkeypatch.setattr("hearback.reading.hard_negatives.hibari_pronounce", lambda: str.lower)


def make_data(folder: Path | None = None, n_rows: int = 48) -> Any:
    """Rows of two tasks; two of seven are wrong."""
    texts = [TEXTS[row % len(TEXTS)] for row in range(n_rows)]
    tasks = ["deletion" if row % len(TEXTS) in (2, 3, 5) else "blending" for row in range(n_rows)]
    return SimpleNamespace(
        source=SimpleNamespace(texts=texts, references=SimpleNamespace(folder=folder)),
        labels=np.array([row % 7 not in (1, 4) for row in range(n_rows)], np.float32),
        metadata=pd.DataFrame({"task": tasks, "grade": [GRADES[row % 4] for row in range(n_rows)]}),
    )


def draw(
    recipe: Recipe, data: Any, rows: np.ndarray | None = None, seed: int = 0
) -> tuple[list[Example], list[Example]]:
    """Return the clips' own examples and those that were put to them."""
    rows = np.arange(len(data.labels)) if rows is None else rows
    examples = EpochSampler(recipe, data, rows).draw(np.random.default_rng(seed))
    for each in examples:
        assert each.is_negative == (each.text != data.source.texts[each.row])
    return [d for d in examples if not d.is_negative], [d for d in examples if d.is_negative]


@pytest.mark.parametrize("recipe", [PLAIN_JOINED, PLAIN_TOKENS], ids=["joined", "tokens"])
def test_every_clip_of_the_fold_comes_once_with_its_own_text_and_label(recipe: Recipe) -> None:
    data, rows = make_data(), np.array([0, 1, 4, 7, 30, 31])
    own, added = draw(recipe, data, rows)
    assert sorted(d.row for d in own) == rows.tolist()
    assert {d.row: d.label for d in own} == {int(row): data.labels[row] for row in rows}
    assert not added
    assert not any(d.others or d.is_negative for d in own)


@pytest.mark.parametrize("recipe", [PLAIN_JOINED, TOKENS], ids=["joined", "tokens"])
def test_grades_come_as_often_as_the_recipe_draws_them(recipe: Recipe) -> None:
    data = make_data(n_rows=400)
    own, _ = draw(replace(recipe, repeats_by_grade=(3.0, 1.5, 1.0, 0.25)), data)
    times = Counter(d.row for d in own)
    by_grade = {g: [times[row] for row in range(at, 400, 4)] for at, g in enumerate(GRADES)}
    assert set(by_grade["KG"]) == {3}
    assert set(by_grade["2"]) == {1}
    assert set(by_grade["1"]) == {1, 2}
    assert np.mean(by_grade["1"]) == pytest.approx(1.5, abs=0.15)
    assert set(by_grade["3"]) == {0, 1}
    assert np.mean(by_grade["3"]) == pytest.approx(0.25, abs=0.15)


def test_a_clip_that_comes_twice_has_a_near_miss_each_time() -> None:
    data = make_data()
    own, _ = draw(replace(TOKENS, hard_negatives=1.0, repeats_by_grade=(2.0, 2.0, 2.0, 2.0)), data)
    assert {len(d.others) for d in own if d.label == 1} == {1}
    assert not any(d.others for d in own if d.label == 0)
    assert len(own) == 2 * len(data.labels)


def test_a_grade_that_is_drawn_less_than_never_is_refused() -> None:
    with pytest.raises(HearbackError, match="repeats_by_grade"):
        replace(TOKENS, repeats_by_grade=(1.0, 1.0, 1.0, 0.0))


def test_draws_come_in_random_order() -> None:
    orders = [[d.row for d in draw(PLAIN_TOKENS, make_data(), seed=seed)[0]] for seed in (0, 1)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


@pytest.mark.parametrize("share", [0.5, 2.0])
@pytest.mark.parametrize("recipe", [JOINED, PLAIN_TOKENS], ids=["joined", "tokens"])
def test_negatives_are_correct_clips_with_other_texts_of_their_task(
    recipe: Recipe, share: float
) -> None:
    data = make_data()
    own, negatives = draw(replace(recipe, negatives=share), data)
    assert len(own) == len(data.labels)
    n_correct = int(data.labels.sum())
    # A text that is drawn for a clip that says it is left out: about one in three here.
    assert 0.4 * share * n_correct < len(negatives) <= share * n_correct + 1
    task_of = dict(zip(data.source.texts, data.metadata["task"], strict=True))
    for negative in negatives:
        assert data.labels[negative.row] == 1
        assert negative.label == 0
        assert not negative.others
        assert task_of[negative.text] == data.metadata["task"][negative.row]


def test_negatives_take_only_clips_and_texts_of_the_fold() -> None:
    data, rows = make_data(), np.array([1, 4, 6, 7, 12, 13, 25, 10])
    _, negatives = draw(replace(JOINED, negatives=9.0), data, rows)
    assert negatives
    assert {n.row for n in negatives} <= set(rows.tolist())
    assert {n.text for n in negatives} == {"the dog ran home", "a red hat", "the fat cat ran"}


@pytest.mark.parametrize("share", [0.25, 1.0, 2.0])
def test_a_model_that_reads_reads_near_misses_of_correct_clips(share: float) -> None:
    data = make_data()
    own, added = draw(replace(PLAIN_TOKENS, hard_negatives=share), data)
    assert not added  # they are read beside the clip's own text
    counts = Counter({d.row: len(d.others) for d in own})
    assert not any(counts[row] for row in np.flatnonzero(data.labels == 0).tolist())
    n_correct = int(data.labels.sum())
    assert counts.total() == round(share * n_correct)
    of_correct = [counts[row] for row in np.flatnonzero(data.labels == 1).tolist()]
    assert max(of_correct) - min(of_correct) <= (share % 1 > 0)
    for each in own:
        for other in each.others:
            assert other.text != each.text
            assert len(other.said) == len(other.text.split())
            assert len(other.complete) == len(other.said) + 1
            assert (other.said == 0).sum() + (other.complete == 0).sum() == 1


def test_one_word_texts_have_near_misses_of_one_word() -> None:
    data = make_data()
    own, _ = draw(replace(PLAIN_TOKENS, hard_negatives=3.0), data)
    near = {
        text: {other.text for d in own if d.text == text for other in d.others}
        for text in ("boy", "sunshine")
    }
    assert all(near.values())
    for text, others in near.items():
        assert text not in others
        assert all(len(other.split()) == 1 for other in others)
    assert "toy" in near["boy"]


def test_a_text_of_which_there_is_no_near_miss_goes_without() -> None:
    data = make_data()
    data.source.texts[0] = "?!"
    own, _ = draw(replace(PLAIN_TOKENS, hard_negatives=1.0), data)
    others = {d.row: d.others for d in own}
    assert data.labels[0] == 1 and others[0] == ()
    assert others[2]


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
def test_a_model_that_listens_hears_near_misses_that_were_rendered(
    tmp_path: Path, pair: str
) -> None:
    table, data = write_table(tmp_path), make_data(tmp_path)
    recipe = PLAIN_JOINED.with_settings([f"pair={pair}", "hard_negatives=2"])
    own, added = draw(recipe, data)
    assert len(own) == len(data.labels)
    assert not any(d.others for d in own)
    correct = [row for row in np.flatnonzero(data.labels == 1) if data.source.texts[row] in table]
    assert Counter(d.row for d in added) == Counter(dict.fromkeys(correct, 2))
    for near in added:
        assert near.label == 0
        assert near.text in {made.text for made in table[data.source.texts[near.row]]}
    assert {d.text for d in added} == {made.text for several in table.values() for made in several}


def test_a_recipe_with_near_misses_that_were_not_rendered_says_what_to_run(tmp_path: Path) -> None:
    recipe = replace(PLAIN_JOINED, hard_negatives=1.0)
    with pytest.raises(HearbackError, match=r"python preprocess\.py .*--hard_negatives"):
        EpochSampler(recipe, make_data(tmp_path), np.arange(4))
    # Without them in the recipe nothing is looked for.
    assert draw(PLAIN_JOINED, make_data(tmp_path))[0]


@pytest.mark.parametrize("pair", ["joined", "tokens"])
def test_an_epoch_s_draws_follow_from_its_random_numbers(tmp_path: Path, pair: str) -> None:
    write_table(tmp_path)
    data = make_data(tmp_path)
    base = TOKENS if pair == "tokens" else JOINED
    recipe = replace(base, negatives=0.5, hard_negatives=1.0)
    sampler, again = (EpochSampler(recipe, data, np.arange(48)) for _ in range(2))

    def epoch(of: EpochSampler, seed: int) -> list[tuple[int, str, bool, list[str]]]:
        examples = of.draw(np.random.default_rng(seed))
        return [
            (d.row, d.text, d.is_negative, [other.text for other in d.others]) for d in examples
        ]

    first = epoch(sampler, 0)
    assert epoch(sampler, 1) != first
    assert epoch(sampler, 0) == first  # whatever was drawn before
    assert epoch(again, 0) == first


def test_a_fold_without_correct_clips_has_only_its_own_draws() -> None:
    data = make_data()
    rows = np.flatnonzero(data.labels == 0)
    own, added = draw(replace(TOKENS, negatives=1.0, hard_negatives=1.0), data, rows)
    assert len(own) == len(rows)
    assert not added
    assert not any(d.others for d in own)


@pytest.mark.parametrize(
    ("near", "said", "complete"),
    [
        (HardNegative("the hog ran", "substitute", (1,)), [1, 0, 1], [1, 1, 1, 1]),
        (HardNegative("dog ran", "omit", (), 0), [1, 1], [0, 1, 1]),
        (HardNegative("the dog", "omit", (), 2), [1, 1], [1, 1, 0]),
        (HardNegative("the dog ran off", "insert", (3,)), [1, 1, 1, 0], [1, 1, 1, 1, 1]),
        (HardNegative("toy", "neighbour", (0,)), [0], [1, 1]),
        (HardNegative("bay now", "respell", (0, 1), 1), [0, 0], [1, 0, 1]),
    ],
)
def test_of_a_near_miss_it_is_known_which_words_are_wrong_and_where_one_is_missing(
    near: HardNegative, said: list[float], complete: list[float]
) -> None:
    other = other_text(near)
    assert other.text == near.text
    assert other.said.tolist() == said
    assert other.complete.tolist() == complete
    assert other.said.dtype == other.complete.dtype == np.float32
