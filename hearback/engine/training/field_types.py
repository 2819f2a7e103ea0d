"""Types of a recipe's fields: their ranges, whether a value fits one, and how one is described."""

import operator
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_BOUNDS = {
    "at_least": (operator.ge, "of at least"),
    "above": (operator.gt, "above"),
    "at_most": (operator.le, "of at most"),
    "below": (operator.lt, "below"),
}
_NAMES = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
}


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers within bounds, for `Annotated[float, Range(at_least=0, below=1)]`."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        """Return whether a number is within the bounds."""
        return all(_BOUNDS[name][0](value, bound) for name, bound in self._bounds().items())

    def __str__(self) -> str:
        """Return the bounds in words, after "a number": "of at least 0 and below 1"."""
        bounds = self._bounds()
        if bounds.keys() == {"at_least", "at_most"}:
            return f"from {self.at_least:g} to {self.at_most:g}"
        return " and ".join(f"{_BOUNDS[name][1]} {bound:g}" for name, bound in bounds.items())

    def _bounds(self) -> dict[str, float]:
        return {name: bound for name, bound in vars(self).items() if bound is not None}


AtLeast0 = Annotated[float, Range(at_least=0)]
Above0 = Annotated[float, Range(above=0)]
Share = Annotated[float, Range(at_least=0, at_most=1)]
ShareBelow1 = Annotated[float, Range(at_least=0, below=1)]
CountFrom0 = Annotated[int, Range(at_least=0)]
CountFrom1 = Annotated[int, Range(at_least=1)]


def fits(value: Any, hint: Any) -> bool:  # noqa: ANN401
    """Return whether a value has the type, and is in the range, of a field's annotation."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return fits(value, options[0]) and value in options[1]
    if origin is Literal:
        return value in options
    if origin in (Union, UnionType):
        return any(fits(value, option) for option in options)
    if origin is tuple:
        items = _of_items(options, len(value)) if isinstance(value, tuple) else None
        return items is not None and len(value) == len(items) and all(map(fits, value, items))
    if hint is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is hint


def convert(value: Any, hint: Any) -> Any:  # noqa: ANN401
    """Return a value from JSON as a field's annotation has it, also in lists.

    Lists become tuples, and whole numbers float where a number can be float: 0 and 0.0 are the same
    recipe. What does not fit is left as it is.
    """
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return convert(value, options[0])
    if origin in (Union, UnionType):
        for option in options:
            value = convert(value, option)
        return value
    if origin is tuple and isinstance(value, list):
        items = _of_items(options, len(value))
        return tuple(map(convert, value, items) if len(items) == len(value) else value)
    if hint is float and type(value) is int and fits(value, float):
        return float(value)
    return value


def _of_items(options: tuple[Any, ...], n: int) -> tuple[Any, ...]:
    """Return the annotations of `n` items, by the arguments of a tuple's annotation."""
    return options[:1] * n if options[1:] == (...,) else options


def describe(hint: Any) -> str:  # noqa: ANN401
    """Return the values that fit a field's annotation in words: "a number of at least 0"."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{describe(options[0])} {options[1]}"
    if origin is Literal:
        return any_of([repr(option) for option in options])
    if origin in (Union, UnionType):
        return any_of([describe(option) for option in options])
    if origin is tuple:
        length = "" if options[1:] == (...,) else f" of {len(options)}"
        return f"a list{length}, each {describe(options[0])}"
    return _NAMES.get(hint) or f"an object with the fields of {hint.__name__}"


def any_of(names: Sequence[str]) -> str:
    """Return "a, b or c"."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
