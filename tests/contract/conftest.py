"""The competitions that the contract tests run over."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import log_loss

from hearback.engine.evaluation.metrics import row_log_loss
from hearback.reading import recipe as reading_recipe
from hearback.reading import training as reading_training
from hearback.reading.options import TrainingOptions
from hearback.songs import recipe as songs_recipe
from hearback.songs import training as songs_training
from hearback.songs.options import SongOptions
from tests.contract.competitions import Competition
from tests.engine.toy_competition import PROGRAM, RECIPES, ToyTask
from tests.engine.toy_data import write_toy_data
from tests.reading.quick_recipes import QUICK as READING
from tests.reading.quick_recipes import QUICK_GOP, QUICK_TOKENS
from tests.songs.quick_recipes import NARROW_WIDTHS
from tests.songs.quick_recipes import QUICK as SONGS
from tests.songs.quick_recipes import RECIPES as SONG_RECIPES


@pytest.fixture
def reading(options: TrainingOptions, phones: Path, monkeypatch: pytest.MonkeyPatch) -> Competition:
    """The reading competition."""
    shutil.copytree(phones, options.assets / phones.name)
    monkeypatch.setattr(
        "hearback.reading.hard_negatives.generator.hibari_pronounce", lambda: str.lower
    )
    dropout = {
        "comparison with dropout": replace(READING, dropout=0.3),
        "tokens": replace(QUICK_TOKENS, dropout=0.3),
        "phones": replace(QUICK_GOP, dropout=0.3),
    }
    return Competition(
        options=options,
        recipes={"comparison": READING, **dropout},
        make_task=reading_training.ReadingTask,
        program=reading_recipe.program_of(READING),
        log_loss=lambda oof: row_log_loss(oof["score"], oof["pred"]).mean(),
    )


@pytest.fixture
def songs(song_options: SongOptions, monkeypatch: pytest.MonkeyPatch) -> Competition:
    """The songs competition, with a narrow CNN."""
    monkeypatch.setattr("hearback.songs.models.classifiers.CNN4_WIDTHS", NARROW_WIDTHS)
    return Competition(
        options=song_options,
        recipes={"plain": SONGS, **SONG_RECIPES},
        make_task=songs_training.SongTask,
        program=songs_recipe.program_of(SONGS),
        log_loss=lambda oof: log_loss(oof["label"], oof[["p0", "p1", "p2", "p3"]]),
    )


@pytest.fixture
def toy(tmp_path: Path) -> Competition:
    """The toy competition of tests/engine."""

    def oof_log_loss(oof: pd.DataFrame) -> float:
        return row_log_loss(oof["label"], oof["pred"]).mean()

    recipe = RECIPES["small"].with_epochs(2)
    program = (*PROGRAM.split()[1:], "fold", recipe.name)
    return Competition(
        options=write_toy_data(tmp_path, n_folds=3),
        recipes={"small": recipe, "average": replace(recipe, average_decay=0.5)},
        make_task=ToyTask,
        program=program,
        log_loss=oof_log_loss,
    )


@pytest.fixture(params=["reading", "songs", "toy"])
def competition(request: pytest.FixtureRequest) -> Competition:
    """Each competition."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Competition)
    return found
