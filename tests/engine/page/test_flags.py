"""The flags of commands that write a page."""

from pathlib import Path

import pytest

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.page import flags
from hearback.engine.page.writing import PageOptions

PAGE, DEFAULT = Path("out/page.html"), Path("beside/report.html")


@pytest.mark.parametrize(
    ("page", "default", "expected"),
    [(None, DEFAULT, DEFAULT), (PAGE, DEFAULT, PAGE), (PAGE, None, PAGE), (None, None, None)],
)
def test_the_page_that_is_asked_for_comes_before_the_default(
    page: Path | None, default: Path | None, expected: Path | None
) -> None:
    assert flags.choose_page(page, default, is_off=False) == expected


def test_no_page_is_no_page_and_both_flags_contradict_each_other() -> None:
    assert flags.choose_page(None, DEFAULT, is_off=True) is None
    with pytest.raises(HearbackError) as raised:
        flags.choose_page(PAGE, DEFAULT, is_off=True)
    assert str(raised.value) == f"--page {PAGE} and --no_page: leave one of them out"


def test_the_default_page_is_beside_the_table() -> None:
    assert flags.page_beside(Path("runs/submission.csv")) == Path("runs/submission.html")


def test_the_report_flags_are_its_options() -> None:
    parser = cli.parser(None)
    parser.add_argument("--scores", type=Path)
    flags.add_report_flags(parser, "speakers")
    assert flags.report_options(parser.parse_args([])) == PageOptions(progress=True)
    scored = flags.report_options(parser.parse_args(["--scores", "runs/scores.csv"]))
    assert scored == PageOptions(Path("runs/scores.html"), progress=True)
    written = ["--out", "a.html", "--audio", "all", "--anonymous", "--seed", "3"]
    options = flags.report_options(parser.parse_args(written))
    assert options == PageOptions(Path("a.html"), "all", True, 3, progress=True)
