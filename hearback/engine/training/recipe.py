"""Frozen dataclasses that say what is trained: checked, to JSON and back, with a fingerprint."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from types import UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from hearback.engine.errors import HearbackError


class Record:
    """A recipe's behaviour; its fields are those of the frozen dataclass that derives from this.

    `KIND` is what messages call it, and `name` the one field that a setting may not change. `LATER`
    names fields that came after others had been trained without: at their default they are left out
    of what is written, so that fingerprints stay, and what was trained before still counts.
    """

    KIND: ClassVar[str] = "recipe"
    LATER: ClassVar[frozenset[str]] = frozenset()
    name: str

    def __post_init__(self) -> None:
        """Refuse values of another type than their field's, and what contradicts itself."""
        problems = [
            f"{name} is {getattr(self, name)!r}"
            for name, hint in self._hints().items()
            if not _fits(getattr(self, name), hint)
        ]
        if not problems:  # else the comparisons below could not be made
            problems = [f"{name} is {getattr(self, name)}" for name in self._out_of_range()]
        if problems:
            raise HearbackError(f"{self.KIND} {self.name}: {'; '.join(problems)}: that cannot be")

    def _out_of_range(self) -> list[str]:
        """Return the fields whose values cannot be, or not beside the others."""
        return []

    @classmethod
    def _hints(cls) -> dict[str, Any]:
        hints = get_type_hints(cls)
        return {field.name: hints[field.name] for field in fields(cls)}  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON has it."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # type: ignore[call-overload]
        for field in fields(self):  # type: ignore[arg-type]
            if field.name in self.LATER and getattr(self, field.name) == field.default:
                del values[field.name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a record of what `as_dict` gave.

        Raises HearbackError for a field that is unknown or missing, or whose value cannot be.
        """
        hints = cls._hints()
        if unknown := sorted(set(values) - set(hints)):
            raise HearbackError(f"a {cls.KIND} has no field {', '.join(unknown)}")
        typed = dict(values)
        try:
            for name, value in values.items():
                if is_dataclass(hints[name]):
                    typed[name] = hints[name](**value)
                elif isinstance(value, list):
                    typed[name] = tuple(value)
                elif type(value) is int and float in (hints[name], *get_args(hints[name])):
                    typed[name] = float(value)  # 0 and 0.0 are one recipe
            return cls(**typed)
        except TypeError as error:
            raise HearbackError(f"not a {cls.KIND}: {error}") from None

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change when any field does."""
        canonical = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def with_settings(self, settings: Iterable[str]) -> Self:
        """Return the record with fields changed by `FIELD=VALUE`, a value in JSON or a bare word.

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
        return self.from_dict({**self.as_dict(), **values})


class FoldRecipe(Record):
    """What the training of a fold asks of every recipe; a competition's own has more fields."""

    epochs: int
    batch_size: int
    max_gradient_norm: float
    average_decay: float  # a step, of the running average of the weights; 0: no average
    seed: int
    data_seed: int
    warm_start: str | None = None  # the model whose trained fold is begun with, where one is

    def with_seed(self, seed: int | None) -> Self:
        """Return the recipe with other random numbers, and a name that says so.

        It is the recipe as it is where `seed` is its own, or None. Raises HearbackError for a seed
        below 1.
        """
        if seed is None or seed == self.seed:
            return self
        if seed < 1:
            raise HearbackError(f"seed is {seed}: it cannot be less than 1")
        name = name_with_seed(self.name, seed)
        return replace(self, name=name, seed=seed, data_seed=seed)  # type: ignore[type-var]


def name_with_seed(recipe: str, seed: int) -> str:
    """Return the name of a recipe's model of another seed than its own: modeltok_s8."""
    return f"{recipe}_s{seed}"


def split_seed(model: str) -> tuple[str, int | None]:
    """Return a model's recipe and seed: modeltok and 8 of modeltok_s8, and None of modeltok."""
    match = re.fullmatch(r"(.+)_s([1-9]\d*)", model)
    return (match[1], int(match[2])) if match else (model, None)


def _fits(value: Any, hint: Any) -> bool:  # noqa: ANN401
    """Return whether a value is of the type that a field's hint says."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in options
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in options)
    if origin is tuple:
        if isinstance(value, tuple) and options[1:] == (...,):  # of any length
            options = options[:1] * len(value)
        return (
            isinstance(value, tuple)
            and len(value) == len(options)
            and all(map(_fits, value, options))
        )
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint
