"""A row of a table, whatever the format of its file."""

from dataclasses import dataclass


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
