"""A row of a table, whatever the format of its file."""

import re
from dataclasses import dataclass

# A function, or the name of a cell, perhaps of another sheet, behind "="; or an error in place of a
# result.
_FORMULA = re.compile(
    r"=\s*[+-]?(?:[A-Z_@][\w.]*\(|(?:'[^']+'!|\w+!)?\$?[A-Z]{1,3}\$?\d)"
    r"|#(?:REF!|NAME\?|VALUE!|DIV/0!|NULL!|NUM!|N/A)",
    re.I,
)
FORMULA_CURE = "write the value itself there; a spreadsheet can paste values in place of formulas"


@dataclass(frozen=True)
class Row:
    """A row that is not blank.

    Attributes:
        line: the number of its first line, from 1; 0 for a header that is on no line of its own.
        fields: its values, stripped.
        fault: why they cannot be relied on, and `cure`, what to do; None if they can.
    """

    line: int
    fields: list[str]
    fault: str | None = None
    cure: str = ""


def is_formula(field: str) -> bool:
    """Return whether a field is a formula of a spreadsheet, or its error, in place of a value."""
    return _FORMULA.match(field) is not None
