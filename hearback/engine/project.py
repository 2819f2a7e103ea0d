"""Paths of the project's files, in a checkout and in an installed wheel."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]  # hearback/
ROOT = PACKAGE.parent  # the checkout, or site-packages

# The wheel carries the files of the checkout's root that steps read (recipes, requirements) in
# hearback/shipped/; a checkout has them at its root.
IS_INSTALLED = (PACKAGE / "shipped").is_dir()
SHIPPED = PACKAGE / "shipped" if IS_INSTALLED else ROOT


def cache_folder() -> Path:
    """Return the folder of files that can be downloaded or computed again.

    It is `$HEARBACK_CACHE`, else `hearback` in `$XDG_CACHE_HOME` or `~/.cache`.
    """
    if chosen := os.environ.get("HEARBACK_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "hearback"
