"""What a section of the check found: checks, rows of a table, notes; written as it is found.

A section runs in a process of its own. Its record is written after each change, so that what was
found is kept when the section fails, or is ended because its time is up.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from hearback.engine.io import read_json, write_json

Outcome = Literal["passed", "failed", "out of time"]


@dataclass(frozen=True)
class Check:
    """A statement that holds or does not: what was measured, and what it has to be."""

    name: str
    passed: bool
    measured: str
    required: str


@dataclass
class Record:
    """The findings of a section.

    Attributes:
        path: its JSON file.
        checks: the statements.
        rows: rows of the section's table, by column.
        notes: sentences for the reader.
        ends: when the section's time is up, by `time.monotonic`.
        done: the section came to its end.
    """

    path: Path
    checks: list[Check] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ends: float = float("inf")
    done: bool = False

    @property
    def passed(self) -> bool:
        """Whether the section came to its end, and all its statements hold."""
        return self.done and all(check.passed for check in self.checks)

    @property
    def seconds_left(self) -> float:
        """Seconds until the section is ended."""
        return self.ends - time.monotonic()

    def check(self, name: str, passed: bool, measured: str, required: str) -> None:
        """Add a statement."""
        self.checks.append(Check(name, bool(passed), measured, required))
        print(f"{'ok    ' if passed else 'FAILED'} {name}: {measured} ({required})", flush=True)
        self.save()

    def at_most(self, name: str, value: float, limit: float, unit: str = "") -> None:
        """Check that a number is at most `limit`; NaN is not."""
        unit = f" {unit}" if unit else ""
        self.check(name, value <= limit, f"{value:.2g}{unit}", f"at most {limit:g}{unit}")

    def row(self, **columns: Any) -> None:  # noqa: ANN401  (any JSON value)
        """Add a row."""
        self.rows.append(columns)
        print("; ".join(f"{name} {value}" for name, value in columns.items()), flush=True)
        self.save()

    def note(self, sentence: str) -> None:
        """Add a sentence."""
        self.notes.append(sentence)
        print(sentence, flush=True)
        self.save()

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """Turn an exception in the block into a failed check of this name."""
        try:
            yield
        except Exception as error:
            what = " ".join(str(error).split())[:200]
            self.check(name, False, f"{type(error).__name__}: {what}", "no error")

    def finish(self) -> None:
        """Mark the section as complete."""
        self.done = True
        self.save()

    def save(self) -> None:
        """Write the file."""
        write_json(
            self.path,
            {
                "checks": [asdict(check) for check in self.checks],
                "rows": self.rows,
                "notes": self.notes,
                "done": self.done,
            },
        )

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Read a section's file; an empty record if there is none."""
        found: Mapping[str, Any] = read_json(path) if path.exists() else {}
        return cls(
            path,
            [Check(**check) for check in found.get("checks", ())],
            list(found.get("rows", ())),
            list(found.get("notes", ())),
            done=bool(found.get("done", False)),
        )
