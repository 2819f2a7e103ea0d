"""What the steps' command lines share."""

import argparse
import errno
import io
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import pandas as pd

from hearback.engine.errors import HearbackError

# What a person can put right about a disk, and how.
DISK_CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable"),
}


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show defaults, except where there is none to speak of."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser whose flags are declared with underscores and also understood with dashes.

    `--n_folds` is declared and shown; `--n-folds` means the same. Flags are never guessed from
    their first letters, and an unknown one ends the program with status 2.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:  # noqa: ANN401  (argparse's own)
        settings.setdefault("allow_abbrev", False)
        settings.setdefault("formatter_class", _Formatter)
        super().__init__(*args, **settings)

    def parse_known_args(  # type: ignore[override]  # typeshed has overloads of it
        self,
        args: Sequence[str] | None = None,
        namespace: Any = None,  # noqa: ANN401
    ) -> tuple[Any, list[str]]:
        """Parse `args`, with dashes inside a known flag's name read as underscores."""
        args = list(sys.argv[1:] if args is None else args)
        n_flags = args.index("--") if "--" in args else len(args)
        declared = [self._declared(arg) for arg in args[:n_flags]]
        return super().parse_known_args(declared + args[n_flags:], namespace)

    def _declared(self, arg: str) -> str:
        """Return `arg` as its flag was declared; anything else as it is."""
        if not arg.startswith("--"):
            return arg
        flag, equals, value = arg.partition("=")
        declared = "--" + flag[2:].replace("-", "_")
        return declared + equals + value if declared in self._option_string_actions else arg


def parser(description: str | None) -> Parser:
    """Return a parser for a step; `description` is usually the script's `__doc__`."""
    return Parser(description=description)


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a step and exit with its status.

    What the person can put right (a `HearbackError`, a full disk) is said on standard error without
    a traceback, with status 2; any other exception is a bug and keeps its traceback. Ctrl-C exits
    with 130, as shells expect. What a terminal's encoding lacks is printed as an escape: a text in
    a warning ends no step.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _leave_disks_to_main()
    try:
        status = main()
    except HearbackError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        cure = _cure_of_disk(error)
        if cure is None:
            raise
        print(
            f"{error.filename or 'the disk'}: {error.strerror}; {cure} and run the same command "
            "again: what was there before, and what is done, is kept",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    sys.exit(status)


def _cure_of_disk(error: BaseException | None) -> str | None:
    if isinstance(error, OSError) and error.errno is not None:
        return DISK_CURES.get(error.errno)
    return None


def _leave_disks_to_main() -> None:
    """Let no other thread print the traceback of a full disk.

    TensorBoard writes in a thread of its own and hands its error on to the main one, which says it.
    """
    former = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if _cure_of_disk(failed.exc_value) is None:
            former(failed)

    threading.excepthook = hook


def as_text(frame: pd.DataFrame) -> str:
    """Return a table as a terminal shows it, numbers with four decimals."""
    return frame.to_string(float_format=lambda number: f"{number:.4f}", na_rep="–")
