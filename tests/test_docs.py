"""The pages agree with the code: links, commands, flags, recipe fields, the README's length."""

import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hearback.__main__ import STEPS
from hearback.engine.data.problems import Problem
from hearback.reading.inference import divergences
from hearback.reading.pretrained.folders import CARD, PRETRAINED
from hearback.reading.recipe import Recipe
from hearback.songs.recipe import SongRecipe
from tests import flags_page
from tests.flags_page import ROOT, names_of

FURTHER = (ROOT / "data/README.md", ROOT / "assets/README.md")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *FURTHER])
COMMAND_PAGES = [page for page in PAGES if page.name != "CHANGELOG.md"]  # that names former ones
FOLDERS = ("hearback/", "benchmarks/", "tests/", "docs/", "requirements/")
MODULE = re.compile(r"python -m ((?:hearback|benchmarks|tests)[\w.]*)((?: [\w-]+)?)")
SCRIPT = re.compile(r"(?:python )?(\w+\.py)\b")
FLAG = re.compile(r"(?<![\w-])--([a-z][\w-]*)")
AT_COMMIT = re.compile(r"commit\s+[0-9a-f]{7}")
RECIPES = {"reading": Recipe, "songs": SongRecipe}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def paragraphs(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield a page's paragraphs and the code in each: spans, or the lines of a fenced block.

    An item of a list is a paragraph, a row of a table as well. Code that "commit <hash>" in its
    paragraph dates is left out: it ran at that commit.
    """
    text = page.read_text(encoding="utf-8")
    for number, part in enumerate(re.split(r"^ *```.*\n", text, flags=re.MULTILINE)):
        if number % 2:
            lines = part.replace("\\\n", " ").splitlines()
            yield part, [line.partition(" # ")[0] for line in lines]
            continue
        for paragraph in re.split(r"\n\s*\n|\n(?=\s*[-|] )|\n(?=\|)", part):
            if not AT_COMMIT.search(paragraph):
                spans = re.findall(r"`([^`]+)`", paragraph)
                yield paragraph, [" ".join(span.split()) for span in spans]


def code(page: Path) -> list[str]:
    return [piece for _, pieces in paragraphs(page) for piece in pieces]


def slugs(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@functools.cache
def module_file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__main__.py"):
        if file.is_file():
            return file
    return None


def script_files(name: str) -> list[Path]:
    """Return where a script may be: main.py is at the root of a submission alone."""
    return [ROOT / name, *ROOT.glob(f"hearback/*/submission/{name}")]


def commands(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the project's commands on a page as (command, arguments)."""
    for piece in code(page):
        for match in MODULE.finditer(piece):
            module, step = match[1], match[2]
            has_steps = module in ("hearback.songs", "hearback.reading.pretrained")
            end = match.end() if has_steps else match.end(1)
            yield f"python -m {module}{step if has_steps else ''}", piece[end:]
        script = SCRIPT.match(piece)
        if script and (piece.startswith("python ") or "--" in piece):
            yield f"python {script[1]}", piece[script.end() :]


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_readme_begins_with_the_two_commands() -> None:
    start = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:20]
    for command in ("make demo", "make test"):
        assert any(line.startswith(command) for line in start)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in slugs(file)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", COMMAND_PAGES, ids=name_of)
def test_commands_exist(page: Path) -> None:
    for command, _ in commands(page):
        words = command.split()
        files = [module_file(words[2])] if words[1] == "-m" else script_files(words[1])
        assert any(file is not None and file.is_file() for file in files), command
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for piece in code(page):
        if piece.startswith("make "):
            assert piece.split()[1] in targets, piece
        if piece.startswith("hearback "):
            assert piece.split()[1] in {*STEPS, "STEP"}, piece


@pytest.mark.parametrize("page", COMMAND_PAGES, ids=name_of)
def test_flags_exist(page: Path) -> None:
    everywhere = {
        flag
        for several in flags_page.COMMANDS.values()
        for command in several
        for flag in names_of(command)
    }
    for command, arguments in commands(page):
        for flag in FLAG.findall(arguments):
            assert "--" + flag.replace("-", "_") in names_of(command), f"{command} --{flag}"
    for piece in code(page):
        if piece.startswith("--") and piece != "--help":
            for flag in FLAG.findall(piece):
                known = "--" + flag.replace("-", "_") in everywhere
                assert known or _of_a_benchmark(flag), f"--{flag}"


def _of_a_benchmark(flag: str) -> bool:
    sources = [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("tests/soak/*.py")]
    return any(f'"--{flag}"' in source.read_text(encoding="utf-8") for source in sources)


@pytest.mark.parametrize("page", COMMAND_PAGES, ids=name_of)
def test_settings_are_recipe_fields(page: Path) -> None:
    fields = {
        field.name
        for kind in RECIPES.values()
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
    }
    for piece in code(page):
        for name in re.findall(r"--set '?(\w+)=", piece):
            assert name in fields | {"FIELD"}, piece


@pytest.mark.parametrize("page", COMMAND_PAGES, ids=name_of)
def test_paths_exist(page: Path) -> None:
    for piece in code(page):
        for word in piece.split():
            if word.startswith(FOLDERS) and re.fullmatch(r"[\w./-]+", word):
                assert (ROOT / word).exists(), word


def test_sources_name_pages_and_modules_that_exist() -> None:
    sources = [
        *(file for folder in FOLDERS[:3] for file in (ROOT / folder).rglob("*.py")),
        *ROOT.glob("requirements/*.txt"),
        *ROOT.glob("*.py"),
        ROOT / "Makefile",
    ]
    for source in sources:
        text, name = source.read_text(encoding="utf-8"), source.relative_to(ROOT)
        for page in re.findall(r"\bdocs/[\w/]+\.md\b", text):
            assert (ROOT / page).is_file(), f"{name}: {page}"
        for module, _ in MODULE.findall(text):
            assert module_file(module.rstrip(".")) is not None, f"{name}: {module}"


def test_flags_page_is_that_of_the_parsers() -> None:
    written = flags_page.PAGE.read_text(encoding="utf-8")
    assert written == flags_page.page(), "python -m tests.flags_page writes it again"


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_figures_of_shipped_scorers_are_those_of_their_cards(name: str) -> None:
    card = PRETRAINED / name / CARD
    text = card.read_text(encoding="utf-8")

    def cell(row: str, n: int) -> str:
        (line,) = re.findall(rf"^\| {row} \| (.+) \|$", text, re.MULTILINE)
        return str(line.split(" | ")[n])

    figure, alarms, misses = cell("all", 2), *(cell("grade given", n) for n in (0, 1))
    (row,) = _rows_with("docs/results/README.md", f"/{name}/card.md")
    assert figure in row
    (row,) = _rows_with("docs/guide/pretrained.md", f"| `{name}` |")
    youngest, *shares = [float(each.split()[0]) for each in (cell("KG and 1", 2), alarms, misses)]
    decided = ", ".join(f"{share:.0%}".replace("%", " %") for share in shares)
    assert row.startswith(f"| `{name}` | {figure} | {youngest:.3f} | {decided} |")


def _rows_with(page: str, text: str) -> list[str]:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("| ") and text in line]


@pytest.mark.parametrize("heading", RECIPES)
def test_recipe_fields_are_documented(heading: str) -> None:
    text = (ROOT / "docs/reference/recipes.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (table,) = [part for part in section if part.partition("\n")[0].lower().endswith(heading)]
    documented = dict(re.findall(r"^\| `(\w+)` \| (?:`([^`]*)`)? *\|", table, re.MULTILINE))
    fields = dataclasses.fields(RECIPES[heading])  # type: ignore[arg-type]
    assert documented == {field.name: _default(field) for field in fields}


def test_columns_are_documented() -> None:
    text = (ROOT / "docs/reference/files.md").read_text(encoding="utf-8")
    problem = [field.name for field in dataclasses.fields(Problem)]
    for columns in (divergences.COLUMNS, problem):
        assert ", ".join(columns) in text


def _default(field: "dataclasses.Field[object]") -> str:
    if field.default is dataclasses.MISSING:
        return ""
    text = str(field.default)
    return text.replace(" ", "") if isinstance(field.default, tuple) else text
