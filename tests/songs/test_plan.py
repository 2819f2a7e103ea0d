"""`python -m hearback.songs train --plan`."""

import sys
from pathlib import Path

import pytest

from hearback.engine.errors import HearbackError
from hearback.engine.launch import command
from hearback.engine.plan import estimate
from hearback.engine.plan.show import size
from hearback.songs.options import SongOptions
from hearback.songs.recipe import find_recipes
from hearback.songs.steps import train
from tests.helpers import written
from tests.songs.songs_data import training_flags, write_songs


def test_a_plan_of_the_songs_writes_nothing(
    song_options: SongOptions,
    songs_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(estimate, "SECONDS", 0.02)
    data = song_options.load_data()
    features = data.features(find_recipes()["cnn4"].features)  # as a first training does
    rows = [*data.training_rows(0), *data.validation_rows(0)]
    before = written(songs_folder)
    flags = [*training_flags(songs_folder, tmp_path), "--set", "batch_size=4"]
    monkeypatch.setattr(sys, "argv", ["train", "--plan", "--models", "cnn4", *flags])
    assert command.main(train.competition()) == 0
    text = capsys.readouterr().out
    assert "nothing was trained" in text and "3 folds one after the other" in text
    n_bytes = features.n_bytes(data.filenames[row] for row in rows)
    assert f"Mapped files: {size(n_bytes)}" in text
    assert written(songs_folder) == before
    assert not (tmp_path / "assets").exists()


def test_recordings_that_are_not_decoded_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_songs(tmp_path / "data", numbers=range(0, 40))
    monkeypatch.setattr(
        sys, "argv", ["train", "--plan", *training_flags(tmp_path, tmp_path), "--models", "cnn4"]
    )
    with pytest.raises(HearbackError, match=r"--plan writes nothing\. Decode the recordings first"):
        command.main(train.competition())
    assert not (tmp_path / "store").exists()
