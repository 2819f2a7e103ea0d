"""The folder of stores, on a disk that may be read-only."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

from hearback.engine.locks import ReadOnlyFolderError

Built = TypeVar("Built")


class StoreFolder:
    """A folder of stores; a temporary one takes its place where it lacks some and is read-only.

    The temporary folder is removed at the end of a `with` block, or with this object: keep it as
    long as the stores.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def build(self, build: Callable[[Path], Built]) -> Built:
        """Return what `build` makes in the folder; it is called again if it cannot write there."""
        try:
            return build(self._folder)
        except ReadOnlyFolderError as error:
            if self._temporary is None:
                self._temporary = tempfile.TemporaryDirectory(prefix="hearback-store-")
                print(f"{error}. Decoded into a temporary folder instead")
            return build(Path(self._temporary.name))

    def __enter__(self) -> Self:
        """Return the folder."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary folder, if there is one."""
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None
