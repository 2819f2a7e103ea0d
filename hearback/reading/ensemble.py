"""The ensemble: fitted on out-of-fold predictions, scored on rows that it was not fitted on.

Predictions are (models, rows) of the probability of a 1, or (models, rows, classes) of each class's
and then the labels are the classes' numbers. Where both serve, they are (models, rows, …).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hearback.engine.ensemble.calibration import Calibration
from hearback.engine.ensemble.config import (
    ModelConfig,
    fault_of_combination,
    fault_of_names,
    fault_of_weights,
    is_rate,
    load_config,
)
from hearback.engine.ensemble.stacking import Mixture
from hearback.engine.io import write_json
from hearback.reading.tables import age_groups
from hearback.reading.words import WordCalibration


@dataclass(frozen=True)
class Fallback:
    """What stands in where only some of the models are run: all that was fitted to those.

    `weights` are by model. `log_loss` is cross-fitted, of one fold of each model.
    """

    weights: dict[str, float]
    calibration: Calibration
    log_loss: float
    words: WordCalibration | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Fallback":
        """Return the fallback that `dataclasses.asdict` took apart; an error where it is none."""
        return cls(
            {str(name): float(weight) for name, weight in values["weights"].items()},
            Calibration.from_dict(values["calibration"]),
            float(values["log_loss"]),
            values["words"] and WordCalibration.from_dict(values["words"]),
        )


@dataclass(frozen=True)
class EnsembleConfig:
    """What `infer.py` runs: `model_configs.json`.

    `base_rates` are the mean training label by task, and under "all" over all rows, for recordings
    that cannot be scored. `log_losses` tell how good the ensemble is: "cross_fitted", "fitted" (on the
    rows that the weights were searched on), "plain_mean", and "words" (cross-fitted, of the product over
    the words). `combine` is one of `COMBINATIONS`. `words` is None where no model scores words.
    `fallbacks` are ensembles of some of the models, for where a time limit leaves no time for all.
    """

    models: tuple[ModelConfig, ...]
    voice: dict[str, Any]
    base_rates: dict[str, float]
    log_losses: dict[str, float]
    n_rows: int
    combine: str = "probabilities"
    calibration: Calibration = field(default_factory=Calibration)
    words: WordCalibration | None = None
    fallbacks: tuple[Fallback, ...] = ()

    @property
    def models_to_run(self) -> tuple[ModelConfig, ...]:
        """The models that have a weight."""
        return tuple(model for model in self.models if model.weight > 0)

    def predict(self, predictions: np.ndarray, grades: np.ndarray) -> np.ndarray:
        """Return the probabilities, (rows,), of those of the `models_to_run`, (models, rows).

        `grades`, (rows,), are those of the metadata.
        """
        weights = np.array([model.weight for model in self.models_to_run])
        return Mixture(self.combine, weights, self.calibration).predict(
            predictions, age_groups(grades)
        )

    def of_those_run(self, folds: Mapping[str, Sequence[int]]) -> "EnsembleConfig | None":
        """Return the ensemble of the folds, by model, that have been run; None where there is none.

        Where they are not of all models, it is the best fallback that does without the others.
        """
        run = {name for name, of_model in folds.items() if of_model}
        config = self
        if not run.issuperset(model.name for model in self.models_to_run):
            possible = [fallback for fallback in self.fallbacks if run.issuperset(fallback.weights)]
            if not possible:
                return None
            best = min(possible, key=lambda fallback: fallback.log_loss)
            weights = [best.weights.get(model.name, 0.0) for model in self.models]
            config = replace(
                self,
                models=tuple(map(_with_weight, self.models, weights)),
                log_losses={"cross_fitted": best.log_loss},
                calibration=best.calibration,
                words=best.words,
            )
        models = [replace(m, folds=tuple(sorted(folds[m.name]))) for m in config.models_to_run]
        return replace(config, models=tuple(models), fallbacks=())

    def save(self, path: Path) -> None:
        """Write the configuration as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "EnsembleConfig":
        """Read a configuration, or raise HearbackError saying what is wrong with it."""
        return load_config(path, cls._from_values, _fault, "python get_config.py")

    @classmethod
    def _from_values(cls, values: Mapping[str, Any]) -> "EnsembleConfig":
        fitted = {
            "models": tuple(map(ModelConfig.from_dict, values["models"])),
            "calibration": Calibration.from_dict(values["calibration"]),
            "combine": values["combine"],  # not its default, where the file lacks it
            "words": values["words"] and WordCalibration.from_dict(values["words"]),
            # What an older version wrote has none: enough for whoever has no time limit.
            "fallbacks": tuple(map(Fallback.from_dict, values.get("fallbacks", ()))),
        }
        return cls(**{**values, **fitted})

    def base_rate(self, task: str | None) -> float:
        """Return a task's base rate, or that of all rows for a task that training did not have."""
        return self.base_rates.get(task or "all", self.base_rates["all"])


def _with_weight(model: ModelConfig, weight: float) -> ModelConfig:
    return replace(model, weight=weight)


def _fault(config: EnsembleConfig) -> str | None:
    """Return what is wrong with a configuration and how it combines its models, or None."""
    if fault := fault_of_names(config.models) or _fault_of_contents(config):
        return fault
    if fault := fault_of_combination(config.combine):
        return fault
    names = {model.name for model in config.models}
    for fallback in config.fallbacks:
        if unknown := fallback.weights.keys() - names:
            return f"a fallback has a weight for {', '.join(sorted(unknown))}, not among its models"
        if fault := fault_of_weights(config.combine, list(fallback.weights.values())):
            return f"in a fallback {fault}"
    return fault_of_weights(config.combine, [model.weight for model in config.models])


def _fault_of_contents(config: EnsembleConfig) -> str | None:
    rates = config.base_rates
    if not isinstance(rates, dict) or "all" not in rates or not all(map(is_rate, rates.values())):
        return "its base rates are not from 0 to 1, or lack that of all rows"
    if not isinstance(config.voice, dict):
        return "its voice is none"
    return None
