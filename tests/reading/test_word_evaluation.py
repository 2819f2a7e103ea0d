"""Tests of the comparison of word scores with the experts' labels."""

import numpy as np
import pandas as pd
import pytest

from hearback.reading.evaluation import ReadingOutOfFold
from hearback.reading.word_evaluation import by_age, compare, describe_training_labels
from hearback.reading.word_labels import ReadWords, WordLabels

TEXTS = {"a": "the big cat", "b": "a dog", "c": "one bird", "d": "no labels"}
ROWS = pd.DataFrame(
    {"filename": list(TEXTS), "expected_text": list(TEXTS.values()), "grade": ["KG", "3", "3", "1"]}
)
SAID = np.array([[0.9, 0.2, 0.6], [0.8, 0.4, np.nan], [0.1, 0.9, np.nan], [0.5, 0.5, np.nan]])
CLIPS = np.array([0.1, 0.4, 0.3, 0.5])


def scored(text: str, shares: list[float], accuracies: list[float]) -> ReadWords:
    words = tuple(text.split())
    known = (np.array(shares, np.float32), np.array(accuracies, np.float32))
    return ReadWords(words, known[0], known[1], ("",) * len(words))


LABELS = WordLabels(
    {
        "a": scored(TEXTS["a"], [1.0, 0.2, 1.0], [9, 3, 8]),
        "b": scored(TEXTS["b"], [0.6, 0.8], [7, 8]),
        "c": scored("one word", [1.0, 1.0], [10, 10]),  # the expected text was changed
    }
)


def test_words_of_texts_that_were_read_are_compared() -> None:
    found = compare(ROWS, SAID, CLIPS, LABELS)
    assert found is not None
    assert (found["words"], found["wrong"]) == (5, 1)
    assert found["AUC"] == 1.0
    assert (found["precision"], found["recall"]) == (0.5, 1.0)  # "big" and "dog" are below 0.5
    expected = np.corrcoef([0.9, 0.2, 0.6, 0.8, 0.4], [9, 3, 8, 7, 8])[0, 1]
    assert found["word r"] == pytest.approx(expected)
    assert found["clip r"] == pytest.approx(1.0)  # two clips, the lower one with lower accuracies


def test_without_scores_of_experts_there_is_no_correlation() -> None:
    labels = WordLabels({"a": ReadWords.of(TEXTS["a"].split(), [1.0, 0.2, 1.0])})
    found = compare(ROWS, SAID, CLIPS, labels)
    assert found is not None
    assert np.isnan([found["word r"], found["clip r"]]).all()
    assert found["AUC"] == 1.0


def test_words_that_are_all_right_have_no_recall() -> None:
    labels = WordLabels({"b": LABELS.by_filename["b"]})
    found = compare(ROWS, np.full_like(SAID, 0.9), CLIPS, labels)
    assert found is not None
    assert np.isnan([found["AUC"], found["precision"], found["recall"]]).all()


def test_ages_have_a_line_where_they_have_labels() -> None:
    table = by_age(ROWS, SAID, CLIPS, LABELS)
    assert table["words"].to_dict() == {"all": 5, "KG and 1": 3}
    assert by_age(ROWS, SAID, CLIPS, WordLabels()).empty


def trained(*records: dict[str, object] | None) -> ReadingOutOfFold:
    recipe = {"uses_word_labels": True}
    metadata = {at: {"recipe": recipe, "word_labels": each} for at, each in enumerate(records)}
    return ReadingOutOfFold("modeltok", 3, pd.DataFrame(), metadata)


def test_other_labels_than_those_of_the_training_are_said() -> None:
    same, other = LABELS.record(), {"digest": "another", "words": 9, "recordings": 3}
    without = replace_recipe(trained(same), uses_word_labels=False)
    cases = (
        (
            trained(same, same),
            LABELS,
            "modeltok was trained with labels of 7 words in 3 recordings",
        ),
        (trained(other), LABELS, "9 words in 3 recordings, other ones than the training table has"),
        (trained(same, other), LABELS, "other ones in some folds than in others: train.py trains"),
        (trained(same), WordLabels({}), "; the training table has none now, so that labels of"),
        (trained(None), WordLabels({}), "modeltok was trained with no labels of words"),
    )
    for table, own, expected in cases:
        (line,) = describe_training_labels([table], own)
        assert expected in line
    assert not line.endswith("now") and not list(describe_training_labels([without], LABELS))


def replace_recipe(table: ReadingOutOfFold, **recipe: bool) -> ReadingOutOfFold:
    metadata = {at: {**each, "recipe": recipe} for at, each in table.metadata_by_fold.items()}
    return ReadingOutOfFold(table.model, table.n_folds, table.rows, metadata)
