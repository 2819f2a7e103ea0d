"""Installed pure-Python packages that a submission carries because its runtime lacks them."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from hearback.engine.submission.archive import Entries, Faults


def carried_packages(names: Iterable[str], faults: Faults) -> Entries:
    """Return the files of installed packages and their licenses, by their names in the zip.

    Packages that are not installed, or have compiled modules, are faults.
    """
    entries: Entries = {}
    for name in names:
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:
            faults.append(f"the package {name} is not installed: pip install -r requirements.txt")
            continue
        for file in files:
            if file.suffix in (".so", ".pyd"):
                faults.append(
                    f"the package {name} has compiled modules, which the zip cannot carry"
                )
                break
            # Scripts are outside of site-packages; compiled code is of this Python version.
            if ".." not in file.parts and "__pycache__" not in file.parts:
                entries[f"packages/{file.as_posix()}"] = Path(str(file.locate()))
    return entries
