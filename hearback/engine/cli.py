"""Command lines: parsers, exit statuses, and a command with several steps."""

import argparse
import ast
import contextlib
import errno
import importlib
import importlib.util
import io
import math
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from hearback.engine import failures
from hearback.engine.errors import HearbackError, did_you_mean

if TYPE_CHECKING:  # importing it takes most of a second, in which nothing catches Ctrl-C
    import pandas as pd

# Errors of a disk that the user can fix, and how.
DISK_CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable"),
    **dict.fromkeys((errno.EEXIST, errno.EISDIR), "move it away"),
    errno.ENOTDIR: "use a path below a folder",
    errno.ENAMETOOLONG: "use a shorter name",
}
_flags: set[str] = set()  # of the parsers that were used, without dashes
SIGPIPE_STATUS = 128 + 13  # of a process that a closed pipe ends


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show defaults, except None, False and lists, which the help describes in words."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False) or isinstance(action.default, (list, tuple)):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser whose flags are declared with underscores and also understood with dashes.

    `--n_folds` is declared and shown; `--n-folds` means the same. Abbreviated flags are not
    accepted, and an unknown flag ends the program with status 2.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:  # noqa: ANN401  (argparse's own)
        settings.setdefault("allow_abbrev", False)
        settings.setdefault("formatter_class", _Formatter)
        if _is_module():
            settings.setdefault("prog", " ".join(program()))
        self._given: list[str] = []  # the arguments that were parsed
        super().__init__(*args, **settings)

    def parse_known_args(  # type: ignore[override]  # typeshed has overloads of it
        self,
        args: Sequence[str] | None = None,
        namespace: Any = None,  # noqa: ANN401
    ) -> tuple[Any, list[str]]:
        """Parse `args`, with dashes inside a known flag's name read as underscores."""
        _flags.update(flag.removeprefix("--") for flag in self._option_string_actions)
        args = list(sys.argv[1:] if args is None else args)
        n_flags = args.index("--") if "--" in args else len(args)
        declared = [self._declared(arg) for arg in args[:n_flags]]
        self._given = declared
        return super().parse_known_args(declared + args[n_flags:], namespace)

    def error(self, message: str) -> NoReturn:
        """Print the usage and an error, with suggestions for unknown flags; exit with status 2."""
        known = self._option_string_actions
        flags = [arg.partition("=")[0] for arg in self._given if arg.startswith("--")]
        unknown = [flag.replace("-", "_").replace("__", "--", 1) for flag in flags]
        super().error(
            message + did_you_mean([flag for flag in unknown if flag not in known], known)
        )

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401
        """Refuse a value that is no choice, with a suggestion."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            suggestion = did_you_mean([str(value)], map(str, action.choices or ()))
            raise argparse.ArgumentError(action, error.message + suggestion) from None

    def _declared(self, arg: str) -> str:
        """Return `arg` with its flag as declared; other arguments unchanged."""
        if not arg.startswith("--"):
            return arg
        flag, equals, value = arg.partition("=")
        declared = "--" + flag[2:].replace("-", "_")
        return declared + equals + value if declared in self._option_string_actions else arg


def parser(description: str | None) -> Parser:
    """Return a parser for a step; `description` is usually the script's `__doc__`."""
    return Parser(description=description)


def add_folders(
    parser: argparse.ArgumentParser, folders: Mapping[str, str], subfolder: str = ""
) -> None:
    """Add a flag for each folder, with the folder's help by its name.

    The defaults are the names, in the current folder, or a `subfolder` of each.
    """
    for name, description in folders.items():
        parser.add_argument(f"--{name}", type=Path, default=Path(name, subfolder), help=description)


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a step and exit with its status.

    Errors that the user can fix (a `HearbackError`, a full disk, too little memory) are printed on
    standard error without a traceback, with status 2. Any other exception is a bug: one line says
    what it is and where its traceback is (`failures`), and the status is 70. Ctrl-C exits with 130,
    and output that nothing reads any more (`| head`) with 141, as shells expect. Characters that
    the terminal's encoding lacks are printed as escapes, so that a text in a warning never ends a
    step.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _silence_disk_errors_of_threads()
    try:
        try:
            status = _status_of(main)
        except SystemExit:  # of argparse, which has printed the help or an error
            _flush()
            raise
    except _NothingReadsError:
        status = SIGPIPE_STATUS
    except BrokenPipeError as error:
        status = SIGPIPE_STATUS
        if not _drop_closed_outputs():  # another pipe, such as one to a worker
            status = _report_unexpected(error)
    sys.exit(status)


def _status_of(main: Callable[[], int | None]) -> int | None:
    """Run a step; return its status, or that of the error that is printed."""
    try:
        status = main()
        _flush()
        return status
    except HearbackError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:
        cure = _cure_of_disk(error)
        if cure is None:
            return _report_unexpected(error)
        print(
            f"{error.filename or 'the disk'}: {error.strerror}; {cure} and run the same command "
            "again: earlier files and finished work are kept",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return failures.INTERRUPTED_STATUS
    except Exception as error:
        return _report_unexpected(error)


def _report_unexpected(error: Exception) -> int:
    """Print what an unforeseen error is, and where its traceback is; return the exit status."""
    return failures.report(error, " ".join(program()), _flags)


def _flush() -> None:
    """Write what is buffered, so that a closed pipe is noticed here and not at exit."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _drop_closed_outputs() -> bool:
    """Discard what is still written to outputs that nothing reads; return whether there are any.

    Python flushes standard output at exit, and would print the error of a closed pipe again.
    """
    closed = [stream for stream in (sys.stdout, sys.stderr) if _is_closed(stream)]
    for stream in closed:
        _drop(stream)
    return bool(closed)


def _is_closed(stream: TextIO | None) -> bool:
    """Return whether a stream is a pipe whose other end is closed."""
    try:
        descriptor = stream.fileno() if stream is not None else -1
    except (OSError, ValueError):  # not a file, as in tests
        return False
    if descriptor < 0:
        return False
    if not hasattr(select, "poll"):  # Windows
        return stream is sys.stdout
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


class _NothingReadsError(BrokenPipeError):
    """The output of finished work was dropped, because nothing reads it."""


class _Outliving:
    """A stream that goes on, into nothing, when nothing reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_closed = False  # whether something was lost

    def write(self, text: str) -> int:
        """Write a text; return its length."""
        if not self.is_closed:
            try:
                self._stream.write(text)
                self._stream.flush()
            except BrokenPipeError:
                self._close()
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        if not self.is_closed:
            try:
                self._stream.flush()
            except BrokenPipeError:
                self._close()

    def _close(self) -> None:
        self.is_closed = True
        _drop(self._stream)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (of any attribute)
        return getattr(self._stream, name)


@contextlib.contextmanager
def outliving_readers() -> Iterator[None]:
    """Finish the work although nothing reads the output any more (`| head`).

    What cannot be written is dropped. At the end a BrokenPipeError says so, as at once otherwise.
    """
    streams = sys.stdout, sys.stderr
    stdout, stderr = (stream and _Outliving(stream) for stream in streams)
    sys.stdout, sys.stderr = cast(tuple[TextIO, TextIO], (stdout, stderr))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
    if stdout and stdout.is_closed:
        raise _NothingReadsError(errno.EPIPE, "nothing reads the output any more")


def _drop(stream: TextIO) -> None:
    """Discard what is still written to a stream."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _cure_of_disk(error: BaseException | None) -> str | None:
    if isinstance(error, OSError) and error.errno is not None:
        return DISK_CURES.get(error.errno)
    return None


def _silence_disk_errors_of_threads() -> None:
    """Keep other threads from printing the traceback of a full disk.

    TensorBoard writes in its own thread and passes the error on to the main one, which prints it.
    """
    previous = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if _cure_of_disk(failed.exc_value) is None:
            previous(failed)

    threading.excepthook = hook


_program: list[str] = []  # the words of a command that `run_steps` has started


def run_steps(program: str, steps: Mapping[str, str]) -> NoReturn:
    """Run the step named by the first argument, and exit with its status.

    `program` is the command as typed, e.g. "python -m hearback.songs"; `steps` maps each step's
    name to the module with its `main`, which is imported only if the step is chosen. A step's
    `main` may call this again for steps of its own.
    """
    program = " ".join(_program) or program
    step = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if step in ("-h", "--help"):
        run(lambda: _print_steps(program, steps))
    if step not in steps:
        suggestion = did_you_mean([step], steps)
        known = ", ".join(steps)
        print(f"{program}: no step {step!r}; choose from {known}{suggestion}", file=sys.stderr)
        sys.exit(2)
    _program[:] = [*program.split(), step]
    sys.argv = [" ".join(_program), *sys.argv[2:]]
    run(lambda: importlib.import_module(steps[step]).main())


def _print_steps(program: str, steps: Mapping[str, str]) -> int:
    print(f"usage: {program} STEP [flags]\n\nsteps (STEP --help lists their flags):")
    width = max(map(len, steps))
    for name, module in steps.items():
        print(f"  {name:{width}}  {_summary(module)}")
    return 0


def _summary(module: str) -> str:
    """Return the first line of a module's docstring, without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    source = Path(spec.origin).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def argument_type(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return `parse` as an argparse type: the text of its ValueError becomes the usage error."""

    def convert(text: str) -> Any:  # noqa: ANN401  (any type of argument)
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def int_of_at_least(minimum: int) -> Callable[[str], int]:
    """Return an argparse type for whole numbers of at least `minimum`, which is 0 or more."""

    def parse(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < minimum:
            raise ValueError(f"not a whole number of at least {minimum}: {text!r}")
        return int(text)

    return argument_type(parse)


def number_of_at_least(minimum: float) -> Callable[[str], float]:
    """Return an argparse type for finite numbers of at least `minimum`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not minimum <= value < math.inf:  # NaN fails, too
            raise ValueError(f"not a number of at least {minimum:g}: {text!r}")
        return value

    return argument_type(parse)


def _is_module() -> bool:
    """Return whether this process runs a module of this package, as in `python -m hearback`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    package = __name__.partition(".")[0]
    return bool(_program) or (spec is not None and spec.name.partition(".")[0] == package)


def program() -> list[str]:
    """Return the command that runs this process, as typed, without its arguments."""
    if _program:
        return list(_program)
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return ["python", sys.argv[0]] if spec is None else ["python", "-m", spec.name]


def as_text(frame: "pd.DataFrame") -> str:
    """Format a table for the terminal, numbers with four decimals."""
    return frame.to_string(float_format=lambda number: f"{number:.4f}", na_rep="–")
