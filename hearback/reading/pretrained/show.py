"""Print the model card of a scorer: data, licence, scores, and for whom it is wrong."""

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.reading.pretrained.folders import CARD, find_scorer


def main() -> None:
    """Print the card."""
    parser = cli.parser(__doc__)
    parser.add_argument("name", help="name of a shipped scorer, or a scorer's folder")
    print(read_card(parser.parse_args().name), end="")


def read_card(name: str) -> str:
    """Return a scorer's card; raise HearbackError if there is no such scorer, or no card."""
    path = find_scorer(name) / CARD
    if not path.is_file():
        raise HearbackError(f"{path}: no such file; this folder's scorer has no card")
    return path.read_text(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    cli.run(main)
