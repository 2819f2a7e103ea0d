"""Texts in another language are warned of; English ones, names and made-up words are not."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.other_languages import (
    ENGLISH,
    made_up_texts,
    read_sentences,
    share_of_tables,
    share_of_texts,
    without_accents,
)
from hearback.engine.data.problems import Problem, Report
from hearback.reading.corpora.sample_items import make_items
from hearback.reading.language_words import ENGLISH as ENGLISH_WORDS
from hearback.reading.language_words import OTHER_LANGUAGES
from hearback.reading.scoring.inputs import read_inputs
from hearback.reading.tables import read_metadata
from hearback.reading.text_language import OtherLanguage, find_other_language

TEXTS = read_sentences()
OTHERS = sorted(set(TEXTS) - {ENGLISH})
NAMES = """
    maria jose juan luis ana sofia mateo diego jean marie pierre luc chloe hans anna jonas til
    joao ines rui paolo gianni lia daan sanne piet mehmet ayse can deniz ewa jan kasia ola minh
    anh linh nam budi dewi siti lars sven maja olga ivan petra radu ioana aino matti zsofia bence
    amina juma zuri jhon rey wei ling yuki hiro priya arjun fatima omar sam tim tom jim ben kim ed
    al eva
"""


def warning(path: Path) -> list[Problem]:
    report = Report()
    read_inputs(path, None, report)
    return [each for each in report.problems if "another language" in each.what]


def table(tmp_path: Path, texts: list[str], task: str = "") -> Path:
    path = tmp_path / "table.csv"
    rows = "".join(f'{at}.wav,"{text}",{task}\n' for at, text in enumerate(texts))
    path.write_text(f"filename,text,task\n{rows}", encoding="utf-8")
    return path


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("change", [str, without_accents], ids=["accents", "plain"])
def test_a_table_in_another_language_is_found(language: str, change: Callable[[str], str]) -> None:
    texts = [change(text) for text in TEXTS[language]]
    assert find_other_language(texts).language == language
    assert share_of_tables(texts)[0] >= 0.95


def test_most_single_texts_are_found() -> None:
    texts = [text for language in OTHERS for text in TEXTS[language]]
    assert share_of_texts(texts) > 0.8
    assert share_of_texts([without_accents(text) for text in texts]) > 0.65


def test_english_texts_are_not() -> None:
    texts = [item.text for item in make_items(np.random.default_rng(0))] + TEXTS[ENGLISH]
    assert share_of_texts(texts) == 0
    assert not find_other_language(texts).indices


def test_made_up_words_and_names_are_not() -> None:
    names = NAMES.split()
    draw = random.Random(0)
    lists = [" ".join(draw.sample(names, 4)) for _ in range(300)]
    for texts in (*made_up_texts(1_000).values(), ["gub", "teefo", "dolk"], names, lists):
        assert share_of_texts(texts) == 0
        assert not find_other_language(texts).indices


def test_a_list_of_words_is_no_table_in_another_language() -> None:
    assert not find_other_language(["la", "casa", "perro", "escuela", "amigo", "hermano"]).indices


def test_the_row_in_another_language_is_named(tmp_path: Path) -> None:
    (found,) = warning(table(tmp_path, ["the cat sat", "¿Dónde está mi mochila azul?"]))
    assert found.what == (
        "1 of 2 texts looks like another language than English, probably Spanish; the first is "
        "'dónde está mi mochila azul'"
    )
    assert (found.row, found.filename, found.severity) == (3, "1.wav", "warning")


def test_a_single_text_is_not_counted(tmp_path: Path) -> None:
    (found,) = warning(table(tmp_path, ["¿Dónde está mi mochila azul?"]))
    assert found.what.startswith(
        "the text 'dónde está mi mochila azul' looks like another language"
    )


def test_a_table_has_one_warning_with_its_language(tmp_path: Path) -> None:
    texts = ["the cat sat", "the cat sat", *TEXTS["German"], "Hund"]
    (found,) = warning(table(tmp_path, texts))
    assert found.what.startswith(
        "13 of 15 texts look like another language than English, probably German; the first is "
    )
    assert found.row == 4


def test_a_recording_with_its_text_is_warned_of(clip_with_text: Path) -> None:
    (found,) = warning(clip_with_text)
    assert found.filename == "clip.wav"


@pytest.fixture
def clip_with_text(tmp_path: Path) -> Path:
    (tmp_path / "clip.wav").write_bytes(b"RIFF")
    (tmp_path / "clip.txt").write_text("Il gatto dorme sulla sedia")
    return tmp_path / "clip.wav"


@pytest.mark.parametrize("task", ["nonword_repetition", "Non-word repetition"])
def test_made_up_words_by_task_are_in_no_language(tmp_path: Path, task: str) -> None:
    assert warning(table(tmp_path, TEXTS["Spanish"]))
    assert not warning(table(tmp_path, TEXTS["Spanish"], task))


def test_the_tables_of_training_and_infer_are_checked_too(tmp_path: Path) -> None:
    rows = "".join(f"{at}.wav,sentence_repetition,{t},1\n" for at, t in enumerate(TEXTS["Dutch"]))
    path = tmp_path / "metadata.csv"
    path.write_text("filename,task,expected_text,grade\n" + rows)
    report = Report()
    read_metadata(path, report)
    assert not report.errors
    assert "12 of 12 texts look like another language" in str(report)


def test_rows_that_cannot_be_read_are_not_counted() -> None:
    assert find_other_language(["", *TEXTS["Spanish"]]).indices == tuple(range(1, 13))
    assert find_other_language([]) == OtherLanguage(())


def test_the_lists_share_no_word() -> None:
    english = set(ENGLISH_WORDS.split())
    for words in OTHER_LANGUAGES.values():
        listed = words.split()
        assert not english & set(listed)
        assert listed == sorted(set(listed))
