"""Fixtures: texts pronounced without a voice package, and a folder for tests that spoil it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reading.world_steps import write_good


@pytest.fixture(scope="module")
def letters_as_sounds() -> Iterator[None]:
    """Pronounce texts letter by letter: fast, and no voice package is needed.

    Before the module's other fixtures: `pytestmark = pytest.mark.usefixtures("letters_as_sounds")`.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(
            "hearback.reading.hard_negatives.generator.hibari_pronounce", lambda: str.lower
        )
        yield


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """A folder with good data, its references, and an ensemble of a fold of two models."""
    return write_good(tmp_path_factory.mktemp("good"), tokenizer)


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy of the good folder, which a test may change."""
    return shutil.copytree(good, tmp_path / "world")
