"""Filenames of a table: resolve them inside the data folder, refuse paths that leave it."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from hearback.engine.data.problems import Problem, quoted

# Refused in a filename, after `filenames.portable`: a root or a drive, a backslash (no table has
# any then, but an archive may), a `..` folder, a control character.
UNSAFE_FILENAME = re.compile(r"^/|^[A-Za-z]:|\\|(?:^|/)\.\.(?:/|$)|[\x00-\x1f\x7f]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def contained(folder: Path, filename: str) -> Path | None:
    """Return the path of `filename` in `folder`, or None if it leads out of the folder.

    Symbolic links are followed: the folder itself may be one, but links inside it must not lead
    out. The path need not exist.
    """
    return containing(folder)(filename)


def containing(folder: Path, *, follow_links: bool = False) -> Callable[[str], Path | None]:
    """Return `contained` for one folder and many filenames, resolving each subfolder only once.

    With `follow_links`, links inside the folder may lead out, for a folder that its owner filled
    with links (git-annex, DVC); a filename may not. Links to folders must not change while it is in
    use.
    """
    root = folder.resolve()
    resolved: dict[Path, Path] = {}

    def path_of(filename: str) -> Path | None:
        if UNSAFE_FILENAME.search(filename):
            return None
        path = root / filename
        if follow_links:
            return path
        try:
            if os.path.islink(path):  # noqa: PTH114  (Path.is_symlink raises for a name too long)
                path = path.resolve()
            else:
                if path.parent not in resolved:
                    resolved[path.parent] = path.parent.resolve()
                path = resolved[path.parent] / path.name
        except (OSError, RuntimeError):  # circular links
            return None
        return path if path.is_relative_to(root) else None

    return path_of


def leads_out(path: Path, line: int, filename: str, folder: Path) -> Problem:
    """Return the problem for a `filename` that `contained` refuses, in the table at `path`.

    `folder` is that of the recordings: a file of the same name that is there is what is meant.
    """
    if _CONTROL.search(filename):
        what = "the filename has a control character"
        return Problem(str(path), line, what, "rename the file", filename=filename)
    what = "the filename leads out of the data folder"
    own = re.split(r"[/\\]", filename)[-1]
    cure = "name a file inside it; no '..', drive or link to outside"
    if own and not UNSAFE_FILENAME.search(own) and os.path.isfile(folder / own):  # noqa: PTH113
        cure = f"{quoted(own)} is there: name it so, without the folders before it"
    return Problem(str(path), line, what, cure, filename=filename)
