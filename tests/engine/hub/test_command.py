"""The command that downloads a backbone, in a process of its own, with a hub on this machine."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hearback.engine.whisper import pretrained
from tests.conftest import files_no_longer_than
from tests.engine.hub.conftest import NAME, WEIGHTS, Files, check_is_whole, names_in
from tests.helpers import environment_of_scripts
from tests.loopback import FakeHub, Fault

CUT = 30_000  # bytes of the weights


def run_command(
    hub: FakeHub, folder: Path, *arguments: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run the command with the hub of HF_ENDPOINT."""
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "NO_PROXY": "*"}
    environment = {k: v for k, v in environment_of_scripts().items() if k != "HF_TOKEN"}
    return subprocess.run(
        [sys.executable, "-m", "hearback.engine.whisper.pretrained", *arguments],
        cwd=folder,
        env={**environment, **own, **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_downloads_from_hf_endpoint(hub: FakeHub, files: Files, tmp_path: Path) -> None:
    hub.add(NAME, files)
    done = run_command(hub, tmp_path, NAME)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{Path('assets/tiny')}: {NAME} from the hub\n"
    check_is_whole(tmp_path / "assets" / "tiny", files)


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_the_command_names_the_offline_switch(hub: FakeHub, tmp_path: Path, switch: str) -> None:
    done = run_command(hub, tmp_path, NAME, **{switch: "1"})
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the hub did not provide {NAME}: HF_HUB_OFFLINE is set")
    assert done.stderr.count("\n") == 1
    assert not hub.requests


def test_the_command_survives_a_full_disk(hub: FakeHub, files: Files, tmp_path: Path) -> None:
    hub.add(NAME, files)
    with files_no_longer_than(CUT):  # inherited by the process
        done = run_command(hub, tmp_path, NAME)
    assert done.returncode == 2
    assert done.stderr == (
        f"{Path('assets/tiny')}: File too large; free some space and run the same command again: "
        "earlier files and finished work are kept\n"
    )
    assert names_in(tmp_path / "assets") == [".tiny.download"]


def test_a_killed_download_goes_on(hub: FakeHub, files: Files, tmp_path: Path) -> None:
    hub.add(NAME, files)
    hub.cdn.faults += [Fault(WEIGHTS, pause=0.1, block=4000)]
    command = [sys.executable, "-m", "hearback.engine.whisper.pretrained", NAME]
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "NO_PROXY": "*"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment_of_scripts() | settings, stderr=subprocess.DEVNULL
    )
    parts = tmp_path / "assets" / ".tiny.download"
    while not (kept := [p for p in parts.glob("*.part") if p.stat().st_size > 4000]):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    n_kept = kept[0].stat().st_size
    assert names_in(tmp_path / "assets") == [parts.name]
    check_is_whole(pretrained.download_model(NAME, tmp_path / "assets"), files)
    assert hub.cdn.sent(WEIGHTS)[-1] == len(files[WEIGHTS]) - n_kept
