"""The ensemble: fitted on out-of-fold predictions, scored on rows that it was not fitted on.

Predictions are (models, rows) of the probability of a 1, or (models, rows, classes) of each class's
and then the labels are the classes' numbers. Where both serve, they are (models, rows, …).
"""

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
    """A model of the ensemble: which folds are averaged, and its weight.

    `seconds_per_clip` is how long a fold takes for a clip, as training measured it; None where it
    did not.
    """

    name: str
    folds: tuple[int, ...]
    weight: float
    seconds_per_clip: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Return the model that `dataclasses.asdict` took apart; an error where it is none."""
        seconds = values.get("seconds_per_clip")  # an older version's lacks them
        return cls(
            values["name"],
            tuple(values["folds"]),
            float(values["weight"]),
            None if seconds is None else float(seconds),
        )


def load_config(
    path: Path,
    from_values: Callable[[Any], Config],
    fault_of: Callable[[Config], str | None],
    command: str,
) -> Config:
    """Read an ensemble's configuration, or raise HearbackError saying what is wrong with it.

    `from_values` makes it of what the file holds, whatever that is, `fault_of` says what is wrong
    with what was made, or None, and `command` is what writes such a file.
    """
    try:
        config = from_values(read_json(path))
    except FileNotFoundError:
        raise HearbackError(f"{path}: not there; write it with {command}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, HearbackError) as error:
        raise HearbackError(
            f"{path}: not an ensemble's configuration ({error!r}); write it again with {command}"
        ) from None
    if fault := fault_of(config):
        raise HearbackError(f"{path}: {fault}; write it again with {command}")
    return config


def fault_of_names(models: Sequence[ModelConfig]) -> str | None:
    """Return what is wrong with the names and folds of models, or None."""
    for model in models:
        # A name becomes one of files in the assets; a path would lead out of them.
        if not isinstance(model.name, str) or not re.fullmatch(r"\w[\w.-]*", model.name):
            return f"{str(model.name)[:80]!r} is no model's name"
        if not model.folds or any(type(fold) is not int or fold < 0 for fold in model.folds):
            return f"the folds of {model.name} are no numbers"
    return None


def fault_of_combination(combine: object) -> str | None:
    """Return what is wrong with the name of a combination, or None."""
    if combine not in COMBINATIONS:
        return f"unknown combination {combine!r}, not one of {', '.join(COMBINATIONS)}"
    return None


def is_rate(value: object) -> bool:
    """Return whether a value is a number from 0 to 1."""
    return isinstance(value, float | int) and 0 <= value <= 1


def fault_of_weights(combine: str, listed: Sequence[float]) -> str | None:
    """Return what is wrong with the models' weights of a combination, or None."""
    weights = np.array(listed)
    # Said the positive way round, for NaN compares as false.
    if combine == "probabilities":
        if not ((weights >= 0).all() and abs(weights.sum() - 1) <= 1e-6):
            return "the models' weights are not shares of one"
    elif not (len(weights) and ((weights >= 0) & (weights < np.inf)).all()):
        return "the models' weights are not numbers from zero up"
    return None
