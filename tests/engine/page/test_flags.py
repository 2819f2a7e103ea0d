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
    page: Path | None,
    default: Path | None,
    expected: Path | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
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


@pytest.mark.parametrize("name", ["x.csv", "data/train_labels.csv", "page"])
def test_a_page_replaces_no_other_file(name: str, tmp_path: Path) -> None:
    page = tmp_path / name
    parser = cli.parser(None)
    parser.add_argument("--scores", type=Path)
    flags.add_report_flags(parser, "speakers")
    with pytest.raises(HearbackError) as raised:
        flags.report_options(parser.parse_args(["--out", str(page)]))
    expected = f"{page}: a page is HTML; name a file that ends with .html"
    assert str(raised.value) == f"--out {expected}"
    with pytest.raises(HearbackError) as raised:
        flags.choose_page(page, DEFAULT, is_off=False)
    assert str(raised.value) == f"--page {expected}"


def test_a_command_is_repeated_with_the_flags_that_are_not_as_by_default() -> None:
    parser = cli.parser(None)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--models", nargs="+")
    names = ("data", "assets", "models")
    parsed = parser.parse_args(["--data", "my data", "--models", "modeltok", "model1m"])
    command = flags.repeated("python report.py", parser, parsed, names)
    assert command == "python report.py --data 'my data' --models modeltok model1m"
    assert flags.repeated("r", parser, parser.parse_args([]), names) == "r"


def test_the_command_of_a_page_of_scores_names_its_table() -> None:
    command = flags.report_command("python report.py", Path("a b.csv"), Path("a b.html"))
    assert command == "python report.py --scores 'a b.csv'"
    command = flags.report_command("python report.py", Path("s.csv"), Path("page.html"))
    assert command == "python report.py --scores s.csv --out page.html"
