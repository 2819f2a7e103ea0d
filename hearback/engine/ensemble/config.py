"""Configuration of an ensemble (model_configs.json): the parts that all competitions share."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hearback.engine.ensemble.stacking import COMBINATIONS
from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json

Config = TypeVar("Config")


@dataclass(frozen=True)
class ModelConfig:
    """A model of the ensemble: its weight, and the folds to average.

    `seconds_per_clip` is the inference time of one fold, measured during training; None if unknown.
    """

    name: str
    folds: tuple[int, ...]
    weight: float
    seconds_per_clip: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Return the model of a `dataclasses.asdict`; raise an error for invalid values."""
        seconds = values.get("seconds_per_clip")  # absent in files of older versions
        return cls(
            values["name"],
            tuple(values["folds"]),
            float(values["weight"]),
            None if seconds is None else float(seconds),
        )


def load_config(
    path: Path,
    from_values: Callable[[Any], Config],
    find_error: Callable[[Config], str | None],
    command: str,
) -> Config:
    """Read an ensemble's configuration; raise HearbackError with the cause if it is invalid.

    `from_values` builds it from the JSON value. `find_error` returns the error of a built
    configuration, or None. `command` writes such a file; the messages name it.
    """
    try:
        config = from_values(read_json(path))
    except FileNotFoundError:
        raise HearbackError(f"{path}: no such file; write it with {command}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, HearbackError) as error:
        raise HearbackError(
            f"{path}: not an ensemble's configuration ({_in_words(error)}); write it again with "
            f"{command}"
        ) from None
    if error_found := find_error(config):
        raise HearbackError(f"{path}: {error_found}; write it again with {command}")
    return config


def salvage(path: Path, name: str) -> object:
    """Return a field of a configuration that may be damaged; None if it cannot be read."""
    try:
        values = read_json(path)
    except (OSError, ValueError, HearbackError):
        return None
    return values.get(name) if isinstance(values, dict) else None


def _in_words(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no field {error.args[0]}"
    return f"no JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)


def find_model_error(models: Sequence[ModelConfig]) -> str | None:
    """Return the error in the models' names or folds, or None."""
    for model in models:
        # Names become file names in the assets; a path would lead out of that folder.
        if not isinstance(model.name, str) or not re.fullmatch(r"\w[\w.-]*", model.name):
            return f"invalid model name {str(model.name)[:80]!r}"
        if not model.folds or any(type(fold) is not int or fold < 0 for fold in model.folds):
            return f"invalid folds of {model.name}"
    return None


def find_combination_error(combine: object) -> str | None:
    """Return the error in the name of a combination, or None."""
    if combine not in COMBINATIONS:
        return f"unknown combination {combine!r}: use {', '.join(COMBINATIONS)}"
    return None


def find_weight_error(combine: str, weights: Sequence[float]) -> str | None:
    """Return the error in the models' weights for a combination, or None."""
    values = np.array(weights)
    # Written so that NaN fails every comparison.
    if combine == "probabilities":
        if not ((values >= 0).all() and abs(values.sum() - 1) <= 1e-6):
            return "the models' weights must be non-negative and sum to one"
    elif not (len(values) and ((values >= 0) & (values < np.inf)).all()):
        return "the models' weights must be finite and non-negative"
    return None
