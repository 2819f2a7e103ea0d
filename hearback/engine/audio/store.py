"""Stores of decoded recordings or features, on disk or in memory; `store_builder` builds them."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import numpy as np

from hearback.engine.audio.decode import Recording
from hearback.engine.audio.store_format import SPEECH, StoreEntry, StoreFormat
from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json


class BadStoreError(HearbackError):
    """A store that is missing, incomplete, or of another version."""


class NotInStoreError(HearbackError, KeyError):
    """A recording that the store does not contain."""

    __str__ = Exception.__str__  # KeyError's own puts the message in quotes


class Store:
    """Decoded recordings or features by filename: an index, and one array of all samples.

    `FileStore` has them on disk, `MemoryStore` in memory.
    """

    def __init__(
        self,
        entries: Mapping[str, StoreEntry],
        samples: np.ndarray,
        origin: str,
        store_format: StoreFormat = SPEECH,
    ) -> None:
        """Make a store of `samples`, (n,) in the format's type; `origin` names it in messages."""
        self.entries = entries  # by filename
        self.samples = samples
        self.origin = origin
        self.format = store_format

    def get(self, filename: str) -> np.ndarray:
        """Return a recording's waveform, (n,), or its features, float32. Raises NotInStoreError."""
        entry = self._entry(filename)
        return self.format.unpack(self.samples[entry.offset : entry.end])

    def damaged(self) -> list[str]:
        """Return the recordings whose samples are not those that were stored."""
        return [
            filename
            for filename, entry in self.entries.items()
            if _sha256_of(self.samples[entry.offset : entry.end]) != entry.sha256
        ]

    def n_samples(self, filename: str) -> int:
        """Return the number of stored values of a recording. Raises NotInStoreError."""
        return self._entry(filename).n_samples

    def n_bytes(self, filenames: Iterable[str]) -> int:
        """Return the bytes that recordings have in the store. Raises NotInStoreError."""
        return sum(map(self.n_samples, filenames)) * self.format.dtype.itemsize

    def fingerprint(self) -> str:
        """Return the SHA-256 of all recordings and their names, independent of their order."""
        digest = hashlib.sha256()
        for filename, entry in sorted(self.entries.items()):
            digest.update(f"{filename}\0{entry.sha256}\n".encode())
        return digest.hexdigest()

    def __contains__(self, filename: object) -> bool:
        """Return whether the store has a recording of this name."""
        return filename in self.entries

    def __len__(self) -> int:
        """Return the number of recordings."""
        return len(self.entries)

    def _entry(self, filename: str) -> StoreEntry:
        try:
            return self.entries[filename]
        except KeyError:
            why = "its file has an error, or the table of this store does not list it"
            raise NotInStoreError(f"{filename!r} is not in {self.origin}: {why}") from None


class FileStore(Store):
    """The recordings of one table, decoded once and memory-mapped.

    It is two files. `<name>.json`, the index, names the other one, `<name>.<id>.pcm`: the
    samples of all recordings one after another, little-endian, without a header. The index is
    written last and atomically. Data that it describes are never overwritten, only appended to, so
    a build that is killed leaves the previous store intact. Any number of processes may open it.

    `FileStore(folder, name)` opens a store that `build_store` made. Raises BadStoreError if it is
    missing, incomplete, or of another version or format.
    """

    def __init__(self, folder: Path, name: str, store_format: StoreFormat = SPEECH) -> None:
        self._arguments = (folder.absolute(), name, store_format)
        index_path = folder / f"{name}.json"
        if not index_path.is_file():
            raise BadStoreError(f"{index_path}: there is no such store; build it first")
        entries, self.data_path, self.n_data = _read_index(index_path, store_format)
        # An empty file cannot be mapped.
        samples: np.ndarray = np.zeros(0, store_format.dtype)
        if self.n_data:
            samples = np.memmap(self.data_path, store_format.dtype, "r", shape=(self.n_data,))
        super().__init__(entries, samples, str(self.data_path), store_format)

    def __reduce__(self) -> tuple[type[Self], tuple[Path, str, StoreFormat]]:
        """Pickle the path only: a pickled memory map is a copy of all the audio."""
        return type(self), self._arguments


class MemoryStore(Store):
    """Recordings in memory by name, with the samples that a store on disk would have."""

    def __init__(self, recordings: Mapping[str, Recording]) -> None:
        entries: dict[str, StoreEntry] = {}
        packed: list[np.ndarray] = []
        n_samples = 0
        for name, recording in recordings.items():
            packed.append(SPEECH.pack(recording.waveform))
            entries[name] = StoreEntry.of(packed[-1], "", recording.notes, offset=n_samples)
            n_samples += packed[-1].size
        samples = np.concatenate(packed) if packed else np.zeros(0, SPEECH.dtype)
        super().__init__(entries, samples, "memory")


def _sha256_of(samples: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(samples).data).hexdigest()


def _read_index(
    index_path: Path, store_format: StoreFormat
) -> tuple[dict[str, StoreEntry], Path, int]:
    """Return an index's entries, its data file and the number of values there."""
    try:
        index = read_json(index_path)
        header = {key: index[key] for key in store_format.header}
        if header != store_format.header:
            raise BadStoreError(f"{index_path}: of another version ({header}); build it again")
        entries = {name: StoreEntry(**entry) for name, entry in index["recordings"].items()}
        n_data = index["n_samples"]
        if store_format.shape is not None:
            sizes = {entry.n_samples for entry in entries.values()}
            if not sizes <= {math.prod(store_format.shape)}:
                raise ValueError(f"recordings of {sizes} values, not {store_format.shape}")
        last = max((entry.end for entry in entries.values()), default=0)
        if type(n_data) is not int or n_data < last:
            raise ValueError(f"invalid number of samples: {n_data!r}")
        data_path = index_path.parent / index["data"]
        if data_path.name != index["data"]:
            raise ValueError(f"invalid data file: {index['data']!r}")
        n_bytes, n_bytes_needed = data_path.stat().st_size, n_data * store_format.dtype.itemsize
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise BadStoreError(f"{index_path}: damaged ({what}); build the store again") from error
    if n_bytes < n_bytes_needed:  # additional bytes are those of an unfinished build
        what = f"{n_bytes} bytes, its index needs {n_bytes_needed}"
        raise BadStoreError(f"{data_path}: {what}; build the store again")
    return entries, data_path, n_data
