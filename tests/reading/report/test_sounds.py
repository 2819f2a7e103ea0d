"""The sound of the recordings that the page plays."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hearback.engine.data.problems import Report
from hearback.reading.report.sounds import Sounds, open_references
from hearback.reading.tables import read_metadata


@pytest.fixture
def corpus(make_corpus: Callable[..., Path]) -> Path:
    return make_corpus()


def make_sounds(corpus: Path) -> Sounds:
    metadata = read_metadata(corpus / "data" / "test_metadata.csv", Report())
    return Sounds(
        corpus / "data",
        metadata["filename"].tolist(),
        metadata["expected_text"].tolist(),
        open_references(corpus / "tts_data"),
    )


def test_a_recording_that_is_missing_has_no_sound(corpus: Path) -> None:
    found = make_sounds(corpus)
    assert found(0).learner is not None and found(0).reference is not None
    (corpus / "data" / found.filenames[0]).unlink()
    assert found(0).learner is None
    assert found(0).reference is not None
