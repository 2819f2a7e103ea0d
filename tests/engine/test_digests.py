"""Digests that are remembered."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hearback.engine import io
from hearback.engine.io import KnownDigests, sha256_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], tuple[str, int]]:
    """Ask as a new process does; return the digest and how many files were read for it."""

    def asked(path: Path) -> tuple[str, int]:
        read = []

        def note(path: Path) -> str:
            read.append(path)
            return sha256_of(path)

        monkeypatch.setattr(io, "sha256_of", note)
        known = KnownDigests(tmp_path / "digests")
        digest = known.of(path)
        known.keep()
        return digest, len(read)

    return asked


def test_a_file_is_read_once(file: Path, ask: Callable[[Path], tuple[str, int]]) -> None:
    assert [ask(file) for _ in range(3)] == [(sha256_of(file), n) for n in (1, 0, 0)]


def write_as_much(file: Path) -> None:
    """Other content of the same size, and the time of modification set back."""
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=times)


def put_another_in_its_place(file: Path) -> None:
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    other = file.with_name("other")
    other.write_bytes(b"WEIGHTS")
    os.utime(other, ns=times)
    other.replace(file)


@pytest.mark.parametrize("change", [write_as_much, put_another_in_its_place])
def test_a_file_that_changed_is_read_again(
    file: Path, ask: Callable[[Path], tuple[str, int]], change: Callable[[Path], None]
) -> None:
    first, _ = ask(file)
    change(file)
    second, n_read = ask(file)
    assert (second, n_read) == (sha256_of(file), 1)
    assert second != first


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"weights": 1}'])
def test_what_is_remembered_may_be_damaged_or_gone(
    file: Path, tmp_path: Path, ask: Callable[[Path], tuple[str, int]], content: str
) -> None:
    ask(file)
    (tmp_path / "digests").write_text(content.replace("weights", str(file)))
    assert ask(file) == (sha256_of(file), 1)
    (tmp_path / "digests").unlink()
    assert ask(file) == (sha256_of(file), 1)


def test_a_file_that_is_gone_is_an_error_and_forgotten(
    file: Path, tmp_path: Path, ask: Callable[[Path], tuple[str, int]]
) -> None:
    ask(file)
    other = tmp_path / "other"
    other.write_bytes(b"other")
    ask(other)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        ask(file)
    ask(other)
    assert list(json.loads((tmp_path / "digests").read_text())) == [str(other)]


def test_files_that_are_not_asked_for_are_not_forgotten(
    file: Path, tmp_path: Path, ask: Callable[[Path], tuple[str, int]]
) -> None:
    ask(file)
    other = tmp_path / "other"
    other.write_bytes(b"other")
    ask(other)
    assert ask(file) == (sha256_of(file), 0)
