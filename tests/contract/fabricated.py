"""Fabricated folds of each competition, for the contract tests of check_models and get_config."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.steps import check_models as reading_check_models
from hearback.reading.steps import get_config as reading_get_config
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.steps import check_models as songs_check_models
from hearback.songs.steps import get_config as songs_get_config
from tests.reading import fabricated_folds as reading_folds
from tests.songs import fabricated_folds as songs_folds


@dataclass(frozen=True)
class Fabricated:
    """A competition's steps, and folds without a training.

    Attributes:
        models: two models' names and their out-of-fold predictions, a little better than noise.
        steady: good predictions, of the same log loss in every row.
        stalled: the same, but the rows of fold 1 have the base rate.
        write_data: writes the labelled tables into a folder.
        write_folds: writes finished folds of a model into the assets.
        program: Python's arguments that train a model.
        train_command, config_command: commands of the steps, as messages name them.
        config_type: the ensemble's configuration.
    """

    name: str
    check_models: ModuleType
    get_config: ModuleType
    models: dict[str, np.ndarray]
    steady: np.ndarray
    stalled: np.ndarray
    write_data: Callable[[Path], None]
    write_folds: Callable[..., None]
    program: Callable[[str], str]
    train_command: str
    config_command: str
    config_type: type[EnsembleConfig] | type[SongEnsemble]

    @property
    def model(self) -> str:
        """The first model."""
        return next(iter(self.models))

    @property
    def n_rows(self) -> int:
        """The number of labelled rows."""
        return len(self.steady)

    def write_models(self, folder: Path) -> None:
        """Write the data, and all folds of both models."""
        self.write_data(folder / "data")
        for model, predictions in self.models.items():
            self.write_folds(folder / "assets", model, predictions)

    def write_alone(self, folder: Path, predictions: np.ndarray, **changes: Any) -> None:
        """Write all folds of the first model; `changes` replace fields of their metadata."""
        self.write_folds(folder / "assets", self.model, predictions, **changes)

    def command(self, folder: Path, *flags: str, model: str | None = None) -> str:
        """Return a command that trains fold 1 of a model, the first unless `model` is given."""
        return " ".join(
            ["python", self.program(model or self.model), *retrain_flags(folder), *flags]
        )


def retrain_flags(folder: Path) -> Sequence[str]:
    """Return the flags that train fold 1 again."""
    folders = [part for name in ("data", "assets") for part in (f"--{name}", str(folder / name))]
    return ["--fold", "1", *folders, "--n_folds", "3", "--attempt", "2"]


def make_reading() -> Fabricated:
    """Return the reading competition's."""
    metadata = reading_folds.make_metadata()
    steady = np.where(metadata["score"] > 0, 0.8, 0.2)
    in_fold_1 = np.arange(len(steady)) % reading_folds.N_FOLDS == 1
    return Fabricated(
        name="reading",
        check_models=reading_check_models,
        get_config=reading_get_config,
        models={
            "model3mapd": reading_folds.make_predictions(1, seed=1),
            "model1m": reading_folds.make_predictions(2),
        },
        steady=steady,
        stalled=np.where(in_fold_1, reading_folds.BASE_RATE, steady),
        write_data=reading_folds.write_data,
        write_folds=reading_folds.write_folds,
        program="train_{}.py".format,
        train_command="python train.py",
        config_command="python get_config.py",
        config_type=EnsembleConfig,
    )


def make_songs() -> Fabricated:
    """Return the songs competition's."""
    snippets = songs_folds.make_snippets()
    steady = np.full((len(snippets), 4), 0.1) + 0.6 * np.eye(4)[snippets["label"]]
    in_fold_1 = (snippets["fold"] == 1).to_numpy()[:, None]
    return Fabricated(
        name="songs",
        check_models=songs_check_models,
        get_config=songs_get_config,
        models={
            "cnn4": songs_folds.make_probabilities(1),
            "resnet34": songs_folds.make_probabilities(1, seed=1),
        },
        steady=steady,
        stalled=np.where(in_fold_1, 0.25, steady),
        write_data=songs_folds.write_data,
        write_folds=songs_folds.write_folds,
        program="-m hearback.songs.recipes.{}".format,
        train_command="python -m hearback.songs train",
        config_command="python -m hearback.songs get_config",
        config_type=SongEnsemble,
    )


READING, SONGS = make_reading(), make_songs()


def name_of(value: object) -> str | None:
    """Return a competition's name, for pytest's ids; None for other parameters."""
    return value.name if isinstance(value, Fabricated) else None
