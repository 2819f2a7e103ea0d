"""A store of a few recordings in memory, for scores that need no folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hearback.engine.audio.decode import Recording
from hearback.engine.audio.store import Store
from hearback.engine.audio.store_format import SPEECH, StoreEntry


class MemoryStore(Store):
    """Decoded recordings by name, with the samples that a store on disk would have."""

    def __init__(self, recordings: Mapping[str, Recording]) -> None:
        self._format = SPEECH
        self._entries: dict[str, StoreEntry] = {}
        packed: list[np.ndarray] = []
        n_samples = 0
        for name, recording in recordings.items():
            samples = SPEECH.pack(recording.waveform)
            entry = StoreEntry.of(samples, "", recording.notes, offset=n_samples)
            self._entries[name] = entry
            packed.append(samples)
            n_samples += samples.size
        self._data = np.concatenate(packed) if packed else np.zeros(0, SPEECH.dtype)
        self.data_path, self.n_data = Path("memory"), n_samples

    def __reduce__(self) -> Any:  # noqa: ANN401  (pickle's own)
        """Pickle the samples, too: they are nowhere else."""
        return _restore, (self._entries, self._data)


def _restore(entries: dict[str, StoreEntry], data: np.ndarray) -> MemoryStore:
    store = MemoryStore({})
    store._entries, store._data, store.n_data = entries, data, len(data)
    return store
