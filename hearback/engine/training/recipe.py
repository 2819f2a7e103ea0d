"""Recipes: frozen dataclasses of hyperparameters, validated, with JSON and a fingerprint."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, Self, get_args, get_type_hints

from hearback.engine.errors import HearbackError, did_you_mean
from hearback.engine.training.field_types import describe, fits

Rule = tuple[str, bool, str]  # a field, whether its value keeps to the rule, and the rule


class Record:
    """Base of frozen dataclasses whose fields are validated and converted to JSON.

    Annotations have a field's type and range (`field_types`), `_rules` the rules between fields.
    `KIND` is the record's name in messages. `with_settings` changes any field except `name`.
    `OMITTED_AT_DEFAULT` lists fields that were added after models had been trained without them:
    `as_dict` omits them at their defaults, so that the fingerprints of those models stay valid.
    """

    KIND: ClassVar[str] = "recipe"
    OMITTED_AT_DEFAULT: ClassVar[frozenset[str]] = frozenset()
    name: str

    def __post_init__(self) -> None:
        """Raise HearbackError with each invalid value and the rule that it breaks."""
        problems = {
            name: f"{name} is {getattr(self, name)!r}: it must be {describe(hint)}"
            for name, hint in self._hints(with_ranges=True).items()
            if not fits(getattr(self, name), hint)
        }
        if all(fits(getattr(self, name), hint) for name, hint in self._hints().items()):
            # Rules compare values: these need the right type.
            for name, is_kept, rule in self._rules():
                if not is_kept:
                    problems.setdefault(name, f"{name} is {getattr(self, name)}: {rule}")
        if problems:
            raise HearbackError(f"{self.KIND} {self.name}: {'; '.join(problems.values())}")

    def _rules(self) -> Iterable[Rule]:
        """Return the rules between fields; ranges are in the fields' annotations."""
        return ()

    @classmethod
    def _hints(cls, *, with_ranges: bool = False) -> dict[str, Any]:
        hints = get_type_hints(cls, include_extras=with_ranges)
        return {field.name: hints[field.name] for field in fields(cls)}  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # type: ignore[call-overload]
        for field in fields(self):  # type: ignore[arg-type]
            if field.name in self.OMITTED_AT_DEFAULT and getattr(self, field.name) == field.default:
                del values[field.name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a record from the result of `as_dict`.

        Raises HearbackError for unknown or missing fields and invalid values.
        """
        hints = cls._hints()
        if unknown := sorted(set(values) - set(hints)):
            raise HearbackError(
                f"a {cls.KIND} has no field {', '.join(unknown)}; it has {', '.join(sorted(hints))}"
                f"{did_you_mean(unknown, hints)}"
            )
        typed = dict(values)
        try:
            for name, value in values.items():
                if is_dataclass(hints[name]):
                    typed[name] = hints[name](**value)
                elif isinstance(value, list):
                    typed[name] = tuple(value)
                elif type(value) is int and float in (hints[name], *get_args(hints[name])):
                    typed[name] = float(value)  # 0 and 0.0 are the same recipe
            return cls(**typed)
        except TypeError as error:
            raise HearbackError(f"not a {cls.KIND}: {error}") from None

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with any field."""
        canonical = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def with_settings(self, settings: Iterable[str]) -> Self:
        """Return the record with fields changed by `FIELD=VALUE` settings, in JSON or a bare word.

        Raises HearbackError for unknown fields and invalid values.
        """
        values: dict[str, Any] = {}
        for setting in settings:
            name, equals, value = setting.partition("=")
            if not equals or name == "name":
                raise HearbackError(
                    f"{setting!r}: a setting is FIELD=VALUE, with a field of the recipe"
                )
            try:
                values[name] = json.loads(value)
            except ValueError:
                values[name] = value
        return self.from_dict({**self.as_dict(), **values})


class FoldRecipe(Record):
    """Base of a competition's recipe: the fields that training needs."""

    epochs: int
    batch_size: int
    max_gradient_norm: float
    average_decay: float  # of the weights' running average, per step; 0: no average
    seed: int
    data_seed: int
    warm_start: str | None = None  # model whose same fold initializes this one
    keep: Literal["best", "last"] = "best"  # the epoch to save: lowest validation log loss, or last

    def with_seed(self, seed: int | None) -> Self:
        """Return the recipe with another seed, and a name that includes it.

        Unchanged if `seed` is None or the recipe's own. Raises HearbackError for a seed below 1.
        """
        if seed is None or seed == self.seed:
            return self
        if seed < 1:
            raise HearbackError(f"seed is {seed}: it must be at least 1")
        name = name_with_seed(self.name, seed)
        return replace(self, name=name, seed=seed, data_seed=seed)  # type: ignore[type-var]

    def with_epochs(self, epochs: int) -> Self:
        """Return the recipe with another number of epochs.

        Recipes with a learning rate schedule override this and scale the schedule.
        """
        return replace(self, epochs=epochs)  # type: ignore[type-var]


def name_with_seed(recipe: str, seed: int) -> str:
    """Return the model name of a recipe with another seed than its own, such as modeltok_s8."""
    return f"{recipe}_s{seed}"


def split_seed(model: str) -> tuple[str, int | None]:
    """Split a model name into recipe and seed: ("modeltok", 8) for modeltok_s8, None without."""
    match = re.fullmatch(r"(.+)_s([1-9]\d*)", model)
    return (match[1], int(match[2])) if match else (model, None)
