"""Command lines of the steps."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from hearback.engine import cli
from hearback.engine.cli import parser, run
from hearback.engine.data.problems import BadInputError, Problem, Report
from hearback.engine.errors import HearbackError
from hearback.engine.project import ROOT
from tests.helpers import environment_of_scripts


@pytest.mark.parametrize(
    "args", [["--n_folds", "3"], ["--n-folds", "3"], ["--n-folds=3"], ["--n_folds=3"]]
)
def test_flags_with_underscores_or_dashes(args: list[str]) -> None:
    steps = parser(None)
    steps.add_argument("--n_folds", type=int)
    assert steps.parse_args(args).n_folds == 3


def test_values_keep_their_dashes() -> None:
    steps = parser(None)
    steps.add_argument("--model_dir")
    steps.add_argument("rest", nargs="*")
    parsed = steps.parse_args(["--model-dir=a-b", "--", "--model-dir"])
    assert parsed.model_dir == "a-b"
    assert parsed.rest == ["--model-dir"]


@pytest.mark.parametrize("flag", ["--n_fold", "--no-such-flag", "--n"])
def test_unknown_and_abbreviated_flags_are_errors(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = parser(None)
    steps.add_argument("--n_folds", type=int)
    with pytest.raises(SystemExit) as stopped:
        steps.parse_args([flag, "3"])
    assert stopped.value.code == 2
    assert flag in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "suggestion"),
    [
        ("--fold 0 --submision x.csv", "--submision x.csv; did you mean --submission?"),
        ("--fold 0 --n-fold=3", "--n-fold=3; did you mean --n_folds?"),
        ("--fols 0", "required: --fold; did you mean --fold?"),
        ("--fold 0 --model modeltk", "(choose from {choices}); did you mean modeltok?"),
        ("--fold 0 --zzz", "unrecognized arguments: --zzz\n"),
        ("--fold 0 --model zzz", "(choose from {choices})\n"),
        ("--fold 0 -- --submision", "unrecognized arguments: -- --submision\n"),
    ],
)
def test_mistyped_flags_and_choices_get_a_suggestion(
    flags: str, suggestion: str, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = parser(None)
    steps.add_argument("--fold", required=True)
    steps.add_argument("--n_folds", type=int)
    steps.add_argument("--submission")
    steps.add_argument("--model", choices=("modeltok", "model1m"))
    with pytest.raises(SystemExit) as stopped:
        steps.parse_args(flags.split())
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    listed = [", ".join(map(show, ("modeltok", "model1m"))) for show in (repr, str)]  # by version
    assert any(suggestion.replace("{choices}", choices) in printed for choices in listed)


def test_help_shows_defaults_except_none() -> None:
    steps = parser("Do the thing.")
    steps.add_argument("--speed", type=float, default=0.7, help="pace")
    steps.add_argument("--limit", type=int, help="rows")
    text = steps.format_help()
    assert "pace (default: 0.7)" in text
    assert "None" not in text


def test_help_shows_no_python_lists() -> None:
    steps = parser(None)
    steps.add_argument("--set", action="append", default=[], help="change a field")
    steps.add_argument("--kinds", nargs="+", default=("a", "b"), help="only these (default: all)")
    text = " ".join(steps.format_help().split())
    assert "change a field" in text
    assert "(default: all)" in text
    assert "[]" not in text
    assert "('a'" not in text


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("hearback.reading.baselines.train", "python -m hearback.reading.baselines.train"),
        ("pytest", "steps.py"),
    ],
)
def test_usage_names_a_module_as_it_is_run(
    module: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = SimpleNamespace(__spec__=SimpleNamespace(name=module))
    monkeypatch.setitem(sys.modules, "__main__", main)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "argv", ["/somewhere/steps.py"])
    assert parser(None).prog == expected


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", ""])
def test_limits_below_one_are_refused_in_words(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = parser(None)
    steps.add_argument("--limit", type=cli.int_of_at_least(1))
    assert steps.parse_args(["--limit", "3"]).limit == 3
    with pytest.raises(SystemExit) as stopped:
        steps.parse_args([f"--limit={value}"])
    assert stopped.value.code == 2
    assert f"--limit: not a whole number of at least 1: {value!r}" in capsys.readouterr().err


def bad_input() -> BadInputError:
    return BadInputError(Report([Problem("train.csv", 3, "no grade", "add it")]))


@pytest.mark.parametrize("error", [HearbackError("no grade: add it"), bad_input()])
def test_errors_that_the_user_can_fix_have_no_traceback(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        run(main)
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert "no grade" in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "make it writable"),
        (errno.EISDIR, "move it away"),
        (errno.ENOTDIR, "use a path below a folder"),
        (errno.ENAMETOOLONG, "use a shorter name"),
    ],
)
def test_disk_errors_name_the_cure(
    code: int, cure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise OSError(code, os.strerror(code), "assets/x.checkpoint")

    with pytest.raises(SystemExit) as stopped:
        run(main)
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"assets/x.checkpoint: {os.strerror(code)}")
    assert cure in shown


def test_a_full_disk_in_a_thread_is_reported_once(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    errors = [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ZeroDivisionError("a bug")]

    def fail(error: Exception) -> None:
        raise error

    def main() -> None:
        for error in errors:
            thread = threading.Thread(target=fail, args=(error,))
            thread.start()
            thread.join()
        raise errors[0]

    with pytest.raises(SystemExit):
        run(main)
    shown = capfd.readouterr().err
    assert shown.count("No space left") == 1
    assert shown.count("Traceback") == 1 and "ZeroDivisionError: a bug" in shown


def test_a_broken_pipe_is_not_a_disk_error(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    with pytest.raises(SystemExit) as stopped:
        run(main)
    assert stopped.value.code == 70
    assert "unexpected BrokenPipeError" in capsys.readouterr().err


PRINTING = """
from hearback.engine import cli
def main():
    print("a line\\n" * {n_lines})
cli.run(main)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        # One line is written at exit, the others before.
        pytest.param(("-c", PRINTING.format(n_lines=1)), id="one line"),
        pytest.param(("-c", PRINTING.format(n_lines=100_000)), id="more than a pipe holds"),
        pytest.param(("-m", "hearback", "--help"), id="steps"),
        pytest.param(("-m", "hearback", "songs"), id="steps of a step"),
        pytest.param(("-m", "hearback", "check_models", "--help"), id="help of a step"),
        pytest.param((str(ROOT / "check_models.py"), "--help"), id="help of a script"),
    ],
)
def test_output_that_nothing_reads_ends_quietly(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command, environment = [sys.executable, *arguments], environment_of_scripts()
    try:
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, env=environment, check=False
        )
    finally:
        os.close(writing)
    assert done.stderr == b""
    # argparse ignores errors of a help that is longer than the buffer.
    assert done.returncode in ({0, 141} if "--help" in arguments[2:] + arguments[1:2] else {141})


OUTLIVING = """
import pathlib, sys
from hearback.engine import cli

def main():
    with cli.outliving_readers():
        print("scores")
        pathlib.Path(sys.argv[1]).write_text("all of them")
        print("done")
        print("FAILED", file=sys.stderr)
        if len(sys.argv) > 2:
            raise cli.HearbackError("damaged")

cli.run(main)
"""


@pytest.mark.parametrize(("more", "status"), [((), 141), (("fails",), 2)])
def test_work_that_outlives_its_readers_is_finished_first(
    more: tuple[str, ...], status: int, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", OUTLIVING, str(tmp_path / "scores"), *more]
    try:
        done = subprocess.run(
            *(command,),
            stdout=writing,
            stderr=subprocess.PIPE,
            env=environment_of_scripts(),
            check=False,
        )
    finally:
        os.close(writing)
    assert (tmp_path / "scores").read_text() == "all of them"
    assert done.returncode == status
    assert done.stderr == (b"FAILED\ndamaged\n" if more else b"FAILED\n")


@pytest.mark.parametrize(
    ("value", "is_accepted"),
    [("0", True), ("0.5", True), ("-1", False), ("nan", False), ("inf", False), ("x", False)],
)
def test_numbers_below_the_least_are_refused_in_words(
    value: str, is_accepted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = parser(None)
    steps.add_argument("--minutes", type=cli.number_of_at_least(0))
    if is_accepted:
        assert steps.parse_args([f"--minutes={value}"]).minutes == float(value)
        return
    with pytest.raises(SystemExit) as stopped:
        steps.parse_args([f"--minutes={value}"])
    assert stopped.value.code == 2
    assert f"--minutes: not a number of at least 0: {value!r}" in capsys.readouterr().err


@pytest.mark.parametrize(("returned", "status"), [(None, None), (0, 0), (2, 2)])
def test_the_exit_status_is_returned_by_main(returned: int | None, status: int | None) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(lambda: returned)
    assert stopped.value.code == status


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        run(main)
    assert stopped.value.code == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.fixture
def run_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int | str | None]:
    """Return a function that runs a command with two steps, and returns its exit status."""
    monkeypatch.setattr(cli, "_program", [])

    def run(*arguments: str) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["__main__.py", *arguments])
        step = SimpleNamespace(main=lambda: print(cli.program(), sys.argv[1:]))
        monkeypatch.setitem(sys.modules, "a_step", step)
        with pytest.raises(SystemExit) as stopped:
            cli.run_steps("python -m a.b", {"first": "a_step", "second": "hearback.engine.errors"})
        return stopped.value.code

    return run


def test_a_command_runs_the_step_of_its_first_argument(
    run_steps: Callable[..., int | str | None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_steps("first", "--flag", "1") is None
    words = ["python", "-m", "a.b", "first"]
    assert capsys.readouterr().out == f"{words} {['--flag', '1']}\n"
    assert parser(None).prog == " ".join(words)


def test_unknown_steps_are_refused(
    run_steps: Callable[..., int | str | None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_steps("third") == 2
    assert "no step 'third'; choose from first, second" in capsys.readouterr().err


def test_a_command_without_a_step_lists_them(
    run_steps: Callable[..., int | str | None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "_summary", lambda module: module)
    assert run_steps() == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: python -m a.b STEP")
    assert "second  hearback.engine.errors" in printed
