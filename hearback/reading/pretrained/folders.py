"""Where scorers are, and how large."""

from pathlib import Path

from hearback.engine.project import PACKAGE

PRETRAINED = PACKAGE / "reading" / "pretrained"
CONFIG, CARD = "model_configs.json", "card.md"
MAX_SHIPPED_BYTES = 8_000_000  # of all scorers of the package together


def find_scorers(folder: Path) -> list[Path]:
    """Return the folders of the scorers in `folder`, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))


def n_bytes(folder: Path) -> int:
    """Return the size of a folder's files, in bytes."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def show_megabytes(n: int) -> str:
    """Return a size such as "3.2 MB"."""
    return f"{n / 1e6:.1f} MB"
