"""The package: its command, its wheel, and the steps of an installed wheel outside the checkout."""

import importlib
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from packaging.requirements import Requirement

import hearback
from hearback import __main__ as command
from hearback.engine.project import ROOT
from hearback.reading.hard_negatives import HardNegative, write_hard_negatives
from hearback.reading.recipe import N_RECIPES
from hearback.songs import __main__ as songs_command
from tests.toy import TEXTS

ALL_STEPS = {**command.STEPS, **{f"songs {k}": v for k, v in songs_command.STEPS.items()}}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("step", ALL_STEPS)
def test_each_step_is_a_module_with_a_main(step: str) -> None:
    assert callable(importlib.import_module(ALL_STEPS[step]).main)


@pytest.mark.parametrize("script", ["preprocess", "train", "check_models", "get_config", "infer"])
def test_the_command_and_the_script_are_the_same_function(script: str) -> None:
    main = importlib.import_module(command.STEPS[script]).main
    assert importlib.import_module(script).main is main


@pytest.mark.parametrize(
    ("arguments", "program", "steps"),
    [
        (["hearback"], "hearback", command.STEPS),
        (["hearback/__main__.py", "--help"], "python -m hearback", command.STEPS),
        (["hearback", "songs", "--help"], "hearback songs", songs_command.STEPS),
    ],
)
def test_help_lists_the_steps(
    arguments: list[str],
    program: str,
    steps: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert not ended.value.code
    usage, *lines = capsys.readouterr().out.splitlines()
    assert usage == f"usage: {program} STEP [flags]"
    for step in steps:
        assert any(re.match(rf"  {step} +\w", line) for line in lines), step


def test_only_the_chosen_step_is_imported() -> None:
    program = (
        "import sys; sys.argv = ['hearback', '--help']\n"
        "from hearback.__main__ import main\n"
        "try:\n    main()\nfinally:\n"
        "    print([name for name in ('torch', 'transformers', 'librosa') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("[]\n")


def test_every_pinned_package_has_a_range_that_admits_it() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    ranges = map(
        Requirement,
        [*PROJECT["project"]["dependencies"], *extras["voices"], *extras["ray"]],
    )
    specifiers = {each.name.replace("_", "-"): each.specifier for each in ranges}
    pins: dict[str, list[str]] = {}
    for name in ("requirements.txt", "requirements/ray.txt", "requirements/runtime.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if pin := re.match(r"([\w-]+)==([\w.]+)", line):
                pins.setdefault(pin[1].replace("_", "-"), []).append(pin[2])
    assert specifiers.keys() <= pins.keys()
    for name, specifier in specifiers.items():
        assert all(version in specifier for version in pins[name]), name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without a download."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (path,) = folder.glob("hearback-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of a fresh environment with the wheel, and with our own packages."""
    environment = tmp_path_factory.mktemp("installed") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin"


def pip(*arguments: object) -> None:
    """Run pip."""
    program = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*program, *map(str, arguments)], check=True)


def run(program: Path, *arguments: object, folder: Path, status: int = 0) -> str:
    """Run a command in `folder`, without the checkout in reach; return its output and errors."""
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
    done = subprocess.run(
        [program, *map(str, arguments)],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout + (done.stderr if status else "")


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_the_files_that_steps_read(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hearback").rglob("*.py")}
    # Shipped scorers: what find_scorer looks for, and what it loads.
    scorers = (ROOT / "hearback" / "reading" / "pretrained").glob("*/model_configs.json")
    shipped_scorers = {
        path.relative_to(ROOT).as_posix()
        for config in scorers
        for path in config.parent.iterdir()
        if path.suffix != ".py"
    }
    page = (ROOT / "hearback" / "engine" / "page").rglob("*")
    page_files = {
        path.relative_to(ROOT).as_posix()
        for path in page
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert {Path(name).suffix for name in page_files} >= {".j2", ".js", ".css", ".json"}
    shipped = {name.removeprefix("hearback/shipped/") for name in names if "/shipped/" in name}
    recipes = {path.name for path in ROOT.glob("train_model*.py")}
    assert len(recipes) == N_RECIPES
    assert shipped == recipes | {"requirements/runtime.txt", "requirements/voice.txt"}
    others = {name for name in names if name.startswith("hearback/") and "/shipped/" not in name}
    assert others == modules | shipped_scorers | page_files
    assert {Path(name).name for name in names} >= {"LICENSE", "NOTICE", "entry_points.txt"}


@pytest.mark.slow
def test_the_steps_run_outside_the_checkout(
    installed: Path, make_corpus: Callable[..., Path], backbone: Path
) -> None:
    folder = make_corpus()
    hearback_command = installed / "hearback"
    where = "import hearback; print(hearback.__file__, hearback.__version__)"
    path, version = run(installed / "python", "-c", where, folder=folder).split()
    assert Path(path).is_relative_to(installed.parent) and version == hearback.__version__
    assert "check_models" in run(hearback_command, "--help", folder=folder)
    assert "check_models" in run(installed / "python", "-m", "hearback", folder=folder)

    near = {
        text: (HardNegative(other, "neighbour", (0,)),)
        for text, other in zip(TEXTS, [*TEXTS[1:], TEXTS[0]], strict=True)
    }
    write_hard_negatives(near, folder / "tts_data")
    # Messages name the installed command, not a script that is not there.
    refused = run(hearback_command, "get_config", folder=folder, status=2)
    assert "train some with hearback train" in refused
    flags = ["--n_folds", 3, "--backbone", backbone, "--epochs", 1, "--device", "cpu"]
    flags += ["--models", "modeltok", "--set", "batch_size=4"]
    assert "modeltok fold 2" in run(hearback_command, "train", *flags, folder=folder)
    assert "modeltok" in run(hearback_command, "check_models", folder=folder)
    run(hearback_command, "get_config", folder=folder)
    run(hearback_command, "infer", "--device", "cpu", folder=folder)
    expected = pd.read_csv(folder / "data" / "submission_format.csv")
    submission = pd.read_csv(folder / "submission.csv")
    assert list(submission["filename"]) == list(expected["filename"])
    assert submission["score"].between(0, 1).all()

    run(hearback_command, "submission", folder=folder)
    packed = set(zipfile.ZipFile(folder / "submission.zip").namelist())
    assert {"main.py", "hearback/reading/steps/infer.py", "assets/modeltok_0.json"} <= packed
    assert not [name for name in packed if name.startswith(("torch", "numpy", "site-packages"))]


@pytest.mark.slow
def test_the_songs_run_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    small = ["data/songs", "--snippets", 40]
    run(installed / "hearback", "songs", "sample", *small, folder=tmp_path)
    run(installed / "hearback", "songs", "preprocess", folder=tmp_path)
    assert any((tmp_path / "store" / "songs").iterdir())
