"""What a model is: a frozen record that its script writes down once."""

import hashlib
import importlib.util
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hearback.augment import Augmentation
from hearback.errors import HearbackError

N_RECIPES = 10  # the train_model*.py of the project; a listing that finds another number is wrong


@dataclass(frozen=True)
class Recipe:
    """A model's architecture, augmentation and optimisation.

    The defaults are what all ten recipes of the competition share. `hidden` is the width of the
    head's hidden layer (None: a linear head; "width": the encoder's). `dropout_on` says whether
    dropout falls on the frames before pooling or on the pooled vector. The learning rate follows a
    cosine over `schedule_epochs` with `cycles` periods, after a warm-up of `warmup_share` of them.
    """

    name: str
    backbone: str
    pooling: Literal["mean", "attention", "attention+mean"]
    dropout: float
    learning_rate: float
    epochs: int
    schedule_epochs: int
    cycles: float
    weight_decay: float
    seed: int
    data_seed: int
    augment_learner: Augmentation
    augment_reference: Augmentation = field(default_factory=Augmentation)
    hidden: int | Literal["width"] | None = None
    dropout_on: Literal["frames", "pooled"] = "frames"
    negatives: float = 0.0  # per correct clip and epoch: pairs with the reference of another text
    frozen_share: float = 0.0  # of the encoder's layers, from below, the convolutions with them
    batch_size: int = 16
    head_learning_rate: float | None = None  # None: `learning_rate`
    warmup_share: float = 0.02  # the competition had none; it keeps Adam's first steps small
    max_gradient_norm: float = 1.0
    adam_epsilon: float = 1e-6
    adam_betas: tuple[float, float] = (0.9, 0.999)
    window: Literal["trimmed", "fixed"] = "trimmed"
    window_step_seconds: float = 0.64

    def __post_init__(self) -> None:
        """Refuse values of another type than their field's, and what contradicts itself."""
        problems = [
            f"{name} is {getattr(self, name)!r}"
            for name, hint in get_type_hints(type(self)).items()
            if not _fits(getattr(self, name), hint)
        ]
        if not problems:  # else the comparisons below could not be made
            problems = [f"{name} is {getattr(self, name)}" for name in self._out_of_range()]
        if problems:
            raise HearbackError(f"recipe {self.name}: {'; '.join(problems)}: that cannot be")

    def _out_of_range(self) -> list[str]:
        in_range = {
            "epochs": 1 <= self.epochs <= self.schedule_epochs,
            "dropout": 0 <= self.dropout < 1,
            "frozen_share": 0 <= self.frozen_share <= 1,
            "warmup_share": 0 <= self.warmup_share < 1,
            "negatives": self.negatives >= 0,
            "batch_size": self.batch_size >= 1,
            "learning_rate": self.learning_rate >= 0,
            "head_learning_rate": self.head_learning_rate is None or self.head_learning_rate >= 0,
            "weight_decay": self.weight_decay >= 0,
            "max_gradient_norm": self.max_gradient_norm > 0,
            "window_step_seconds": self.window_step_seconds > 0,
        }
        return [name for name, fine in in_range.items() if not fine]

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON has it."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """Make a recipe of what `as_dict` gave.

        Raises HearbackError for a field that is unknown or missing, or whose value cannot be.
        """
        hints = get_type_hints(cls)
        if unknown := sorted(set(values) - set(hints)):
            raise HearbackError(f"a recipe has no field {', '.join(unknown)}")
        typed = dict(values)
        try:
            for name, value in values.items():
                if name.startswith("augment_"):
                    typed[name] = Augmentation(**value)
                elif isinstance(value, list):
                    typed[name] = tuple(value)
                elif type(value) is int and float in (hints[name], *get_args(hints[name])):
                    typed[name] = float(value)  # 0 and 0.0 are one recipe
            return cls(**typed)
        except TypeError as error:
            raise HearbackError(f"not a recipe: {error}") from None

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change when any field does."""
        canonical = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def with_preset(self, preset: str) -> "Recipe":
        """Return the recipe with a preset's values in place of its own."""
        return replace(self, **PRESETS[preset])

    def with_settings(self, settings: Iterable[str]) -> "Recipe":
        """Return the recipe with fields changed by `FIELD=VALUE`, a value in JSON or a bare word.

        Raises HearbackError for what is no field.
        """
        values: dict[str, Any] = {}
        for setting in settings:
            name, equals, value = setting.partition("=")
            if not equals or name == "name":
                raise HearbackError(f"{setting!r}: a setting is FIELD=VALUE, of a recipe's fields")
            try:
                values[name] = json.loads(value)
            except ValueError:
                values[name] = value
        return Recipe.from_dict({**self.as_dict(), **values})

    def with_epochs(self, epochs: int) -> "Recipe":
        """Train for `epochs`, the cosine stretched in proportion."""
        stretched = round(epochs * self.schedule_epochs / self.epochs)
        return replace(self, epochs=epochs, schedule_epochs=stretched)


def _fits(value: Any, hint: Any) -> bool:  # noqa: ANN401
    """Return whether a value is of the type that a field's hint says."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in options
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in options)
    if origin is tuple:
        return (
            isinstance(value, tuple)
            and len(value) == len(options)
            and all(map(_fits, value, options))
        )
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint


# A preset replaces fields of every recipe. The recipes' own values were chosen for the 32,000 clips
# of the competition; "small" was chosen on 1,900 (docs/results.md: how, and what else was tried).
PRESETS: dict[str, dict[str, Any]] = {
    "competition": {},
    "small": {
        "learning_rate": 1e-4,
        "head_learning_rate": 1e-3,
        "epochs": 2,
        "schedule_epochs": 2,
        "cycles": 0.5,
        "dropout": 0.1,
        "frozen_share": 0.5,
        "negatives": 1.0,
        "augment_learner": Augmentation(
            speed=0.5,
            speed_low=0.85,
            speed_high=1.15,
            colour=0.5,
            noise=0.4,
            noise_std=0.01,
            gain=0.8,
            gain_low=0.5,
            gain_high=1.5,
        ),
        "augment_reference": Augmentation(gain=0.8, gain_low=0.5, gain_high=1.5),
    },
}


def find_recipes(folder: Path) -> dict[str, Recipe]:
    """Read the recipes of all `train_model*.py` in `folder`, by name.

    Raises HearbackError where they are not the ten that the project has, or a script's name is not
    its recipe's: a model that goes unseen would be missing from every table.
    """
    recipes = {}
    for script in sorted(folder.glob("train_model*.py")):
        spec = importlib.util.spec_from_file_location(script.stem, script)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if script.stem != f"train_{module.RECIPE.name}":
            raise HearbackError(f"{script.name} holds the recipe of {module.RECIPE.name}")
        recipes[module.RECIPE.name] = module.RECIPE
    if len(recipes) != N_RECIPES:
        raise HearbackError(f"{folder}: {len(recipes)} train_model*.py, {N_RECIPES} expected")
    return recipes
