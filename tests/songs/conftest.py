"""Fixtures of the songs: snippets, options of trainings on them, and trained folds."""

from dataclasses import replace
from pathlib import Path

import pytest

from hearback.songs.options import SongOptions
from hearback.songs.recipe import find_recipes
from hearback.songs.training import train_fold
from tests.songs.songs_data import read_options, training_flags, write_songs


@pytest.fixture(scope="session")
def songs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with song snippets in data/, and their stores in store/.

    All tests share it: tests that change the data write their own (`songs_data.write_songs`).
    """
    folder = tmp_path_factory.mktemp("songs")
    write_songs(folder / "data")
    return folder


@pytest.fixture
def song_options(songs_folder: Path, tmp_path: Path) -> SongOptions:
    """Options of a training on the shared snippets that writes to the test's own folder."""
    return read_options(*training_flags(songs_folder, tmp_path))


@pytest.fixture(scope="session")
def trained(songs_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two folds of a small model, and one on separated voices, in its assets."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = replace(find_recipes()["cnn4"].with_epochs(1), batch_size=8)
    for fold, flags in ((0, []), (1, []), (0, ["--separate", "repet"])):
        options = read_options(*training_flags(songs_folder, folder), *flags)
        train_fold(recipe, fold, options, options.load_data())
    return folder
