"""Recipes: frozen dataclasses of hyperparameters, validated, with JSON and a fingerprint."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from typing import Any, ClassVar, Literal, Self

from hearback.engine.errors import HearbackError
from hearback.engine.training.fields import ValidatedFields


class Record(ValidatedFields):
    """Base of frozen dataclasses with a name, validated fields, JSON and a fingerprint.

    `with_settings` changes any field except `name`. `OMITTED_AT_DEFAULT` lists fields that were
    added after models had been trained without them: `as_dict` omits them at their defaults, so
    that the fingerprints of those models stay valid.
    """

    KIND: ClassVar[str] = "recipe"
    OMITTED_AT_DEFAULT: ClassVar[frozenset[str]] = frozenset()
    name: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # type: ignore[call-overload]
        for field in fields(self):  # type: ignore[arg-type]
            if field.name in self.OMITTED_AT_DEFAULT and getattr(self, field.name) == field.default:
                del values[field.name]
        return values

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with any field."""
        canonical = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def with_settings(self, settings: Iterable[str]) -> Self:
        """Return the record with fields changed by `FIELD=VALUE` settings, in JSON or a bare word.

        `GROUP.FIELD=VALUE` changes one field of a group of fields. Raises HearbackError for unknown
        fields and invalid values.
        """
        values = self.as_dict()
        for setting in settings:
            path, equals, value = setting.partition("=")
            parts = path.split(".")
            if not equals or parts[0] == "name" or not all(parts):
                raise HearbackError(
                    f"{setting!r}: a setting is FIELD=VALUE, with a field of the recipe"
                )
            *groups, name = parts
            group = values
            for each in groups:
                if not isinstance(group.get(each), dict):  # `from_dict` tells that it is no group
                    group[each] = {}
                group = group[each]
            try:
                group[name] = json.loads(value)
            except ValueError:
                group[name] = value
        return self.from_dict(values)


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
