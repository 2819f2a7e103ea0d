"""Recordings of some rows, in the data files of the stores that chunks were decoded into."""

import numpy as np

from hearback.engine.audio.store import Store
from hearback.engine.audio.store_format import SPEECH, StoreEntry
from hearback.reading.inference.cluster.shards import StoredRows


class RowStore(Store):
    """The recordings of some rows, in the data files of several stores."""

    def __init__(self, stored: StoredRows) -> None:
        self._stored = stored
        entries = {
            name: StoreEntry(int(offset), int(n_samples), 0, 0, "", ())
            for name, offset, n_samples in zip(
                stored.metadata["filename"], stored.offsets, stored.n_samples, strict=True
            )
        }
        super().__init__(entries, np.zeros(0, SPEECH.dtype), "the decoded recordings")
        self._file_of = dict(zip(stored.metadata["filename"], stored.files.tolist(), strict=True))
        self._files: dict[int, np.ndarray] = {}

    def get(self, filename: str) -> np.ndarray:
        """Return a recording's waveform, (n,) float32. Raises NotInStoreError."""
        entry, file = self._entry(filename), self._file_of[filename]
        if file not in self._files:
            self._files[file] = np.memmap(self._stored.paths[file], self.format.dtype, "r")
        return self.format.unpack(self._files[file][entry.offset : entry.end])

    def __reduce__(self) -> tuple[type["RowStore"], tuple[StoredRows]]:
        """Pickle where the recordings are, not the files."""
        return type(self), (self._stored,)
