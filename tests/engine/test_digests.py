"""The cache of digests."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hearback.engine import io
from hearback.engine.io import DigestCache, sha256_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], tuple[str, int]]:
    """Return a function of a new cache: the digest of a file, and the number of files read."""

    def compute(path: Path) -> tuple[str, int]:
        read = []

        def note(path: Path) -> str:
            read.append(path)
            return sha256_of(path)

        monkeypatch.setattr(io, "sha256_of", note)
        cache = DigestCache(tmp_path / "digests")
        value = cache.sha256(path)
        cache.save()
        return value, len(read)

    return compute


def test_a_file_is_read_once(file: Path, digest: Callable[[Path], tuple[str, int]]) -> None:
    assert [digest(file) for _ in range(3)] == [(sha256_of(file), n) for n in (1, 0, 0)]


def overwrite_in_place(file: Path) -> None:
    """Write other content of the same size, and restore the modification time."""
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=times)


def replace_by_another_file(file: Path) -> None:
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    other = file.with_name("other")
    other.write_bytes(b"WEIGHTS")
    os.utime(other, ns=times)
    other.replace(file)


@pytest.mark.parametrize("change", [overwrite_in_place, replace_by_another_file])
def test_a_file_that_changed_is_read_again(
    file: Path, digest: Callable[[Path], tuple[str, int]], change: Callable[[Path], None]
) -> None:
    first, _ = digest(file)
    change(file)
    second, n_read = digest(file)
    assert (second, n_read) == (sha256_of(file), 1)
    assert second != first


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"weights": 1}'])
def test_a_damaged_or_missing_cache_is_ignored(
    file: Path, tmp_path: Path, digest: Callable[[Path], tuple[str, int]], content: str
) -> None:
    digest(file)
    (tmp_path / "digests").write_text(content.replace("weights", str(file)))
    assert digest(file) == (sha256_of(file), 1)
    (tmp_path / "digests").unlink()
    assert digest(file) == (sha256_of(file), 1)


def test_a_deleted_file_is_an_error_and_dropped_from_the_cache(
    file: Path, tmp_path: Path, digest: Callable[[Path], tuple[str, int]]
) -> None:
    digest(file)
    other = tmp_path / "other"
    other.write_bytes(b"other")
    digest(other)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        digest(file)
    digest(other)
    assert list(json.loads((tmp_path / "digests").read_text())) == [str(other)]


def test_digests_of_other_files_stay_cached(
    file: Path, tmp_path: Path, digest: Callable[[Path], tuple[str, int]]
) -> None:
    digest(file)
    other = tmp_path / "other"
    other.write_bytes(b"other")
    digest(other)
    assert digest(file) == (sha256_of(file), 0)
