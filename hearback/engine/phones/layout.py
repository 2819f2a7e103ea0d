"""The directory of the pretrained models of phones, `assets/hama-phones/`.

    model.safetensors           the weights of `PhoneCTC`
    config.json                 its sizes
    pronunciations.safetensors  the file of `PhoneTokenizer`: dictionary, `G2PNetwork`, vocabulary
    origin.json                 where they are from, and the digests of the other files

The weights are float16, as published; the modules are float32.
"""

import shlex
from pathlib import Path

from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json, sha256_of

NAME = "hama-phones"
MODEL, PRONUNCIATIONS = "model.safetensors", "pronunciations.safetensors"
CONFIG, ORIGIN = "config.json", "origin.json"


def resolve(assets: Path) -> Path:
    """Return the directory of the pretrained models in the assets.

    Raises HearbackError with the command that downloads it if it is not there.
    """
    directory = assets / NAME
    if not (directory / ORIGIN).is_file():
        raise HearbackError(f"no {directory}. Download it with: {command(assets)}")
    return directory


def checked(directory: Path, name: str) -> Path:
    """Return the path of one of the files, with the digest that it was written with.

    Raises HearbackError with the cure if it is missing or damaged.
    """
    path = directory / name
    cure = f"Remove {directory} and download it again: {command(directory.parent)}"
    try:
        expected = read_json(directory / ORIGIN)["files"][name]
        found = sha256_of(path)
    except OSError as error:
        raise HearbackError(f"{error.filename}: {error.strerror}. {cure}") from None
    except (ValueError, KeyError, TypeError):
        raise HearbackError(f"{directory / ORIGIN} has no digest of {name}. {cure}") from None
    if found != expected:
        raise HearbackError(f"{path} is damaged: its SHA-256 is not that in {ORIGIN}. {cure}")
    return path


def command(assets: Path) -> str:
    """Return the command that downloads the models."""
    folder = "" if assets == Path("assets") else f" --assets {shlex.quote(str(assets))}"
    return f"python -m hearback.engine.phones.pretrained{folder}"
