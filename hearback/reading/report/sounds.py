"""The sound of recordings and of their references."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hearback.engine.data.paths import containing
from hearback.engine.page.clips import Sound, decode_if_possible
from hearback.reading.references import INDEX, References
from hearback.reading.scoring.recordings import LONGEST_RECORDING


@dataclass(frozen=True)
class Sounds:
    """Recordings of a folder, and the reference speech of their texts, if there is any.

    Attributes:
        folder: of the recordings.
        filenames: of the page's recordings.
        texts: their expected texts, as they are said.
        references: None if there are none.
    """

    folder: Path
    filenames: Sequence[str]
    texts: Sequence[str]
    references: References | None = None

    def __call__(self, index: int) -> Sound:
        """Return the sound of a recording, without what is missing or cannot be read."""
        learner = decode_if_possible(self.folder, self.filenames[index], LONGEST_RECORDING)
        return Sound(None if learner is None else learner.waveform, self.reference(index))

    def is_there(self, index: int) -> bool:
        """Return whether there is a file of a recording."""
        path = containing(self.folder, follow_links=True)(self.filenames[index])
        return path is not None and path.is_file()

    def reference(self, index: int) -> np.ndarray | None:
        """Return the reference of a recording's text, (samples,), or None."""
        text = self.texts[index]
        if self.references is None or text not in self.references:
            return None
        return self.references.waveform(text)


def open_references(folder: Path) -> References | None:
    """Open a folder of reference speech; None if it has none. HearbackError if it is damaged."""
    return References(folder) if (folder / INDEX).is_file() else None
