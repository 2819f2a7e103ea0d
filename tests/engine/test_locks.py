"""Locks of folders, and folders that cannot be written to."""

import errno
import os
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from hearback.engine.io import DigestCache
from hearback.engine.locks import ReadOnlyFolderError, write_lock
from tests.helpers import make_read_only


def test_a_lock_creates_its_folder_and_is_freed(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    with write_lock(path, "cure"), pytest.raises(Timeout):
        FileLock(path).acquire(timeout=0)
    with FileLock(path, timeout=0):
        pass


def test_a_lock_that_is_held_is_a_timeout(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with FileLock(path), pytest.raises(Timeout), write_lock(path, "cure", timeout=0):
        raise AssertionError


@pytest.mark.parametrize("folder", ["there", "not there"])
def test_a_read_only_folder_is_named_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    (tmp_path / "there").mkdir()
    make_read_only(monkeypatch, tmp_path)
    with (
        pytest.raises(ReadOnlyFolderError) as refusal,
        write_lock(tmp_path / folder / ".lock", "choose another"),
    ):
        raise AssertionError
    expected = f"{tmp_path / folder}: cannot be written to (Read-only file system); choose another"
    assert str(refusal.value) == expected


def test_other_errors_of_a_disk_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_read_only(monkeypatch, tmp_path, errno.ENOSPC)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)), write_lock(tmp_path / "a", ""):
        raise AssertionError


def test_digests_are_computed_where_none_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"a")
    make_read_only(monkeypatch, tmp_path)
    cache = DigestCache(tmp_path / "digests.json")
    assert cache.sha256(tmp_path / "a").startswith("ca978112")
    cache.save()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
