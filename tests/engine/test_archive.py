"""The code, the version and the bytes of any competition's submission.zip."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from hearback import __version__
from hearback.engine.project import PACKAGE, SHIPPED
from hearback.engine.submission import archive as archive_module
from hearback.engine.submission.archive import (
    RUNTIME,
    Faults,
    describe_commit,
    describe_version,
    find_code,
    listed_packages,
    write_zip,
)


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
    """A folder with a script and two packages; the script does not import all of `house`."""
    files = {
        "run.py": "import json\nfrom house.rooms import kitchen\nfrom house import NAME\n",
        "house/__init__.py": "NAME = 'house'\n",
        "house/rooms/__init__.py": "",
        "house/rooms/kitchen.py": "def cook():\n    import house.cellar\n    import sklearn.svm\n",
        "house/cellar.py": "import numpy as np\nfrom numpy import linalg\n",
        "house/attic.py": "import numpy\n",
        "numpy/__init__.py": "import house.attic\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_code_is_what_the_script_imports_of_its_package(project: Path) -> None:
    faults = Faults()
    runtime = ["numpy", "scikit-learn"]
    code = find_code(project / "run.py", runtime, faults, project / "house")
    assert not faults
    # Nothing of numpy, although it is beside the package, as in site-packages.
    names = ("house/__init__.py", "house/cellar.py")
    rooms = ("house/rooms/__init__.py", "house/rooms/kitchen.py")
    assert list(code) == [*names, *rooms]
    assert all(path == project / name for name, path in code.items())


def test_an_import_that_the_runtime_lacks_is_a_fault(project: Path) -> None:
    (project / "house" / "cellar.py").write_text(
        "import numpy\nfrom house import parlour\ndef wine():\n    from pyworld import dio\n"
    )
    faults = Faults()
    find_code(project / "run.py", ["numpy", "scikit-learn"], faults, project / "house")
    assert sorted(fault.partition(",")[0] for fault in faults) == [
        "house.cellar: imports house.parlour",
        "house.cellar: imports pyworld",
    ]


def test_a_package_beside_it_that_the_runtime_lacks_is_a_fault(project: Path) -> None:
    faults = Faults()
    find_code(project / "run.py", ["scikit-learn"], faults, project / "house")
    assert [fault.partition(",")[0] for fault in faults] == ["house.cellar: imports numpy"]


def test_every_pin_is_read() -> None:
    lines = RUNTIME.read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert len(listed_packages(RUNTIME)) == len(pinned)
    assert listed_packages(RUNTIME)["torch"] == "2.4.1"
    assert set(listed_packages(SHIPPED / "requirements" / "voice.txt")) == {
        "hibari-tts",
        "onnxruntime",
    }


def test_the_version_is_the_commit_and_the_changed_files(tmp_path: Path) -> None:
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


def test_an_installed_package_has_a_version_and_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "SHIPPED", PACKAGE / "shipped")
    assert describe_version([]) == f"hearback {__version__}, installed\n"
