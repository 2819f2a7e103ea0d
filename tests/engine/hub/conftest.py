"""A hub on this machine, which the client takes for the true one."""

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from hearback.engine.hub import transfer
from tests.loopback import FakeHub

NAME = "owner/tiny"
WEIGHTS = "model.safetensors"
WANTED = ["config.json", WEIGHTS, "tokenizer.json"]
Files = dict[str, bytes]


@pytest.fixture
def files(backbone: Path) -> Files:
    """The files of a tiny Whisper, and two that nobody needs."""
    found = {path.name: path.read_bytes() for path in sorted(backbone.iterdir())}
    return {**found, "README.md": b"a model", "pytorch_model.bin": b"a pickle"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """An empty hub; the client waits a hundredth of a second before it asks again."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(transfer, "WAITS", (0.01, 0.01, 0.01))
    huggingface_hub.close_session()  # a client that has read another environment
    with FakeHub() as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        yield hub
    huggingface_hub.close_session()


def read_origin(folder: Path) -> dict[str, str]:
    """Return what a directory says about where it is from."""
    return json.loads((folder / "origin.json").read_text())


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, which need not exist."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def check_is_whole(folder: Path, files: Files) -> None:
    """Assert that a model is there, its needed files and nothing else in the assets."""
    assert names_in(folder) == sorted([*WANTED, "origin.json"])
    for name in WANTED:
        assert (folder / name).read_bytes() == files[name]
    assert names_in(folder.parent) == [folder.name]
