"""What the page adds to the recordings that it plays."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hearback.engine.data.problems import Report
from hearback.engine.page.content import Words
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading.report import sounds
from hearback.reading.report.sounds import Sounds, add_divergences, open_references
from hearback.reading.tables import read_metadata
from tests.reading.fabricated_folds import make_predictions, write_folds
from tests.reading.test_divergences import TEXT, make_model, replace_recording


@pytest.fixture
def corpus(make_corpus: Callable[..., Path]) -> Path:
    return make_corpus()


def make_sounds(corpus: Path, references: bool = True) -> Sounds:
    metadata = read_metadata(corpus / "data" / "test_metadata.csv", Report())
    return Sounds(
        corpus / "data",
        metadata["filename"].tolist(),
        metadata["expected_text"].tolist(),
        open_references(corpus / "tts_data") if references else None,
    )


def test_the_word_where_they_part_is_marked(
    corpus: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = replace_recording(corpus, "the fox ran home")
    monkeypatch.setattr(sounds, "_open_first", lambda *_: make_model(backbone))
    words = {str(row): Words(TEXT.split(), scores=[0.9, 0.1, 0.9, 0.9])}
    found = add_divergences(words, make_sounds(corpus), [row], [], "cpu")
    assert found[str(row)].diverges == [0, 1, 0, 0]
    assert found[str(row)].scores == [0.9, 0.1, 0.9, 0.9]


def test_nothing_is_marked_without_a_model_or_references(
    corpus: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {"0": Words(["the"])}
    assert add_divergences(words, make_sounds(corpus), [0], [], "cpu") == words
    monkeypatch.setattr(sounds, "_open_first", lambda *_: make_model(backbone))
    assert add_divergences(words, make_sounds(corpus, False), [0], [], "cpu") == words


def test_a_recording_that_is_missing_has_no_sound(corpus: Path) -> None:
    found = make_sounds(corpus)
    assert found(0).learner is not None and found(0).reference is not None
    (corpus / "data" / found.filenames[0]).unlink()
    assert found(0).learner is None


def test_predictions_without_weights_give_no_timer(tmp_path: Path) -> None:
    files = FoldFiles(tmp_path, "modeltok", 0)
    write_folds(tmp_path, "modeltok", make_predictions(1.0), recipe={"pair": "tokens"})
    files.weights.unlink()
    assert sounds.open_timer([files], "cpu") is None
