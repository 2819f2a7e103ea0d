"""The container's files agree with the project: its context, its packages, its Python."""

import re
import tomllib

from packaging.specifiers import SpecifierSet

from hearback.engine.project import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/guide/where_it_runs.md").read_text(encoding="utf-8")


def is_in_context(name: str) -> bool:
    """Return whether a file is sent to the builder: .dockerignore lists what is."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    parts = [line.removeprefix("!") for line in lines if line.startswith("!")]
    patterns = [re.escape(part).replace(r"\*", "[^/]*") + "(/.*)?" for part in parts]
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def test_the_context_has_what_the_wheel_is_built_from() -> None:
    build = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*build["force-include"], *build["packages"], *PROJECT["project"]["license-files"]]
    needed += [PROJECT["project"]["readme"], "pyproject.toml", "requirements/container.txt"]
    assert [name for name in needed if not is_in_context(name)] == []


def test_the_context_has_no_data() -> None:
    kept = ("data/a.wav", "assets/modeltok_0.safetensors", ".venv/bin/python", "runs/a.log", ".git")
    assert [name for name in kept if is_in_context(name)] == []


def test_the_container_s_pins_are_the_tested_ones() -> None:
    names = ("requirements/dev.txt", "requirements/container.txt")
    dev, container = ((ROOT / name).read_text(encoding="utf-8").splitlines() for name in names)
    pins = [line.partition(" ")[0] for line in container if "==" in line]
    assert pins and {line.partition(" ")[0] for line in dev} >= set(pins)
    assert "-r ../requirements.txt" in container


def test_the_base_image_has_a_pinned_python_that_was_run() -> None:
    found = re.search(r"ARG BASE=python:(\d+\.\d+)\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert found is not None and found[1] in pythons_of_the_page()


def pythons_of_the_page() -> list[str]:
    """Return the minor versions of the page's table, in order."""
    return sorted(
        set(re.findall(r"^\| (3\.\d+)\.\d+ \|", PAGE, re.MULTILINE)),
        key=lambda version: int(version.partition(".")[2]),
    )


def test_the_project_says_that_it_runs_where_it_was_run() -> None:
    prefix = "Programming Language :: Python :: 3."
    classified = [
        name.rpartition(" ")[2]
        for name in PROJECT["project"]["classifiers"]
        if name.startswith(prefix)
    ]
    assert classified == pythons_of_the_page()
    allowed = SpecifierSet(PROJECT["project"]["requires-python"])
    assert all(allowed.contains(f"{version}.0") for version in classified)
