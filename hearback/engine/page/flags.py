"""Flags of the commands that write a page; imports nothing that --help does not need."""

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.io import check_writable

if TYPE_CHECKING:
    from hearback.engine.page.writing import PageOptions

DEFAULT_PAGE = Path("report.html")
SOME, EVERY, NO = "some", "all", "none"
AUDIO = (SOME, EVERY, NO)  # recordings that a page plays
_SUFFIXES = (".html", ".htm")  # of pages


def add_report_flags(
    parser: argparse.ArgumentParser,
    people: str,
    default_page: Path = DEFAULT_PAGE,
    table: str = "scores.csv",
) -> None:
    """Add the flags of the step report.

    `people` are those of the recordings, such as speakers; `table` is an example for --scores.
    """
    add = parser.add_argument
    beside = page_beside(Path(table))
    help_ = f"page to write (default: {default_page}; with --scores {table}, {beside})"
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


def report_options(
    flags: argparse.Namespace, command: str = "", default_page: Path = DEFAULT_PAGE
) -> "PageOptions":
    """Return how the step report writes its page; `command` writes it, without --audio.

    Raises HearbackError if it cannot be written there.
    """
    # Not for --help: it takes a while to import.
    from hearback.engine.page.writing import PageOptions  # noqa: PLC0415

    out = flags.out or (default_page if flags.scores is None else page_beside(flags.scores))
    if out == flags.scores:
        raise HearbackError(f"{out}: is the table of --scores; name another file with --out")
    check_page(out, "--out")
    return PageOptions(
        out=out,
        audio=flags.audio,
        is_anonymous=flags.anonymous,
        seed=flags.seed,
        progress=True,
        command=command,
    )


def check_page(page: Path, flag: str) -> None:
    """Raise HearbackError if a page cannot be written there, or would replace another file."""
    if page.is_dir():
        raise HearbackError(f"{page}: is a folder; name a file in it")
    if page.suffix.lower() not in _SUFFIXES:
        raise HearbackError(f"{flag} {page}: a page is HTML; name a file that ends with .html")
    check_writable(page)


def repeated(
    command: str, parser: argparse.ArgumentParser, flags: argparse.Namespace, names: Sequence[str]
) -> str:
    """Return a command with those of the flags `names` that are not as by default."""
    words = [command]
    for name in names:
        value = getattr(flags, name)
        if value is None or value == parser.get_default(name):
            continue
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *(shlex.quote(str(each)) for each in values)]
    return " ".join(words)


def report_command(command: str, table: Path, page: Path | None) -> str:
    """Return the command that writes the page of a table of scores again."""
    words = [command, "--scores", shlex.quote(str(table))]
    if page is not None and page != page_beside(table):
        words += ["--out", shlex.quote(str(page))]
    return " ".join(words)


def add_page_flags(parser: argparse.ArgumentParser, description: str) -> None:
    """Add --page, with its description, and --no_page to a step that ends with a page."""
    parser.add_argument("--page", type=Path, metavar="PATH", help=description)
    parser.add_argument("--no_page", action="store_true", help="write no page")


def page_beside(table: Path) -> Path:
    """Return the default page of a table: scores.html of scores.csv."""
    return table.with_suffix(".html")


def choose_page(page: Path | None, default: Path | None, *, is_off: bool) -> Path | None:
    """Return the page to write: the one asked for, or the default; None for none.

    Raises HearbackError if one is asked for and also turned off, or is no HTML.
    """
    if is_off and page is not None:
        raise HearbackError(f"--page {page} and --no_page: leave one of them out")
    if page is not None:
        check_page(page, "--page")
    return None if is_off else page or default


def end_with_page(
    page: Path | None,
    write: Callable[["PageOptions"], None],
    audio: str = SOME,
    command: str = "",
) -> None:
    """Write the page that a step ends with, None for none.

    `audio` is one of `AUDIO`; `command` writes the page again, with other sound.
    """
    if page is None:
        return
    # Here: what steps do before needs none of it.
    from hearback.engine.page.writing import PageOptions  # noqa: PLC0415

    write(PageOptions(page, audio, command=command))


def end_check_models(
    page: Path | None, write: Callable[["PageOptions"], None], command: str
) -> None:
    """Write the page of check_models: without sound and the ensemble, which is not fitted yet.

    `command` writes one with both.
    """
    if page is None:
        return
    print()
    end_with_page(page, write, NO, command)
    print(f"{command} writes it with the ensemble and with sound")
