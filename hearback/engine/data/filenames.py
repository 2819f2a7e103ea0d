"""Filenames that are spelled otherwise than their files, or than in another table.

Spreadsheets drop leading zeros; Windows has backslashes, and treats `.WAV` and `.wav` alike; a Mac
writes a letter and its accent as two characters. Such a name stands for the one file that fits.
Where none or several fit, nothing is guessed.
"""

import bisect
import difflib
import os
import posixpath
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hearback.engine.data.paths import containing
from hearback.engine.data.problems import quoted

# Only these are ignored in a comparison: the recording `clip_07` is not `clip_07.txt`.
RECORDING_SUFFIXES = frozenset(
    {
        *(".3gp", ".aac", ".aif", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".mka", ".mov"),
        *(".mp3", ".mp4", ".oga", ".ogg", ".opus", ".w64", ".wav", ".wave", ".webm", ".wma"),
    }
)

_N_NEIGHBOURS = 40  # names in alphabetical order that are compared with a missing one
_LONGEST_COMPARED = 255  # characters; no file's name is longer


def portable(filename: str) -> str:
    """Return a filename with `/` between its folders, as written on Windows or elsewhere."""
    return filename.replace("\\", "/")


def match_names(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return, for each of the `names` that is not in `known`, the only name there that fits.

    Names that fit none, or several, or one that is in `names` itself, or that compete for one, are
    left out.
    """
    names, known = dict.fromkeys(names), dict.fromkeys(known)
    missing = [name for name in names if name and name not in known]
    if not missing:
        return {}
    index = NameIndex(filter(None, known))
    found = {name: fits[0] for name in missing if len(fits := index.find(name)) == 1}
    n_uses = Counter(found.values())
    return {
        name: match for name, match in found.items() if match not in names and n_uses[match] == 1
    }


def nearest_names(name: str, names: Iterable[str]) -> list[str]:
    """Return up to two of `names` that look like `name`, for a message."""
    return NameIndex(names).nearest(name)


def nearest_files(path: Path) -> list[str]:
    """Return up to two names of files that look like a missing one, in its folder."""
    return NameIndex(_list_names(path.parent)).nearest(path.name)


def are_there(names: Sequence[str]) -> str:
    """Return e.g. "'a.wav' and 'b.wav' are there", for a message; "" without names."""
    if not names:
        return ""
    return f"{' and '.join(map(quoted, names))} {'is' if len(names) == 1 else 'are'} there"


def _list_names(folder: Path | str) -> list[str]:
    """Return the names in a folder, sorted; [] if it cannot be listed."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except (OSError, ValueError):
        return []
    # Hidden files are no recordings: a Mac puts `._a.wav` beside a.wav.
    return [name for name in names if not name.startswith(".")]


class NameIndex:
    """Names of files, and a search for names that are spelled otherwise."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)
        self._by_key: list[dict[str, list[str]]] = [{} for _ in _SPELLINGS]
        for name in self.names:
            for spelling, by_key in zip(_SPELLINGS, self._by_key, strict=True):
                by_key.setdefault(spelling(name), []).append(name)
        self._sorted: tuple[list[str], list[str]] | None = None

    def find(self, name: str) -> list[str]:
        """Return the names that `name` may stand for, by the strictest rule that finds any.

        The rules ignore more and more: backslashes, `./` and the Unicode form; case; a recording's
        suffix that only one of the two has; zeros before a number.
        """
        for spelling, by_key in zip(_SPELLINGS, self._by_key, strict=True):
            found = [
                other
                for other in by_key.get(spelling(name), ())
                if other != name and _suffixes_fit(name, other)
            ]
            if found:
                return found
        return []

    def nearest(self, name: str) -> list[str]:
        """Return up to two names that look like `name`: those that may fit, or similar ones."""
        same_stem = self._by_key[-1].get(_without_zeros(name), [])
        if found := self.find(name) or [other for other in same_stem if other != name]:
            return found[:2]
        if len(name) > _LONGEST_COMPARED:
            return []
        # Compare with neighbours only: a folder may have 40,000 names, and all of them be missing.
        if self._sorted is None:
            self._sorted = sorted(self.names), sorted(each[::-1] for each in self.names)
        forwards = _neighbours(name, self._sorted[0])
        backwards = [each[::-1] for each in _neighbours(name[::-1], self._sorted[1])]
        near = dict.fromkeys(each for each in [*forwards, *backwards] if each != name)
        return difflib.get_close_matches(name, list(near), n=1, cutoff=0.8)


def _neighbours(name: str, ordered: Sequence[str]) -> Sequence[str]:
    at = bisect.bisect(ordered, name)
    return ordered[max(0, at - _N_NEIGHBOURS) : at + _N_NEIGHBOURS]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", posixpath.normpath(portable(name)))


def _caseless(name: str) -> str:
    return unicodedata.normalize("NFC", _plain(name).casefold())


def _stem(name: str) -> str:
    """Return the name without case and without a recording's suffix."""
    return posixpath.splitext(_caseless(name))[0] if _suffix(name) else _caseless(name)


def _without_zeros(name: str) -> str:
    """Return the stem, if it is a number without zeros before it: 7 for 007 and a table's 7.0."""
    folder, slash, number = _stem(name).rpartition("/")
    if found := re.fullmatch(r"0*([0-9]+)(?:\.0)?", number):
        number = found[1]
    return folder + slash + number


# From the strictest to the loosest.
_SPELLINGS: tuple[Callable[[str], str], ...] = (_plain, _caseless, _stem, _without_zeros)


def _suffix(name: str) -> str:
    """Return a recording's suffix in lower case, "" without one."""
    suffix = posixpath.splitext(name)[1].lower()
    return suffix if suffix in RECORDING_SUFFIXES else ""


def _suffixes_fit(name: str, other: str) -> bool:
    """Return whether two names have one suffix, or one of them has none."""
    suffixes = {_suffix(name), _suffix(other)}
    return len(suffixes) == 1 or "" in suffixes


@dataclass(frozen=True)
class FoundFile:
    """The file of a filename.

    `path` is None if the name leads out of the folder. If there is no such file, `size` (bytes) and
    `mtime_ns` are 0, and `nearest` are names in its folder that look like it.
    """

    path: Path | None
    exists: bool = False
    size: int = 0
    mtime_ns: int = 0
    nearest: tuple[str, ...] = ()


def find_files(
    folder: Path,
    filenames: Collection[str],
    max_suggestions: int = 20,
    *,
    follow_links: bool = False,
) -> tuple[dict[str, FoundFile], dict[str, str]]:
    """Find the files of `filenames` in `folder`, those spelled otherwise, too.

    Returns the file of each filename, and the names of the files that are spelled otherwise. A file
    that is listed under its own name stands for no other name. Folders are listed once, and only
    for names that do not exist as written. `max_suggestions` limits how many missing files have
    `nearest`. `follow_links` is that of `paths.containing`.
    """
    path_of = containing(folder, follow_links=follow_links)
    found = {filename: _stat(path_of(portable(filename))) for filename in filenames}
    match_of = {
        filename: posixpath.normpath(portable(filename))
        for filename, file in found.items()
        if file.exists and "\\" in filename
    }
    missing = [
        filename for filename, file in found.items() if file.path is not None and not file.exists
    ]
    lister = _Lister(folder, path_of)
    taken = {file.path for file in found.values() if file.exists} if missing else set()
    candidates = {filename: lister.find(portable(filename)) for filename in missing}
    n_uses = Counter(fit for fits in candidates.values() for fit in fits)
    n_suggestions = 0
    for filename, fits in candidates.items():
        if len(fits) == 1 and n_uses[fits[0]] == 1:
            file = _stat(path_of(fits[0]))
            if file.exists and file.path not in taken:
                found[filename], match_of[filename] = file, fits[0]
                continue
        if n_suggestions < max_suggestions:
            near = tuple(fits[:2] or lister.nearest(portable(filename)))
            n_suggestions += bool(near)
            found[filename] = replace(found[filename], nearest=near)
    return found, {filename: match_of[filename] for filename in found if filename in match_of}


def _stat(path: Path | None) -> FoundFile:
    """Return the file's size and time; it does not exist if there is a folder under its name."""
    if path is None:
        return FoundFile(None)
    try:
        state = path.stat()
    except (OSError, ValueError):  # decoding reports the reason
        return FoundFile(path)
    return FoundFile(path, not stat.S_ISDIR(state.st_mode), state.st_size, state.st_mtime_ns)


class _Lister:
    """The names in the folders below `root`, listed when they are first needed."""

    def __init__(self, root: Path, path_of: Callable[[str], Path | None]) -> None:
        self._root = root
        self._path_of = path_of
        self._files: dict[str, NameIndex] = {}
        self._folders: dict[str, str | None] = {}  # by the spelling of its parent and its own

    def find(self, name: str) -> list[str]:
        """Return the files that `name` may stand for, relative to the root."""
        folder, _, own = posixpath.normpath(name).rpartition("/")
        there = self._folder(folder)
        return [] if there is None else _join(there, self._index(there).find(own))

    def nearest(self, name: str) -> list[str]:
        """Return up to two files of the folder of `name` that look like it."""
        folder, _, own = posixpath.normpath(name).rpartition("/")
        there = self._folder(folder)
        return [] if there is None else _join(there, self._index(there).nearest(own))

    def _folder(self, name: str) -> str | None:
        """Return the spelling of a folder that exists, or None."""
        there: str | None = ""
        for part in name.split("/") if name else ():
            if there is None:
                break
            exact = posixpath.join(there, part)
            if exact not in self._folders:
                self._folders[exact] = self._subfolder(there, part)
            there = self._folders[exact]
        return there

    def _subfolder(self, parent: str, name: str) -> str | None:
        exact = posixpath.join(parent, name)
        if self._is_folder(exact):
            return exact
        fits = _join(parent, self._index(parent).find(name))
        return fits[0] if len(fits) == 1 and self._is_folder(fits[0]) else None

    def _is_folder(self, name: str) -> bool:
        # `path_of` may refuse links that lead out of the root.
        path = self._path_of(posixpath.join(name, "x"))
        try:
            return path is not None and path.parent.is_dir()
        except OSError:  # a name that is too long
            return False

    def _index(self, folder: str) -> NameIndex:
        if folder not in self._files:
            self._files[folder] = NameIndex(_list_names(self._root / folder))
        return self._files[folder]


def _join(folder: str, names: Iterable[str]) -> list[str]:
    return [posixpath.join(folder, name) for name in names]
