"""The configuration of the reading competition's ensemble (`ensemble_fitting` fits it)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from hearback.engine.ensemble.calibration import Calibration
from hearback.engine.ensemble.config import (
    ModelConfig,
    find_combination_error,
    find_model_error,
    find_weight_error,
    load_config,
    salvage,
)
from hearback.engine.ensemble.stacking import WeightedEnsemble
from hearback.engine.evaluation.metrics import is_probability
from hearback.engine.io import write_json
from hearback.engine.training.fold_archive import check_in_folder
from hearback.engine.training.fold_files import FoldFiles
from hearback.engine.training.recipe import split_seed
from hearback.reading import step_command
from hearback.reading.tables import age_groups
from hearback.reading.word_calibration import WordCalibration

ABLATION = "hearback.reading.baselines.ablation"  # module that trains variants of a recipe
ABLATION_PREFIX = "model_ablation_"  # of their names


def training_command(files: FoldFiles) -> str:
    """Return the command that trains a fold, without the folders."""
    recipe, seed = split_seed(files.model)
    variant = recipe.removeprefix(ABLATION_PREFIX)
    is_ablation = variant != recipe
    script = f"-m {ABLATION} --variants {variant}" if is_ablation else f"train_{recipe}.py"
    flag = "--folds" if is_ablation else "--fold"
    return f"python {script} {flag} {files.fold}" + (f" --seed {seed}" if seed else "")


def check_trained(files: FoldFiles) -> None:
    """Raise HearbackError if a fold is not in its folder of assets, or published without weights.

    Only the metadata is looked for.
    """
    check_in_folder(
        files.metadata,
        f"train it with {training_command(files)}, or score with a shipped scorer: "
        f"{step_command('score')}",
    )


@dataclass(frozen=True)
class Fallback:
    """An ensemble of some of the models, for inference that cannot run all of them in time.

    `weights` are by model. `log_loss` is cross-fitted, of one fold per model, in nats.
    """

    weights: dict[str, float]
    calibration: Calibration
    log_loss: float
    words: WordCalibration | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Fallback":
        """Build a fallback from its `dataclasses.asdict`; invalid values raise an error."""
        return cls(
            {str(name): float(weight) for name, weight in values["weights"].items()},
            Calibration.from_dict(values["calibration"]),
            float(values["log_loss"]),
            values["words"] and WordCalibration.from_dict(values["words"], values["weights"]),
        )


@dataclass(frozen=True)
class EnsembleConfig:
    """The ensemble that `infer.py` runs, as in `model_configs.json`.

    `base_rates` are the mean training labels by task and, under "all", of all rows; recordings that
    cannot be read get them as scores. `log_losses`, in nats, has the keys "cross_fitted", "fitted"
    (in-sample), "plain_mean" and "words" (cross-fitted, that all words were said). `combine` is
    one of `COMBINATIONS`. `voice` is that of the reference speech; None if no model hears it.
    `words` is None if no model scores words. `words_weight` is that of the probability that all
    words were said (`word_calibration.noisy_and`), which is combined like one more model; 0: it is
    not. `fallbacks` are ensembles of some of the models, for a time limit that is too short for
    all.
    """

    models: tuple[ModelConfig, ...]
    voice: dict[str, Any] | None
    base_rates: dict[str, float]
    log_losses: dict[str, float]
    n_rows: int
    combine: str = "probabilities"
    calibration: Calibration = field(default_factory=Calibration)
    words: WordCalibration | None = None
    fallbacks: tuple[Fallback, ...] = ()
    words_weight: float = 0.0

    @property
    def models_to_run(self) -> tuple[ModelConfig, ...]:
        """The models with a weight, in the ensemble or in its words."""
        of_words = self.words.weight_of if self.words is not None and self.words_weight else {}
        return tuple(model for model in self.models if model.weight > 0 or model.name in of_words)

    def check_folds(self, assets: Path) -> None:
        """Raise HearbackError, as `check_trained` does, for the first such fold to run."""
        for model in self.models_to_run:
            for fold in model.folds:
                check_trained(FoldFiles(assets, model.name, fold))

    def predict(
        self,
        predictions: np.ndarray,
        grades: np.ndarray,
        words: np.ndarray | None = None,
        *,
        all_said: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the ensemble's probabilities, (rows,), from those of `models_to_run`.

        Args:
            predictions: (models, rows).
            grades: (rows,) str, the metadata's.
            words: (rows, positions, 2), mean log-odds of `words.mean`; required if
                `words_weight` is not 0, unless `all_said` is there.
            all_said: (rows,), of `all_words_said`.
        """
        weights = [model.weight for model in self.models_to_run]
        if self.words_weight:
            if all_said is None:
                assert words is not None
                all_said = self.all_words_said(words)
            weights.append(self.words_weight)
            predictions = np.vstack([predictions, all_said])
        ensemble = WeightedEnsemble(self.combine, np.array(weights), self.calibration)
        return ensemble.predict(predictions, age_groups(grades))

    def all_words_said(self, words: np.ndarray) -> np.ndarray:
        """Return the probability that all words were said, (rows,); `words` as in `predict`."""
        assert self.words is not None
        return self.words.all_said(self.words.apply(words))

    def restrict_to(self, folds: Mapping[str, Sequence[int]]) -> "EnsembleConfig | None":
        """Return the ensemble of the finished `folds`, by model; None if there is none.

        If a model has no finished fold, the best fallback without such models is used.
        """
        finished = {name for name, numbers in folds.items() if numbers}
        config = self
        if not finished.issuperset(model.name for model in self.models_to_run):
            possible = [each for each in self.fallbacks if finished.issuperset(each.weights)]
            if not possible:
                return None
            best = min(possible, key=lambda fallback: fallback.log_loss)
            config = replace(
                self,
                models=tuple(
                    replace(model, weight=best.weights.get(model.name, 0.0))
                    for model in self.models
                ),
                log_losses={"cross_fitted": best.log_loss},
                calibration=best.calibration,
                words=best.words,
                words_weight=0.0,
            )
        models = [replace(m, folds=tuple(sorted(folds[m.name]))) for m in config.models_to_run]
        return replace(config, models=tuple(models), fallbacks=())

    def save(self, path: Path) -> None:
        """Write the configuration as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "EnsembleConfig":
        """Read a configuration; raise HearbackError with the cause if it is invalid."""
        return load_config(path, cls._from_values, _find_error, step_command("get_config"))

    @classmethod
    def _from_values(cls, values: Mapping[str, Any]) -> "EnsembleConfig":
        models = tuple(map(ModelConfig.from_dict, values["models"]))
        weights = {str(model.name): model.weight for model in models}
        parsed = {
            "models": models,
            "calibration": Calibration.from_dict(values["calibration"]),
            "combine": values["combine"],  # required in files, without the default
            "words": values["words"] and WordCalibration.from_dict(values["words"], weights),
            # Files of older versions have no fallbacks, which only a time limit needs.
            "fallbacks": tuple(map(Fallback.from_dict, values.get("fallbacks", ()))),
            "words_weight": float(values.get("words_weight", 0.0)),
        }
        return cls(**{**values, **parsed})

    def base_rate(self, task: str | None) -> float:
        """Return a task's base rate, or that of all rows for a task not seen in training."""
        return base_rate(self.base_rates, task)


def base_rate(rates: Mapping[str, float], task: str | None) -> float:
    """Return a task's base rate of `EnsembleConfig.base_rates`."""
    return rates.get(task or "all", rates["all"])


def salvage_base_rates(path: Path) -> dict[str, float] | None:
    """Return the base rates of a configuration that may be damaged otherwise, or None."""
    rates = salvage(path, "base_rates")
    return rates if _are_base_rates(rates) else None


def _are_base_rates(rates: object) -> TypeGuard[dict[str, float]]:
    return isinstance(rates, dict) and "all" in rates and all(map(is_probability, rates.values()))


def _find_error(config: EnsembleConfig) -> str | None:
    """Return what is wrong with a configuration, or None."""
    return (
        find_model_error(config.models)
        or _find_value_error(config)
        or find_combination_error(config.combine)
        or _find_fallback_error(config)
        or find_weight_error(config.combine, _weights(config))
        or _find_words_error(config)
    )


def _weights(config: EnsembleConfig) -> list[float]:
    weights = [model.weight for model in config.models]
    return [*weights, config.words_weight] if config.words_weight else weights


def _find_words_error(config: EnsembleConfig) -> str | None:
    if config.words is None:
        return "its words have a weight, but no calibration" if config.words_weight else None
    if unknown := set(config.words.models) - {model.name for model in config.models}:
        return f"its words are of {', '.join(sorted(unknown))}, not among its models"
    return None


def _find_value_error(config: EnsembleConfig) -> str | None:
    if not _are_base_rates(config.base_rates):
        return "its base rates are not from 0 to 1, or lack that of all rows"
    if not (config.voice is None or isinstance(config.voice, dict)):
        return "its voice is not an object"
    return None


def _find_fallback_error(config: EnsembleConfig) -> str | None:
    names = {model.name for model in config.models}
    for fallback in config.fallbacks:
        if unknown := fallback.weights.keys() - names:
            return f"a fallback has a weight for {', '.join(sorted(unknown))}, not among its models"
        if error := find_weight_error(config.combine, list(fallback.weights.values())):
            return f"in a fallback {error}"
    return None
