"""The competition's CSV files: read, check, and report every problem at once.

The layout is that of https://www.drivendata.org/competitions/298/literacy-screening/: metadata with
the columns `filename`, `task`, `expected_text`, `grade` (here also, if there is one, `speaker`);
labels and submission format with `filename`, `score`.

Nothing here raises for what a file contains. Each fault becomes a `Problem` in a `Report`, and the
caller decides: training refuses (`Report.raise_if_errors`), inference goes on with the rows it has.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from hearback.engine.data.problems import Problem

# What a filename must not have: a root or a drive, a backslash (a separator on Windows, a letter
# elsewhere: the same table would mean two things), a `..` folder, a control character.
_UNSAFE_FILENAME = re.compile(r"^/|^[A-Za-z]:|\\|(?:^|/)\.\.(?:/|$)|[\x00-\x1f\x7f]")


def contained(folder: Path, filename: str) -> Path | None:
    """Return the path of `filename` in `folder`, or None if it leads out of the folder.

    Symbolic links are followed: the folder may be one, but what lies in it must not lead out of
    it. The path need not exist.
    """
    return containing(folder)(filename)


def containing(folder: Path) -> Callable[[str], Path | None]:
    """Return `contained` of one folder, for many filenames: each of their folders is resolved once.

    Links to folders must not change while it is used.
    """
    root = folder.resolve()
    resolved: dict[Path, Path] = {}

    def path_of(filename: str) -> Path | None:
        if _UNSAFE_FILENAME.search(filename):
            return None
        path = root / filename
        try:
            if os.path.islink(path):  # noqa: PTH114  (Path.is_symlink raises for a name too long)
                path = path.resolve()
            else:
                if path.parent not in resolved:
                    resolved[path.parent] = path.parent.resolve()
                path = resolved[path.parent] / path.name
        except (OSError, RuntimeError):  # links that go round in a circle lead nowhere
            return None
        return path if path.is_relative_to(root) else None

    return path_of


def leads_out(path: Path, line: int, filename: str) -> Problem:
    """Return the problem of a `filename` that `contained` refuses, in the table at `path`."""
    what = "the filename leads out of the data folder"
    cure = (
        "name a file inside it, folders with '/'; no '..', drive, backslash, control character or "
        "link to outside"
    )
    return Problem(str(path), line, what, cure, filename=filename)
