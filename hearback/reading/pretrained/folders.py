"""Where scorers are, how large, and what their cards state."""

import itertools
import os
from pathlib import Path

from hearback.engine.errors import HearbackError, did_you_mean
from hearback.engine.project import PACKAGE

PRETRAINED = PACKAGE / "reading" / "pretrained"
DEFAULT_SCORER = "tiny.en"
CONFIG, CARD = "model_configs.json", "card.md"
MAX_SHIPPED_BYTES = 8_000_000  # of all scorers of the package together


def find_scorers(folder: Path) -> list[Path]:
    """Return the folders of the scorers in `folder`, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))


def is_built(folder: Path) -> bool:
    """Return whether a folder is a scorer of the command `build`."""
    return (folder / CONFIG).is_file() and (folder / CARD).is_file()


def find_scorer(name_or_folder: str | Path) -> Path:
    """Return the folder of a scorer; raise HearbackError if there is none of that name."""
    shipped = [path.name for path in find_scorers(PRETRAINED)]
    if str(name_or_folder) in shipped:
        return PRETRAINED / str(name_or_folder)
    folder = Path(name_or_folder)
    # Unlike Path.is_dir, False also for a name that is too long.
    is_folder = os.path.isdir(folder)  # noqa: PTH112
    if is_folder and (folder / CONFIG).is_file():
        _check_folds(folder)
        return folder
    names = ", ".join(shipped) or "none is in this package"
    what = "no such scorer, and no such folder"
    if is_folder:
        what = "has no model_configs.json"
    raise HearbackError(
        f"{folder}: {what}; use a shipped scorer ({names}), or the folder of an ensemble "
        "with its model_configs.json and its folds"
        f"{did_you_mean([str(name_or_folder)], shipped)}"
    )


def _check_folds(folder: Path) -> None:
    """Raise HearbackError if an ensemble's folds are in its subfolder assets, as steps have it."""
    if not any(folder.glob("*.safetensors")) and any((folder / "assets").glob("*.safetensors")):
        raise HearbackError(
            f"{folder}: its folds are in {folder / 'assets'}; copy {CONFIG} there, and name that "
            "folder"
        )


def read_facts(folder: Path) -> list[tuple[str, str]]:
    """Return the facts of a scorer's card, (name, value) each; [] if none can be read."""
    path = folder / CARD
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # the scores do not need it
        return []
    table = itertools.takewhile(
        lambda line: line.startswith("|"),
        itertools.dropwhile(lambda line: not line.startswith("| --- "), lines),
    )
    rows = [line.strip("| ").split(" | ", 1) for line in list(table)[1:]]
    return [(row[0], row[1]) for row in rows if len(row) == 2]


def n_bytes(folder: Path) -> int:
    """Return the size of a folder's files, in bytes."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def show_megabytes(n: int) -> str:
    """Return a size such as "3.2 MB"."""
    return f"{n / 1e6:.1f} MB"
