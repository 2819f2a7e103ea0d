"""The steps' command lines."""

import errno
import os
import threading

import pytest

from hearback.engine.cli import parser, run
from hearback.engine.data.problems import BadInput, Problem, Report
from hearback.engine.errors import HearbackError


@pytest.mark.parametrize(
    "args", [["--n_folds", "3"], ["--n-folds", "3"], ["--n-folds=3"], ["--n_folds=3"]]
)
def test_flags_are_read_with_underscores_and_with_dashes(args: list[str]) -> None:
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
def test_an_unknown_or_shortened_flag_is_an_error_that_names_it(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = parser(None)
    steps.add_argument("--n_folds", type=int)
    with pytest.raises(SystemExit) as stopped:
        steps.parse_args([flag, "3"])
    assert stopped.value.code == 2
    assert flag in capsys.readouterr().err


def test_help_shows_defaults_that_say_something() -> None:
    steps = parser("Do the thing.")
    steps.add_argument("--speed", type=float, default=0.7, help="pace")
    steps.add_argument("--limit", type=int, help="rows")
    text = steps.format_help()
    assert "pace (default: 0.7)" in text
    assert "None" not in text


def bad_input() -> BadInput:
    return BadInput(Report([Problem("train.csv", 3, "no grade", "add it")]))


@pytest.mark.parametrize("error", [HearbackError("no grade: add it"), bad_input()])
def test_what_the_person_can_put_right_has_no_traceback(
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
    ("code", "cure"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "make it writable")]
)
def test_a_disk_that_cannot_be_written_to_is_said_with_its_cure(
    code: int, cure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise OSError(code, os.strerror(code), "assets/x.partial")

    with pytest.raises(SystemExit) as stopped:
        run(main)
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"assets/x.partial: {os.strerror(code)}")
    assert cure in shown


def test_what_a_thread_writes_to_a_full_disk_is_said_once(
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


def test_a_broken_pipe_is_no_matter_of_the_disk() -> None:
    def main() -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    with pytest.raises(BrokenPipeError):
        run(main)


def test_a_bug_keeps_its_traceback() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)


@pytest.mark.parametrize(("returned", "status"), [(None, None), (0, 0), (2, 2)])
def test_the_status_is_main_s(returned: int | None, status: int | None) -> None:
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
