"""The check of other environments: what it installs, what it imports, and the row it prints."""

from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests import check_imports, check_versions

FACTS: dict[str, Any] = {
    "python": "3.14.10",
    "packages": {
        "torch": "2.15.0",
        "numpy": "2.5.5",
        "pandas": "3.1.1",
        "scikit-learn": "1.9.1",
        "transformers": "5.24.0",
        "librosa": "0.11.0",
    },
    "n_modules": 360,
    "failed": {},
    "n_scored": 12,
    "difference": 0.00004,
    "n_passed": 300,
    "n_failed": 0,
}


def test_the_oldest_packages_are_the_lower_bounds() -> None:
    lines = check_versions._constraints("oldest").splitlines()
    bounds = {requirement.name: requirement for requirement in map(Requirement, lines)}
    assert str(bounds["numpy"].specifier) == "==1.26"
    assert all(len(each.specifier) == 1 for each in bounds.values())
    assert "torch" not in bounds  # it is chosen apart


def test_the_pinned_packages_are_those_of_the_requirements() -> None:
    lines = check_versions._constraints("pinned").splitlines()
    assert any(line.startswith("numpy==2.") for line in lines)
    assert not any(line.startswith("torch==") for line in lines)
    assert check_versions._constraints(check_versions.NEWEST) == ""


@pytest.mark.parametrize("path", [*check_versions.TESTS, check_versions.STEPS])
def test_the_selection_exists(path: str) -> None:
    file, _, test = path.partition("::")
    source = (check_versions.ROOT / file).read_text(encoding="utf-8")
    assert f"def {test}(" in source if test else "def test_" in source


def test_a_row_has_what_was_run() -> None:
    row = check_versions.as_row(FACTS)
    versions = "2.5.5, 3.1.1, 1.9.1, 5.24.0, 0.11.0"
    start = f"| 3.14.10 | 2.15.0 | {versions} | 360 | 12, 0.0000 | 300 passed | 20"
    assert row.startswith(start)


def test_a_row_says_what_failed() -> None:
    failed = {"hearback.engine.devices": "ImportError: no"}
    row = check_versions.as_row({**FACTS, "failed": failed, "n_failed": 2})
    assert "**failed: {'hearback.engine.devices': 'ImportError: no'}**" in row
    assert "300 passed, **2 failed**" in row


def test_a_folder_that_is_no_environment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["check_versions", "--environment", str(tmp_path)])
    with pytest.raises(SystemExit, match="no environment, as there is no"):
        check_versions.main()


def test_only_packages_of_extras_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> None:
        if name == "hearback.engine.io":
            raise ModuleNotFoundError("No module named 'numpy'", name="numpy")
        if name == "hearback.engine.cli":
            raise ModuleNotFoundError("No module named 'ray'", name="ray.util")
        if name == "hearback.engine.locks":
            raise AttributeError("os.fork")

    monkeypatch.setattr("importlib.import_module", import_module)
    n_modules, without, failed = check_imports.import_all()
    assert n_modules > 300 and list(without) == ["hearback.engine.cli"]
    assert failed == {
        "hearback.engine.io": "No module named 'numpy'",
        "hearback.engine.locks": "AttributeError: os.fork",
    }
