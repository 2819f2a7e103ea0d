"""Print the model card of a scorer: data, licence, scores, and for whom it is wrong."""

from pathlib import Path

from hearback.engine import cli
from hearback.engine.errors import HearbackError, did_you_mean
from hearback.reading.pretrained.folders import CARD, PRETRAINED, find_scorers, is_folder


def main() -> None:
    """Print the card."""
    parser = cli.parser(__doc__)
    parser.add_argument("name", help="name of a shipped scorer, or a scorer's folder")
    print(read_card(parser.parse_args().name), end="")


def read_card(name: str) -> str:
    """Return a scorer's card; raise HearbackError if there is no such scorer, or no card."""
    names = [path.name for path in find_scorers(PRETRAINED)]
    folder = PRETRAINED / name if name in names else Path(name)
    path = folder / CARD
    if not is_folder(folder):
        known = ", ".join(names) or "none is in this package"
        raise HearbackError(
            f"{name}: no such scorer, and no such folder; the scorers are {known}"
            f"{did_you_mean([name], names)}"
        )
    if not path.is_file():
        raise HearbackError(f"{path}: no such file; this folder's scorer has no card")
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
