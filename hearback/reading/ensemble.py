"""The reading competition's ensemble: its configuration, and how get_config fits it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pandas as pd

from hearback.engine.ensemble import fitting, stacking
from hearback.engine.ensemble.calibration import KINDS, Calibration, Line
from hearback.engine.ensemble.config import (
    ModelConfig,
    find_combination_error,
    find_model_error,
    find_weight_error,
    load_config,
    salvage,
)
from hearback.engine.ensemble.stacking import (
    EnsembleScores,
    Groups,
    StackingData,
    WeightedEnsemble,
)
from hearback.engine.evaluation.metrics import is_probability
from hearback.engine.io import write_json
from hearback.reading import evaluation, step_command, words
from hearback.reading.evaluation import ReadingOutOfFold
from hearback.reading.tables import age_groups
from hearback.reading.words import WordCalibration


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
            values["words"] and WordCalibration.from_dict(values["words"]),
        )


@dataclass(frozen=True)
class EnsembleConfig:
    """The ensemble that `infer.py` runs, as in `model_configs.json`.

    `base_rates` are the mean training labels by task and, under "all", of all rows; recordings that
    cannot be read get them as scores. `log_losses`, in nats, has the keys "cross_fitted", "fitted"
    (in-sample), "plain_mean" and "words" (cross-fitted, of the product over words). `combine` is
    one of `COMBINATIONS`. `voice` is that of the reference speech; None if no model hears it.
    `words` is None if no model scores words. `fallbacks` are ensembles of
    some of the models, for a time limit that is too short for all.
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

    @property
    def models_to_run(self) -> tuple[ModelConfig, ...]:
        """The models with a weight."""
        return tuple(model for model in self.models if model.weight > 0)

    def predict(self, predictions: np.ndarray, grades: np.ndarray) -> np.ndarray:
        """Return the ensemble's probabilities, (rows,), from those of `models_to_run`.

        `predictions` is (models, rows); `grades`, (rows,), are the metadata's.
        """
        weights = np.array([model.weight for model in self.models_to_run])
        ensemble = WeightedEnsemble(self.combine, weights, self.calibration)
        return ensemble.predict(predictions, age_groups(grades))

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
        parsed = {
            "models": tuple(map(ModelConfig.from_dict, values["models"])),
            "calibration": Calibration.from_dict(values["calibration"]),
            "combine": values["combine"],  # required in files, without the default
            "words": values["words"] and WordCalibration.from_dict(values["words"]),
            # Files of older versions have no fallbacks, which only a time limit needs.
            "fallbacks": tuple(map(Fallback.from_dict, values.get("fallbacks", ()))),
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
        or find_weight_error(config.combine, [model.weight for model in config.models])
    )


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


def stacking_data(joined: pd.DataFrame, models: Sequence[str]) -> StackingData:
    """Return the data for fitting an ensemble of `models`, columns of `evaluation.join`'s table."""
    return StackingData(
        predictions=joined[list(models)].to_numpy().T,
        labels=joined["score"].to_numpy(),
        groups=Groups.from_names(joined[evaluation.group_unit(joined)].to_numpy(dtype=str)),
        calibration_groups=age_groups(joined["grade"].to_numpy(dtype=str)),
    )


def fit(
    joined: pd.DataFrame, tables: Sequence[ReadingOutOfFold], combine: str, calibration: str
) -> EnsembleScores:
    """Fit the ensemble of the `tables`' models and print its scores.

    `joined`, from `evaluation.join`, has a column of predictions for each of them.
    """
    names = [table.model for table in tables]
    data = stacking_data(joined, names)
    scores = fitting.fit(data, names, combine, calibration)
    families = [table.family for table in tables]
    for family in dict.fromkeys(families):
        members = [model for model, name in enumerate(families) if name == family]
        if 1 < len(members) < len(names):  # a single model has its line in the table
            loss = stacking.log_loss_without(members, data, combine, calibration)
            listed = ", ".join(names[model] for model in members)
            print(f"without the {family} models ({listed}): {loss:.4f}")
    fitting.print_combinations(data, KINDS)
    _print_scores(joined, scores, f"{combine}, {calibration}")
    return scores


def _print_scores(joined: pd.DataFrame, scores: EnsembleScores, settings: str) -> None:
    unit = evaluation.group_unit(joined)
    cross_fitted = scores.cross_fitted_predictions
    loss, (low, high) = evaluation.log_loss_with_interval(joined, cross_fitted)
    gain, error = evaluation.gain_with_error(joined, pd.Series(cross_fitted))
    side = "below" if gain >= 0 else "above"
    print(
        f"\n{'plain mean':<20} log loss {scores.plain_mean:.4f}\n"
        f"{'weighted ensemble':<20} log loss {loss:.4f} [{low:.4f}, {high:.4f}]   "
        f"(2.5 to 97.5 % of a bootstrap over {unit}s;\n"
        f"{'':<20} {settings}: cross-fitted over {unit}s)\n"
        f"{'':<20} {abs(gain):.4f} ± {error:.4f} (by {unit}) {side} the base rate\n"
        f"{'in-sample':<20} log loss {scores.fitted:.4f}   (optimistic: not the score)"
    )
    _print_lines(scores.ensemble.calibration.lines)


def _print_lines(lines: Mapping[str, Line]) -> None:
    for name, line in lines.items():
        print(f"{'calibration':<20} {name}: log-odds × {line.slope:.3f} {line.intercept:+.3f}")


def fit_words(
    joined: pd.DataFrame,
    log_odds: Mapping[str, np.ndarray],
    models: Sequence[ModelConfig],
    ensemble_loss: float,
) -> tuple[WordCalibration | None, dict[str, float]]:
    """Calibrate the words of the models that score them; print the log loss of their product.

    `log_odds` is from `words.read_log_odds`; `ensemble_loss` is printed for comparison. Returns the
    calibration, and its log loss under "words"; None and {} if no model with a weight scores words.
    """
    labels = joined["score"].to_numpy()
    weights = {model.name: model.weight for model in models}
    fitted = words.fit_weighted(log_odds, weights, labels)
    if fitted is None:
        print("\nNo model of the ensemble scores words: infer.py has no --words")
        return None, {}
    unit = evaluation.group_unit(joined)
    mean = words.mean_log_odds(log_odds, weights)
    cross_fitted = words.cross_fit_words(mean, labels, joined[unit].to_numpy(dtype=str))
    loss, (low, high) = evaluation.log_loss_with_interval(joined, cross_fitted)
    print(
        f"\nWords, scored by {', '.join(log_odds)}\n"
        f"{'product over words':<20} log loss {loss:.4f} [{low:.4f}, {high:.4f}]   "
        f"(the ensemble's: {ensemble_loss:.4f}; cross-fitted over {unit}s)"
    )
    _print_lines({"said": fitted.said, "complete": fitted.complete})
    return fitted, {"words": loss}


def fit_fallbacks(
    joined: pd.DataFrame,
    models: Sequence[ModelConfig],
    log_odds: Mapping[str, np.ndarray],
    combine: str,
    calibration: str,
) -> tuple[Fallback, ...]:
    """Fit the fallbacks of the `models` with a weight; print their cross-fitted log losses.

    `log_odds` is from `words.read_log_odds`. Empty if the time per clip of some model is unknown.
    """
    weighted = [model for model in models if model.weight]
    data = stacking_data(joined, [model.name for model in weighted])
    fallbacks = []
    for subset, loss in fitting.fit_fallbacks(weighted, data, combine, calibration):
        names = [weighted[model].name for model in subset.models]
        weights = dict(zip(names, subset.ensemble.weights.tolist(), strict=True))
        word_calibration = words.fit_weighted(log_odds, weights, data.labels)
        fallbacks.append(Fallback(weights, subset.ensemble.calibration, loss, word_calibration))
    return tuple(fallbacks)
