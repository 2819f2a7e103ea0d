"""What the page adds to the words of the recordings that it plays."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hearback.engine.page.clips import Sound
from hearback.engine.page.content import Words
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading.pairs import PairSource
from hearback.reading.report import annotation
from hearback.reading.report.annotation import WordAnnotator
from tests.helpers import tone
from tests.reading.fabricated_folds import make_predictions, write_folds
from tests.reading.report.test_sounds import make_sounds
from tests.reading.test_divergences import TEXT, make_model, replace_recording

HOME = "the fox ran home"


@pytest.fixture
def corpus(make_corpus: Callable[..., Path]) -> Path:
    return make_corpus()


def annotate(corpus: Path, row: int, words: dict[str, Words], has_references: bool = True) -> None:
    sounds = make_sounds(corpus)
    references = sounds.references if has_references else None
    annotator = WordAnnotator(words, sounds.texts, references, device_name="cpu")
    sound = sounds(row) if has_references else Sound(sounds(row).learner)
    annotator({row: sound})


def test_the_word_where_they_part_is_marked(
    corpus: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = replace_recording(corpus, HOME)
    monkeypatch.setattr(annotation, "_open_first", lambda *_: make_model(backbone))
    words = {str(row): Words(TEXT.split(), scores=[0.9, 0.1, 0.9, 0.9])}
    annotate(corpus, row, words)
    assert words[str(row)].diverges == [0, 1, 0, 0]
    assert words[str(row)].scores == [0.9, 0.1, 0.9, 0.9]


def test_nothing_is_marked_without_a_model_or_references(
    corpus: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {"0": Words(["the"])}
    annotate(corpus, 0, words)
    assert words == {"0": Words(["the"])}
    monkeypatch.setattr(annotation, "_open_first", lambda *_: make_model(backbone))
    annotate(corpus, 0, words, has_references=False)
    assert words == {"0": Words(["the"])}


class Timer:
    """Times every word as a second after the other, and counts what it hears."""

    def __init__(self) -> None:
        self.n_heard = 0

    def __call__(self, _: object, source: PairSource, rows: range, *__: Any) -> Any:
        self.n_heard += len(rows)
        return {row: _seconds(len(source.texts[row].split())) for row in rows}


def _seconds(n_words: int) -> np.ndarray:
    return np.stack([np.arange(n_words), np.arange(n_words) + 0.5], axis=1)


def timed(
    monkeypatch: pytest.MonkeyPatch, words: dict[str, Words], *chunks: Mapping[int, Sound]
) -> int:
    """Listen to recordings of two words; return how many sounds were timed."""
    timer = Timer()
    monkeypatch.setattr(annotation, "time_words", timer)
    monkeypatch.setattr(WordAnnotator, "timer", object())
    annotator = WordAnnotator(words, ["the cat", "the cat", "a dog"], None, device_name="cpu")
    for chunk in chunks:
        annotator(chunk)
    return timer.n_heard


def test_words_have_times_in_both_sounds_and_a_reference_is_timed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words: dict[str, Words] = {}
    both, alone = Sound(tone(), tone(150.0)), Sound(tone())
    assert timed(monkeypatch, words, {0: both, 2: alone}, {1: both}) == 3 + 1
    assert words["0"] == words["1"]
    assert words["0"].starts == words["0"].reference_starts == [0, 1]
    assert words["0"].ends == words["0"].reference_ends == [0.5, 1.5]
    assert (words["2"].words, words["2"].reference_starts) == (["a", "dog"], ())


def test_times_that_are_known_stay_and_those_of_the_reference_are_added(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = {"0": Words(["the", "cat"], [0.9, 0.1], starts=[0.1, 0.2], ends=[0.2, 0.3])}
    assert timed(monkeypatch, words, {0: Sound(tone(), tone(150.0)), 1: Sound(None)}) == 1
    assert (words["0"].starts, words["0"].reference_starts) == ([0.1, 0.2], [0, 1])
    assert words["0"].scores == [0.9, 0.1]
    assert list(words) == ["0"]  # a recording that is not there has no times


def test_words_of_another_text_get_no_times_in_its_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = {"0": Words(["the", "cat", "sat"], starts=[0.1] * 3, ends=[0.2] * 3)}
    timed(monkeypatch, words, {0: Sound(tone(), tone(150.0))})
    assert words["0"].reference_starts == ()


@pytest.mark.parametrize("missing", ["weights", "metadata"])
def test_folds_that_are_not_there_time_nothing(tmp_path: Path, missing: str) -> None:
    files = FoldFiles(tmp_path, "modeltok", 0)
    write_folds(tmp_path, "modeltok", make_predictions(1.0), recipe={"pair": "tokens"})
    getattr(files, missing).unlink()
    assert WordAnnotator({}, [], None, [files]).timer is None


def test_a_baseline_times_nothing(tmp_path: Path) -> None:
    write_folds(tmp_path, "baseline", make_predictions(1.0), baseline={"name": "x"}, recipe=None)
    assert WordAnnotator({}, [], None, [FoldFiles(tmp_path, "baseline", 0)]).timer is None
