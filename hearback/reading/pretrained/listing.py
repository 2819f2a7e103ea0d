"""List the scorers of this package, or of another folder: name, size, and what they are."""

from pathlib import Path

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.reading.pretrained.folders import (
    CARD,
    PRETRAINED,
    find_scorers,
    n_bytes,
    show_megabytes,
)


def main() -> None:
    """Print a line for each scorer."""
    parser = cli.parser(__doc__)
    parser.add_argument("--folder", type=Path, default=PRETRAINED, help="folder of the scorers")
    folder = parser.parse_args().folder
    scorers = find_scorers(folder)
    if not scorers:
        raise HearbackError(
            f"{folder}: no scorers there; build one with "
            "python -m hearback.reading.pretrained build"
        )
    width = max(len(path.name) for path in scorers)
    for path in scorers:
        size = show_megabytes(n_bytes(path))
        print(f"{path.name:{width}}  {size:>8}  {_summary(path / CARD)}")


def _summary(card: Path) -> str:
    """Return the first line of a card that is not its heading."""
    if not card.is_file():
        return "has no card"
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in lines if line and not line.startswith("#")), "")


if __name__ == "__main__":
    cli.run(main)
