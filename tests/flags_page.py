"""docs/reference/flags.md, made from the parsers of the commands.

    python -m tests.flags_page

writes it again, after a flag, its default or its help text has changed. `tests/test_docs.py`
compares the page with the parsers.
"""

import argparse
import functools
import runpy
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from hearback.engine import cli

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "flags.md"

# By heading of the page: the commands, as they are typed.
COMMANDS = {
    "Scores without training": (
        "python score.py",
        "python -m hearback.reading.pretrained list",
        "python -m hearback.reading.pretrained show",
        "python -m hearback.reading.pretrained build",
        "python -m hearback.reading.scoring.abstention",
    ),
    "The five steps": (
        "python preprocess.py",
        "python train.py",
        "python train_modeltok.py",
        "python check_models.py",
        "python get_config.py",
        "python infer.py",
    ),
    "The page": ("python report.py",),
    "Submission": (
        "python -m hearback.reading.submission.pack",
        "python -m hearback.reading.submission.dry_run",
    ),
    "Backbones and corpora": (
        "python -m hearback.engine.whisper.pretrained",
        "python -m hearback.engine.phones.pretrained",
        "python -m hearback.reading.corpora.sample",
        "python -m hearback.reading.corpora.speechocean762",
    ),
    "Baselines and ablation": (
        "python -m hearback.reading.baselines.train",
        "python -m hearback.reading.baselines.ablation",
    ),
    "The songs": (
        "python -m hearback.songs sample",
        "python -m hearback.songs preprocess",
        "python -m hearback.songs train",
        "python -m hearback.songs.recipes.whisper",
        "python -m hearback.songs check_models",
        "python -m hearback.songs get_config",
        "python -m hearback.songs infer",
        "python -m hearback.songs report",
        "python -m hearback.songs submission",
        "python -m hearback.songs dry_run",
    ),
}
INTRODUCTION = """\
# Flags

Written by `python -m tests.flags_page` from the commands' own parsers; do not edit it. Flags are
declared with underscores, dashes work too (`--n-folds`), and an unknown flag is an error. All
`train_model*.py` have the flags of `train_modeltok.py`, and all recipes of the songs those of
`whisper`.
"""


class _ParserFound(BaseException):  # no Exception, which `cli.run` would report
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


@contextmanager
def _stopping_at_parsers(arguments: list[str]) -> Iterator[None]:
    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _ParserFound(parser)

    hook, path = threading.excepthook, list(sys.path)
    try:
        with (
            mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
            mock.patch.object(sys, "argv", arguments),
            mock.patch.object(cli, "_program", []),  # as `cli.run_steps` would leave it
        ):
            yield
    finally:
        threading.excepthook, sys.path[:] = hook, path


@functools.cache
def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the parser of a command such as `python -m hearback.songs train`."""
    match command.split():
        case ["python", "-m", module, *steps]:
            run = functools.partial(runpy.run_module, module, run_name="__main__")
            arguments = [module, *steps]
        case ["python", script]:
            run = functools.partial(runpy.run_path, str(ROOT / script), run_name="__main__")
            arguments = [script]
        case _:
            raise ValueError(f"not a command of the page: {command}")
    with _stopping_at_parsers(arguments), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a module that was imported before runs once more
        try:
            run()
        except _ParserFound as found:
            return found.parser
    raise ValueError(f"{command}: parses no flags")


def flags_of(command: str) -> Mapping[str, argparse.Action]:
    """Return a command's flags and positional arguments by name, without --help."""
    return {
        action.option_strings[0] if action.option_strings else action.dest: action
        for action in parser_of(command)._actions
        if action.dest != "help"
    }


def names_of(command: str) -> set[str]:
    """Return all names of a command's flags, without --help."""
    return {name for action in flags_of(command).values() for name in action.option_strings}


def _default(action: argparse.Action) -> str:
    default = action.default
    if default is None or default is False or default is argparse.SUPPRESS or default == []:
        return ""
    values = default if isinstance(default, list | tuple) else [default]
    shown = " ".join(map(str, values))
    return f"`{shown.removeprefix(f'{ROOT}/')}`"  # the package's own folder


def _meaning(action: argparse.Action) -> str:
    return " ".join((action.help or "").replace("%%", "%").replace("|", "\\|").split())


def _name(name: str, action: argparse.Action) -> str:
    names = ", ".join(f"`{option}`" for option in action.option_strings or [name])
    if action.choices is not None and len(choices := list(action.choices)) <= 8:
        names += " " + " \\| ".join(map(str, choices))
    return names


def page() -> str:
    """Return the page, in Markdown."""
    parts = [INTRODUCTION]
    for heading, commands in COMMANDS.items():
        parts.append(f"## {heading}\n")
        for command in commands:
            rows = [
                f"| {_name(name, action)} | {_default(action)} | {_meaning(action)} |"
                for name, action in flags_of(command).items()
            ]
            table = ["| flag | default | meaning |", "| --- | --- | --- |", *rows]
            parts.append(f"### `{command}`\n")
            parts.append("\n".join(table) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
