"""--help answers at once: it imports no package that takes seconds."""

import subprocess
import sys

import pytest

from hearback.engine.project import ROOT
from tests.flags_page import COMMANDS
from tests.helpers import environment_of_scripts

SLOW = ("torch", "transformers", "sklearn", "numba", "scipy.signal", "matplotlib.pyplot")
# They are built on these packages, and are run by researchers only.
EXEMPT = (
    "python -m hearback.reading.baselines.train",
    "python -m hearback.reading.baselines.ablation",
)
COMMANDS_SHOWN = [command for listed in COMMANDS.values() for command in listed]
OTHERS = (
    *("python train_model3mapd.py", "python -m hearback train", "python -m hearback"),
    "python -m hearback pretrained build",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [command for command in (*COMMANDS_SHOWN, *OTHERS) if command not in EXEMPT]
)
def test_help_imports_nothing_slow(command: str) -> None:
    words = command.split()[1:]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words, "--help"],
        cwd=ROOT,
        env=environment_of_scripts(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "usage:" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hearback" in imported  # the lines are read right
    assert imported.isdisjoint(SLOW)
