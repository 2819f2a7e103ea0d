"""Where scorers are, how large, and what their cards state."""

import itertools
from pathlib import Path

from hearback.engine.errors import HearbackError
from hearback.engine.project import PACKAGE

PRETRAINED = PACKAGE / "reading" / "pretrained"
CONFIG, CARD = "model_configs.json", "card.md"
MAX_SHIPPED_BYTES = 8_000_000  # of all scorers of the package together


def find_scorers(folder: Path) -> list[Path]:
    """Return the folders of the scorers in `folder`, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))


def find_scorer(name_or_folder: str | Path) -> Path:
    """Return the folder of a scorer; raise HearbackError if there is none of that name."""
    shipped = [path.name for path in find_scorers(PRETRAINED)]
    if str(name_or_folder) in shipped:
        return PRETRAINED / str(name_or_folder)
    folder = Path(name_or_folder)
    if (folder / CONFIG).is_file():
        return folder
    names = ", ".join(shipped) or "none is in this package"
    what = "has no model_configs.json" if folder.is_dir() else "no such scorer, and no such folder"
    raise HearbackError(
        f"{name_or_folder}: {what}; use a shipped scorer ({names}), or the folder of an ensemble "
        "with its model_configs.json and its folds"
    )


def read_facts(folder: Path) -> list[tuple[str, str]]:
    """Return the facts of a scorer's card, (name, value) each; [] if it has none."""
    path = folder / CARD
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    table = itertools.takewhile(
        lambda line: line.startswith("|"),
        itertools.dropwhile(lambda line: not line.startswith("| --- "), lines),
    )
    rows = [line.strip("| ").split(" | ", 1) for line in list(table)[1:]]
    return [(name, value) for name, value in rows]


def n_bytes(folder: Path) -> int:
    """Return the size of a folder's files, in bytes."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def show_megabytes(n: int) -> str:
    """Return a size such as "3.2 MB"."""
    return f"{n / 1e6:.1f} MB"
