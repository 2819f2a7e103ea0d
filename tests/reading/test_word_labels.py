"""Labels of words: the targets of texts, and where training uses them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hearback.engine.data.problems import BadInputError
from hearback.engine.training.task import FoldRun
from hearback.engine.whisper.tokenizer import TextTokenizer
from hearback.reading import training
from hearback.reading.dataset import TrainingData
from hearback.reading.options import TrainingOptions
from hearback.reading.pairs import Example, HardNegativeText, PairDataset
from hearback.reading.steps import check_models
from hearback.reading.trained import read_trained
from hearback.reading.window_batches import UNKNOWN
from hearback.reading.word_labels import ReadWords, WordLabels, describe
from tests.reading.quick_recipes import QUICK_LOW, QUICK_TOKENS

WORDS = replace(QUICK_TOKENS, name="modeltokw", uses_word_labels=True, word_loss=0.1)


def read_words(text: str, *shares: float) -> ReadWords:
    words = tuple(text.split())
    return ReadWords.of(words, np.array(shares or [1.0] * len(words), np.float32))


@pytest.mark.parametrize(
    ("text", "said", "complete"),
    [
        ("the big dog ran", [0.9, 0.5, 1.0, 0.2], [1, 1, 1, 1, 1]),
        ("the pig dog ran", [0.9, 0.0, 1.0, 0.2], [1, 1, 1, 1, 1]),  # substitute
        ("the dog ran", [0.9, 1.0, 0.2], [1, 0, 1, 1]),  # omit
        ("big dog ran", [0.5, 1.0, 0.2], [0, 1, 1, 1]),
        ("the big dog", [0.9, 0.5, 1.0], [1, 1, 1, 0]),
        ("the big old dog ran", [0.9, 0.5, 0.0, 1.0, 0.2], [1, 1, 1, 1, 1, 1]),  # insert
        ("the big dog dog ran", [0.9, 0.5, 1.0, 0.0, 0.2], [1, 1, 1, 1, 1, 1]),  # repeated
        ("the pig ran", [0.9, 0.0, 0.2], [1, 1, 0, 1]),  # two words became one
        ("cat", [0.0], [1, 0]),
        ("", [], [0]),
    ],
)
def test_targets_of_a_text_are_those_of_the_words_that_align(
    text: str, said: Sequence[float], complete: Sequence[float]
) -> None:
    targets = read_words("the big dog ran", 0.9, 0.5, 1.0, 0.2).targets(text)
    np.testing.assert_allclose(targets.said, said, rtol=1e-6)
    assert targets.complete.tolist() == complete
    assert targets.said.dtype == targets.complete.dtype == np.float32


def test_each_of_several_equal_words_has_a_share_of_its_own() -> None:
    read = read_words("no no no yes", 0.1, 0.2, 0.3, 1.0)
    np.testing.assert_allclose(read.targets("no no no yes").said, [0.1, 0.2, 0.3, 1.0])
    targets = read.targets("no no yes")
    assert targets.said[2] == 1 and (targets.said[:2] < 0.5).all()
    assert (targets.complete == 0).sum() == 1


@pytest.mark.parametrize(
    ("share", "probability"), [(1.0, 1.0), (0.0, 0.0), (0.5, 0.5), (0.8, 0.94208), (0.6, 0.68256)]
)
def test_the_majority_of_five_other_experts_decides(share: float, probability: float) -> None:
    assert read_words("cat", share).probability("cat") == pytest.approx(probability, abs=1e-6)


def test_all_words_of_a_text_must_be_accepted() -> None:
    read = read_words("the cat", 0.8, 0.6)
    assert read.probability("the cat") == pytest.approx(0.94208 * 0.68256, abs=1e-6)
    assert read.probability("the hat") == 0
    assert read.probability("the") == 0  # a word that was read is missing
    assert read.probability("the cat sat") == 0


def test_the_digest_changes_with_any_label_and_not_with_the_order() -> None:
    labels = WordLabels({"a": read_words("the cat", 1, 0.4), "b": read_words("dog")})
    other_order = WordLabels({name: labels.by_filename[name] for name in ("b", "a")})
    digest = labels.digest()
    assert digest is not None and len(digest) == 16
    assert other_order.digest() == digest
    others = [
        WordLabels({**labels.by_filename, "a": read_words("the cat", 1, 0.6)}),
        WordLabels({**labels.by_filename, "a": read_words("the hat", 1, 0.4)}),
        WordLabels({**labels.by_filename, "c": read_words("dog")}),
        labels.kept(["a"]),
    ]
    assert len({digest, *(other.digest() for other in others)}) == 5
    assert WordLabels().digest() is None


def test_the_record_is_json_with_the_numbers() -> None:
    labels = WordLabels({"a": read_words("the cat", 1, 0.4), "b": read_words("dog")})
    record = labels.record()
    assert record == {"digest": labels.digest(), "words": 3, "recordings": 2}
    assert json.loads(json.dumps(record)) == record
    assert describe(record) == "labels of 3 words in 2 recordings"
    assert WordLabels().record() is None
    assert describe(None) == "no labels of words"


def write_labels(options: TrainingOptions, shares: Mapping[str, float] | None = None) -> Path:
    """Label all words as read; `shares` are those of the words of a recording (default: 1)."""
    metadata = pd.read_csv(options.data / "train_metadata.csv", dtype=str)
    rows = [
        (row.filename, at, word, (shares or {}).get(row.filename, 1.0))
        for row in metadata.itertuples()
        for at, word in enumerate(row.expected_text.split())
    ]
    path = options.data / "train_words.csv"
    pd.DataFrame(rows, columns=["filename", "position", "word", "share"]).to_csv(path, index=False)
    return path


def test_a_corpus_without_a_table_has_no_labels(options: TrainingOptions) -> None:
    assert not options.load_data().word_labels


def test_the_data_have_the_labels_of_their_rows(options: TrainingOptions, tmp_path: Path) -> None:
    write_labels(options)
    data = options.load_data()
    assert set(data.word_labels.by_filename) == set(data.filenames)
    for text, filename in zip(data.source.texts, data.filenames, strict=True):
        read = data.word_labels.get(filename)
        assert read is not None and read.text == text
    limited = replace(options, limit=12).load_data()
    assert set(limited.word_labels.by_filename) == set(data.filenames[:12])
    path = tmp_path / "corrections.csv"
    path.write_text("filename,verdict,score,note\ntrain004.wav,unscorable,,\n")
    corrected = replace(options, corrections=path).load_data()
    assert corrected.word_labels.get("train004.wav") is None
    assert len(corrected.word_labels.by_filename) == len(data.filenames) - 1


def test_problems_of_recordings_that_are_left_out_are_discarded(
    options: TrainingOptions, tmp_path: Path
) -> None:
    path = write_labels(options)
    text = path.read_text()
    assert "train004.wav,0," in text
    path.write_text(text.replace("train004.wav,0,", "train004.wav,first,"))
    with pytest.raises(BadInputError, match="the position is 'first'"):
        options.load_data()
    corrections = tmp_path / "corrections.csv"
    corrections.write_text("filename,verdict,score,note\ntrain004.wav,unscorable,,\n")
    assert replace(options, corrections=corrections).load_data().word_labels


def test_a_table_that_cannot_be_read_is_said_before_anything_is_decoded(
    options: TrainingOptions,
) -> None:
    (options.data / "train_words.csv").write_text("filename,word,share\ntrain000.wav,the,1\n")
    with pytest.raises(BadInputError, match="the column 'position' is missing"):
        options.load_data()
    assert not options.store.exists()


def test_words_that_contradict_the_labels_are_a_warning(
    options: TrainingOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_labels(options)
    options.load_data()
    assert "train_words.csv" not in capsys.readouterr().out
    labels = pd.read_csv(options.data / "train_labels.csv")
    correct = labels["filename"][labels["score"] == 1]
    table = pd.read_csv(path)
    n_words = table.groupby("filename").size()
    name = next(name for name in correct if n_words[name] > 1)
    table.loc[table["filename"] == name, "word"] = [
        *table.loc[table["filename"] == name, "word"][:-1],
        "zebra",
    ]
    table.to_csv(path, index=False)
    options.load_data()
    assert "1 recording labelled 1, where other words were read" in capsys.readouterr().out


def pairs_of(data: TrainingData, example: Example, tokenizer: Path) -> Any:
    dataset = PairDataset(
        data.source,
        [example],
        "tokens",
        text_tokenizer=TextTokenizer(tokenizer),
        word_labels=data.word_labels,
    )
    return dataset[0]


def test_word_targets_are_the_labels_where_there_are_any(
    options: TrainingOptions, tokenizer: Path
) -> None:
    write_labels(options, {"train001.wav": 0.4})
    data = options.load_data()
    text = data.source.texts[1]
    other = HardNegativeText(f"{text} cat", np.ones(9, np.float32), np.ones(10, np.float32))
    pair = pairs_of(data, Example(1, text, 0.0, hard_negatives=(other,)), tokenizer)
    own, negative = pair.texts
    n_words = len(text.split())
    np.testing.assert_allclose(own.said, [0.4] * n_words)
    assert own.complete.tolist() == [1.0] * (n_words + 1)
    np.testing.assert_allclose(negative.said, [*[0.4] * n_words, 0.0])
    unlabelled = replace(data, word_labels=data.word_labels.kept(["train000.wav"]))
    pair = pairs_of(unlabelled, Example(1, text, 0.0, hard_negatives=(other,)), tokenizer)
    assert set(pair.texts[0].said) == set(pair.texts[0].complete) == {UNKNOWN}
    assert pair.texts[1].said.tolist() == [1.0] * 9


def task_of(options: TrainingOptions, recipe: Any, data: TrainingData) -> training.ReadingTask:
    return training.ReadingTask(FoldRun(options.adapt(recipe), 0, options, data))


def test_labels_reach_training_rows_only(options: TrainingOptions) -> None:
    write_labels(options)
    data = options.load_data()
    task = task_of(options, WORDS, data)
    train_rows = np.flatnonzero(data.folds != 0)
    assert set(task.word_labels.by_filename) == {data.filenames[row] for row in train_rows}
    assert not task_of(options, QUICK_TOKENS, data).word_labels


@pytest.mark.parametrize(
    "recipe",
    [
        replace(WORDS, read_texts=1.0, soft_labels=0.5, hard_negatives=0.0),
        replace(
            QUICK_LOW,
            learning_rate=1e-4,
            head_learning_rate=1e-4,
            uses_word_labels=True,
            word_loss=0.1,
            read_texts=0.5,
            soft_labels=1.0,
            hard_negatives=0.0,
        ),
    ],
    ids=["decoder", "low-rank"],
)
def test_a_fold_depends_on_the_words_of_training_rows_alone(
    options: TrainingOptions, recipe: Any
) -> None:
    data = options.load_data()
    held_out = [data.filenames[row] for row in np.flatnonzero(data.folds == 0)]
    trained = next(name for name in data.filenames if name not in held_out)
    losses = []
    for number, shares in enumerate(({}, dict.fromkeys(held_out, 0.2), {trained: 0.0})):
        write_labels(options, shares)
        there = replace(options, assets=options.assets / str(number))
        metadata = training.train_fold(recipe, 0, there, there.load_data())
        losses.append([epoch["validation_log_loss"] for epoch in metadata["epochs"]])
    first, other_validation, other_training = losses
    assert other_validation == first
    assert other_training != first


def test_only_recipes_that_use_labels_have_them_in_the_run_key(options: TrainingOptions) -> None:
    without = options.load_data()
    write_labels(options)
    with_labels = options.load_data()
    assert with_labels.fingerprint == without.fingerprint
    plain = options.run_key(QUICK_TOKENS, without)
    assert options.run_key(QUICK_TOKENS, with_labels) == plain
    assert "word_labels" not in plain
    for name in ("uses_word_labels", "read_texts", "soft_labels"):
        assert name not in QUICK_TOKENS.as_dict()
    assert options.run_key(WORDS, without)["word_labels"] is None
    assert options.run_key(WORDS, with_labels)["word_labels"] == with_labels.word_labels.record()
    write_labels(options, {"train000.wav": 0.6})
    assert options.run_key(WORDS, options.load_data()) != options.run_key(WORDS, with_labels)


def test_training_says_once_how_many_words_are_labelled(
    options: TrainingOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    options.load_data([WORDS])
    assert capsys.readouterr().out.endswith(
        "modeltokw: no labels of words (train_words.csv); only those of recordings\n"
    )
    write_labels(options)
    data = options.load_data([QUICK_TOKENS])
    assert "train_words.csv" not in capsys.readouterr().out
    options.load_data([WORDS, WORDS.with_seed(8), QUICK_TOKENS])
    n_words = sum(len(text.split()) for text in data.source.texts)
    assert capsys.readouterr().out.endswith(
        f"modeltokw, modeltokw_s8: labels of {n_words} words in 36 recordings of 36 "
        "(train_words.csv)\n"
    )


def test_check_models_says_how_many_words_were_labelled(
    options: TrainingOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labels(options)
    data = options.load_data()
    for recipe in (WORDS, QUICK_TOKENS):
        training.train_fold(replace(recipe, hard_negatives=0.0).with_epochs(1), 0, options, data)
    metadata = json.loads((options.assets / "modeltokw_0.json").read_text())
    assert metadata["word_labels"] == data.word_labels.record()
    assert "word_labels" not in json.loads((options.assets / "modeltok_0.json").read_text())
    capsys.readouterr()
    check_models.show(read_trained(options.data, options.assets), options.assets)
    printed = capsys.readouterr().out
    n_words = data.word_labels.n_words
    line = f"modeltokw was trained with labels of {n_words} words in 36 recordings\n"
    assert printed.count(line) == 1
    assert "modeltok was trained with" not in printed


def test_words_weigh_more_where_they_have_labels() -> None:
    recipe = replace(WORDS, word_loss=0.02, labelled_word_loss=0.1)
    assert recipe.with_labels_of_words(has_labels=True).word_loss == 0.1
    assert recipe.with_labels_of_words(has_labels=False) == recipe
    assert WORDS.with_labels_of_words(has_labels=True) == WORDS
