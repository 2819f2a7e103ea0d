"""Base of dataclasses whose fields are validated: recipes, and the groups of fields in them."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from operator import attrgetter
from typing import Any, ClassVar, Self, get_type_hints

from hearback.engine.errors import HearbackError, did_you_mean
from hearback.engine.training.field_types import convert, describe, fits

Rule = tuple[str, bool, str]  # a field's path, whether its value keeps to the rule, and the rule


class InvalidFieldsError(HearbackError):
    """Fields with invalid values.

    `subject` says whose they are. `problems` has, by the path of a field, its value and the rule
    that it breaks.
    """

    def __init__(self, subject: str, problems: Mapping[str, str]) -> None:
        super().__init__(subject, problems)
        self.subject, self.problems = subject, problems

    def __str__(self) -> str:
        """Return all problems in one line."""
        return f"{self.subject}: {'; '.join(f'{at} is {p}' for at, p in self.problems.items())}"


class ValidatedFields:
    """Base of frozen dataclasses whose fields are validated and read from JSON.

    Annotations have a field's type and range (`field_types`), `_rules` the rules between fields. A
    field can be a group of fields, of another subclass: messages name its fields as GROUP.FIELD.
    `KIND` is the dataclass's name in messages.
    """

    KIND: ClassVar[str]

    def __post_init__(self) -> None:
        """Raise InvalidFieldsError with each invalid value and the rule that it breaks."""
        problems = self._unfit(vars(self))
        if all(fits(getattr(self, name), hint) for name, hint in self._hints().items()):
            # Rules compare values: these need the right type.
            for path, is_kept, rule in self._rules():
                if not is_kept:
                    problems.setdefault(path, f"{attrgetter(path)(self)}: {rule}")
        if problems:
            raise InvalidFieldsError(self._subject(vars(self)), problems)

    def _rules(self) -> Iterable[Rule]:
        """Return the rules between fields; ranges are in the fields' annotations."""
        return ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build an instance from JSON types.

        Raises HearbackError for unknown or missing fields and invalid values.
        """
        cls._check_names(values, cls.KIND)
        typed, problems = dict[str, Any](), dict[str, str]()
        for name, hint in cls._hints().items():
            if name not in values:
                continue
            if not (_is_group(hint) and isinstance(values[name], Mapping)):
                typed[name] = convert(values[name], hint)
                continue
            try:
                typed[name] = hint.from_dict(values[name])
            except InvalidFieldsError as error:
                problems |= {f"{name}.{path}": what for path, what in error.problems.items()}
        if problems:
            raise InvalidFieldsError(cls._subject(values), cls._unfit(typed) | problems)
        return cls(**typed)

    @classmethod
    def _unfit(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """Return the values that have not the type and range of their field, with what it takes."""
        return {
            name: f"{values[name]!r}: it must be {describe(hint)}"
            for name, hint in cls._hints(with_ranges=True).items()
            if name in values and not fits(values[name], hint)
        }

    @classmethod
    def _check_names(cls, values: Mapping[str, Any], kind: str, group: str = "") -> None:
        """Raise HearbackError for unknown or missing fields, with the path of their `group`."""
        hints = cls._hints()
        if unknown := sorted(set(values) - set(hints)):
            raise HearbackError(
                f"a {kind} has no field {', '.join(group + name for name in unknown)}; "
                f"{group.rstrip('.') or 'it'} has {', '.join(sorted(hints))}"
                f"{did_you_mean(unknown, hints)}"
            )
        needed = [each.name for each in fields(cls) if _is_needed(each)]  # type: ignore[arg-type]
        if missing := [repr(group + name) for name in needed if name not in values]:
            raise HearbackError(f"not a {kind}: it lacks {', '.join(missing)}")
        for name, hint in hints.items():
            if _is_group(hint) and isinstance(values.get(name), Mapping):
                hint._check_names(values[name], kind, f"{group}{name}.")

    @classmethod
    def _hints(cls, *, with_ranges: bool = False) -> dict[str, Any]:
        hints = get_type_hints(cls, include_extras=with_ranges)
        return {field.name: hints[field.name] for field in fields(cls)}  # type: ignore[arg-type]

    @classmethod
    def _subject(cls, values: Mapping[str, Any]) -> str:
        return f"{cls.KIND} {values['name']}" if "name" in values else cls.KIND


def _is_group(hint: Any) -> bool:  # noqa: ANN401
    return isinstance(hint, type) and issubclass(hint, ValidatedFields)


def _is_needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
