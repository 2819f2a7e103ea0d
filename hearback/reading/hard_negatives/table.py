"""Hard negatives, and their table in the folder of the references.

tts_data/hard_negatives.csv
  text, hard_negative, kind, wrong (positions, space-separated), gap (empty for none)
"""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write
from hearback.reading import step_command

Kind = Literal["substitute", "omit", "insert", "neighbour", "respell"]

TABLE = "hard_negatives.csv"
_COLUMNS = ("text", "hard_negative", "kind", "wrong", "gap")


@dataclass(frozen=True)
class HardNegative:
    """A text that differs from an original text by one word or one sound.

    `wrong` are the positions of the words in `text` that differ from the original. `gap` is the
    position in `text` before which a word of the original is missing (the number of words if it is
    the last one), or None. Words are separated by white space.
    """

    text: str
    kind: Kind
    wrong: tuple[int, ...]
    gap: int | None = None


def write_hard_negatives(
    hard_negatives: Mapping[str, Iterable[HardNegative]], folder: Path
) -> None:
    """Write text -> its hard negatives to the table in the references' folder, atomically."""
    rows = [
        (text, negative.text, negative.kind, " ".join(map(str, negative.wrong)), negative.gap)
        for text, negatives in hard_negatives.items()
        for negative in negatives
    ]
    content = io.StringIO(newline="")
    # Quote everything: a text may have a line break, or a lone carriage return.
    writer = csv.writer(content, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([_COLUMNS, *rows])
    encoded, path = content.getvalue().encode(), folder / TABLE
    if path.is_file() and path.read_bytes() == encoded:
        return  # the same table, perhaps on a read-only disk
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded)


def read_hard_negatives(folder: Path) -> dict[str, tuple[HardNegative, ...]]:
    """Return text -> its hard negatives, in file order, from the references' folder.

    Raises HearbackError, with the cure, if the table is missing or damaged.
    """
    path = folder / TABLE
    cure = f"`{step_command('preprocess')} --tts_data {folder} --hard_negatives 2` writes it"
    if not path.is_file():
        raise HearbackError(f"{path}: no hard negatives there; {cure}")
    found: dict[str, list[HardNegative]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            has_columns = set(_COLUMNS).issubset(reader.fieldnames or ())
            for row in reader if has_columns else ():
                found.setdefault(row["text"], []).append(_from_row(row))
        except (ValueError, AttributeError, TypeError, csv.Error) as error:
            where = f"{path}, line {reader.line_num}"
            raise HearbackError(f"{where}: damaged ({error}); delete it, and {cure}") from error
    if not has_columns:
        raise HearbackError(f"{path}: not a table of hard negatives; delete it, and {cure}")
    return {text: tuple(negatives) for text, negatives in found.items()}


def _from_row(row: Mapping[str, str]) -> HardNegative:
    """Parse a row of the table. Raises ValueError, AttributeError or TypeError if it is invalid."""
    wrong = tuple(int(at) for at in row["wrong"].split())
    gap = int(row["gap"]) if row["gap"] else None
    n_words = len(row["hard_negative"].split())
    kinds: tuple[Kind, ...] = get_args(Kind)
    kind = next((kind for kind in kinds if kind == row["kind"]), None)
    if kind is None:
        raise ValueError(f"unknown kind {row['kind']!r}")
    if not n_words or any(not 0 <= at < n_words for at in wrong):
        raise ValueError(f"no words {row['wrong']} in {row['hard_negative']!r}")
    if gap is not None and not 0 <= gap <= n_words:
        raise ValueError(f"no gap {gap} in {row['hard_negative']!r}")
    return HardNegative(row["hard_negative"], kind, wrong, gap)
