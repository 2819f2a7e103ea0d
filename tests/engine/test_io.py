"""Files are whole or not there, whatever happens while they are written."""

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hearback.engine.io import atomic_write, open_file, read_json, sha256_of, write_json


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("former")

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_process_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("former")
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from hearback.engine.io import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[1]
    killed = subprocess.run([sys.executable, "-c", program, path], cwd=root, check=False)
    assert killed.returncode == -9
    assert path.read_text() == "former"
    # What is left behind does not pass for a file of that kind's pattern.
    assert list(tmp_path.glob("[!.]*")) == [path]


def test_the_temporary_file_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "sound.wav") as temporary:
        assert temporary.suffix == ".wav"
        assert temporary.parent == tmp_path


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_others_may_read_as_far_as_the_umask_lets_them(tmp_path: Path) -> None:
    former = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file") as temporary:
            temporary.touch()
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_json_goes_there_and_back(tmp_path: Path) -> None:
    value = {"text": "naïve", "numbers": [1, 2.5, None], "nested": {"a": True}}
    write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == value
    assert "naïve" in (tmp_path / "file.json").read_text(encoding="utf-8")


def test_json_that_cannot_be_written_leaves_the_former(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    content = b"hearback" * 100_000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_what_never_ends_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "zeros", tmp_path):
        for read in (open_file, read_json, sha256_of):
            with pytest.raises(OSError, match="not a file"):
                read(path)
    (tmp_path / "file").write_bytes(b"content")
    with open_file(tmp_path / "file") as file:
        assert file.read() == b"content"


def test_json_nested_deeply_is_an_error_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text("[" * 10**6)
    with pytest.raises(ValueError, match="deep"):
        read_json(tmp_path / "file.json")


def test_a_name_as_long_as_may_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".json")  # 255 bytes
    write_json(path, [])
    assert read_json(path) == []
    assert list(tmp_path.iterdir()) == [path]
