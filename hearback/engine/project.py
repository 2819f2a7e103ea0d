"""Paths of the project's files, in a checkout and in an installed wheel."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]  # hearback/
ROOT = PACKAGE.parent  # the checkout, or site-packages

# The wheel carries the files of the checkout's root that steps read (recipes, requirements) in
# hearback/shipped/; a checkout has them at its root.
IS_INSTALLED = (PACKAGE / "shipped").is_dir()
SHIPPED = PACKAGE / "shipped" if IS_INSTALLED else ROOT
