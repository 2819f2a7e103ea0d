"""Flags of the commands that write a page; imports nothing that --help does not need."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.io import check_writable

if TYPE_CHECKING:
    from hearback.engine.page.writing import PageOptions

DEFAULT_PAGE = Path("report.html")
SOME, EVERY, NO = AUDIO = ("some", "all", "none")  # recordings that a page plays


def add_report_flags(
    parser: argparse.ArgumentParser, people: str, default_page: Path = DEFAULT_PAGE
) -> None:
    """Add the flags of the step report; `people` are those of the recordings, such as speakers."""
    parser.set_defaults(default_page=default_page)
    add = parser.add_argument
    help_ = f"page to write (default: {default_page}; with --scores scores.csv, scores.html)"
    add("--out", type=Path, help=help_)
    add(
        "--audio",
        choices=AUDIO,
        default=SOME,
        help="recordings to listen to; some: those without a score, the 150 worst and 50 others, "
        "at most 10 MB",
    )
    add("--anonymous", action="store_true", help=f"leave out filenames, {people} and sound")
    add("--seed", type=cli.int_of_at_least(0), default=0, help="of the 50 other recordings")


def report_options(flags: argparse.Namespace) -> "PageOptions":
    """Return how the step report writes its page.

    Raises HearbackError if it cannot be written there.
    """
    # Not for --help: it takes a while to import.
    from hearback.engine.page.writing import PageOptions  # noqa: PLC0415

    out = flags.out or (flags.default_page if flags.scores is None else page_beside(flags.scores))
    if out.is_dir():
        raise HearbackError(f"{out}: is a folder; name a file in it")
    if out == flags.scores:
        raise HearbackError(f"{out}: is the table of --scores; name another file with --out")
    check_writable(out)
    return PageOptions(
        out=out,
        audio=flags.audio,
        is_anonymous=flags.anonymous,
        seed=flags.seed,
        progress=True,
    )


def add_page_flags(parser: argparse.ArgumentParser, description: str) -> None:
    """Add --page, with its description, and --no_page to a step that ends with a page."""
    parser.add_argument("--page", type=Path, metavar="PATH", help=description)
    parser.add_argument("--no_page", action="store_true", help="write no page")


def page_beside(table: Path) -> Path:
    """Return the default page of a table: scores.html of scores.csv."""
    return table.with_suffix(".html")


def choose_page(page: Path | None, default: Path | None, *, is_off: bool) -> Path | None:
    """Return the page to write: the one asked for, or the default; None for none.

    Raises HearbackError if one is asked for and also turned off.
    """
    if is_off and page is not None:
        raise HearbackError(f"--page {page} and --no_page: leave one of them out")
    return None if is_off else page or default
