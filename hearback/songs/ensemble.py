"""The ensemble of classes: what `hearback.songs.steps.infer` runs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hearback.engine.ensemble import config as config_module
from hearback.engine.ensemble import stacking
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.io import write_json
from hearback.songs.evaluation import are_shares

COMMAND = "python -m hearback.songs.steps.get_config"


@dataclass(frozen=True)
class SongEnsemble:
    """Models, their folds and weights, and how good they are together: `model_configs.json`.

    A model's folds are averaged first; `combine`, one of `hearback.engine.ensemble.stacking.COMBINATIONS`, says how
    the models are. `class_shares` are those of the labelled rows, for snippets that cannot be
    scored. `log_losses` and `accuracies` are "cross_fitted", "fitted" (on the rows that the weights were
    searched on) and of the "plain_mean".
    """

    models: tuple[ModelConfig, ...]
    combine: str
    class_shares: tuple[float, ...]
    log_losses: dict[str, float]
    accuracies: dict[str, float]
    n_rows: int

    @property
    def models_to_run(self) -> tuple[ModelConfig, ...]:
        """The models that have a weight."""
        return tuple(model for model in self.models if model.weight > 0)

    def predict(self, predictions: np.ndarray) -> np.ndarray:
        """Return the probabilities, (rows, classes), of the `models_to_run`'s.

        Those are (models, rows, classes), the mean over each model's folds.
        """
        weights = np.array([model.weight for model in self.models_to_run])
        return stacking.mix(self.combine, weights, predictions)

    def save(self, path: Path) -> None:
        """Write the configuration as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "SongEnsemble":
        """Read a configuration, or raise HearbackError saying what is wrong with it."""
        return config_module.load_config(path, cls._from_values, _fault, COMMAND)

    @classmethod
    def _from_values(cls, values: Mapping[str, Any]) -> "SongEnsemble":
        models = tuple(map(ModelConfig.from_dict, values["models"]))
        shares = tuple(values["class_shares"])
        return cls(**{**values, "models": models, "class_shares": shares})


def _fault(config: SongEnsemble) -> str | None:
    """Return what is wrong with a configuration, or None."""
    if not are_shares(config.class_shares):
        return "its class shares are not one a class, together one"
    return (
        config_module.fault_of_names(config.models)
        or config_module.fault_of_combination(config.combine)
        or config_module.fault_of_weights(config.combine, [model.weight for model in config.models])
    )
