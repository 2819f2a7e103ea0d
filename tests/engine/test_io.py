"""Files are written atomically."""

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from hearback.engine.errors import HearbackError
from hearback.engine.io import (
    atomic_write,
    check_writable,
    open_file,
    read_json,
    sha256_of,
    write_json,
)
from hearback.engine.project import ROOT


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("previous")

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "previous"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_process_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("previous")
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from hearback.engine.io import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, path], cwd=ROOT, check=False)
    assert killed.returncode == -9
    assert path.read_text() == "previous"
    # The remaining temporary file does not match the usual patterns.
    assert list(tmp_path.glob("[!.]*")) == [path]


def test_the_temporary_file_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "sound.wav") as temporary:
        assert temporary.suffix == ".wav"
        assert temporary.parent == tmp_path


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file") as temporary:
            temporary.touch()
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_json_round_trips(tmp_path: Path) -> None:
    value = {"text": "naïve", "numbers": [1, 2.5, None], "nested": {"a": True}}
    write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == value
    assert "naïve" in (tmp_path / "file.json").read_text(encoding="utf-8")


def test_unserializable_values_leave_the_previous_json(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}


def test_sha256_of_a_file(tmp_path: Path) -> None:
    content = b"hearback" * 100_000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "zeros", tmp_path):
        for read in (open_file, read_json, sha256_of):
            with pytest.raises(OSError, match="not a file"):
                read(path)
    (tmp_path / "file").write_bytes(b"content")
    with open_file(tmp_path / "file") as file:
        assert file.read() == b"content"


def test_deeply_nested_json_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text("[" * 10**6)
    with pytest.raises(ValueError, match="deep"):
        read_json(tmp_path / "file.json")


def test_names_of_maximal_length_are_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".json")  # 255 bytes
    write_json(path, [])
    assert read_json(path) == []
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_below_a_file_is_an_error_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "submission.csv"
    with pytest.raises(HearbackError, match=r"submission.csv: cannot be written"):
        check_writable(output)


def test_the_folder_of_an_output_is_created_and_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "submission.csv")
    assert list((tmp_path / "new").iterdir()) == []


def test_folders_and_pipes_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("folder", "a folder"), ("pipe", "a device or a pipe")):
        path = tmp_path / name
        for write in (lambda path: write_json(path, {}), check_writable):
            with pytest.raises(HearbackError, match=f"{path}: is {kind}, and cannot be replaced"):
                write(path)
        assert not path.is_file()


def test_an_error_of_the_temporary_file_names_the_file(tmp_path: Path) -> None:
    with (
        patch("tempfile.mkstemp", side_effect=PermissionError(13, "Permission denied", "x")),
        pytest.raises(PermissionError) as raised,
    ):
        write_json(tmp_path / "a.json", {})
    assert raised.value.filename == str(tmp_path / "a.json")
