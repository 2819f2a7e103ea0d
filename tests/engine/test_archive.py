"""hearback/packing.py: the code, the version and the bytes of a zip, of any competition."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from hearback.engine.submission import archive as archive_module
from hearback.engine.submission.archive import (
    Faults,
    describe_commit,
    find_code,
    listed_packages,
    write_zip,
)
from hearback.reading.submission.pack import VOICE_WHEELS


def test_weights_are_stored_and_all_else_is_deflated(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(1000))
    entries: dict[str, Path | bytes] = {"b.safetensors": tmp_path / "weights", "a.txt": bytes(1000)}
    write_zip(entries, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["a.txt", "b.safetensors"]
        text, weights = archive.infolist()
        assert weights.compress_size == 1000 > text.compress_size
        assert archive.read("b.safetensors") == archive.read("a.txt") == bytes(1000)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of a script and a package, one of whose modules the script does not import."""
    files = {
        "run.py": "import json\nfrom house.rooms import kitchen\nfrom house import NAME\n",
        "house/__init__.py": "NAME = 'house'\n",
        "house/rooms/__init__.py": "",
        "house/rooms/kitchen.py": "def cook():\n    import house.cellar\n    import sklearn.svm\n",
        "house/cellar.py": "import numpy as np\nfrom numpy import linalg\n",
        "house/attic.py": "import numpy\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_code_is_what_the_script_imports_anywhere(project: Path) -> None:
    faults = Faults()
    code = find_code([project / "run.py"], project, ["numpy", "scikit-learn"], faults)
    assert not faults
    assert list(code) == [
        *("house/__init__.py", "house/cellar.py"),
        *("house/rooms/__init__.py", "house/rooms/kitchen.py", "run.py"),
    ]


def test_an_import_that_the_runtime_lacks_is_a_fault(project: Path) -> None:
    (project / "house" / "cellar.py").write_text(
        "import numpy\nfrom house import parlour\ndef wine():\n    from pyworld import dio\n"
    )
    faults = Faults()
    find_code([project / "run.py"], project, ["numpy", "scikit-learn"], faults)
    assert sorted(fault.partition(",")[0] for fault in faults) == [
        "house.cellar: imports house.parlour",
        "house.cellar: imports pyworld",
    ]


def test_every_pin_is_read() -> None:
    lines = archive_module.RUNTIME.read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert len(listed_packages(archive_module.RUNTIME)) == len(pinned)
    assert listed_packages(archive_module.RUNTIME)["torch"] == "2.4.1"
    assert set(listed_packages(VOICE_WHEELS)) == {"hibari-tts", "onnxruntime"}


def test_the_version_is_the_commit_and_what_differs_from_it(tmp_path: Path) -> None:
    assert describe_commit(tmp_path, []).startswith("commit unknown")
    settings = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("1\n")
    for command in (["init"], ["add", "."], ["commit", "--message", "one"]):
        git = ["git", "-C", str(tmp_path), *settings, *command]
        subprocess.run(git, check=True, capture_output=True)
    clean = describe_commit(tmp_path, [tmp_path / "a.py"])
    assert len(clean.split()) == 2 and len(clean.split()[1]) == 40
    (tmp_path / "b.py").write_text("2\n")  # not packed
    assert describe_commit(tmp_path, [tmp_path / "a.py"]) == clean
    (tmp_path / "c.py").write_text("3\n")
    changed = describe_commit(tmp_path, [tmp_path / "b.py", tmp_path / "c.py"])
    assert changed.splitlines()[2:] == [" M b.py", "?? c.py"]
