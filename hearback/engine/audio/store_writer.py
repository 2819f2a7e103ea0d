"""Write a store so that a killed build can be resumed: samples, a journal, then the index."""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hearback.engine.audio.store import FileStore
from hearback.engine.audio.store_format import StoreEntry, StoreFormat
from hearback.engine.io import atomic_write, write_json


class StoreWriter:
    """An unfinished store: samples are appended to its data file, their entries to a journal.

    The journal, `.<name>.journal`, is a header that names the data file, then a line of JSON for
    each recording, written after its samples. The index replaces it when the build is complete.
    Until then a line counts only if its digest matches the samples, so nothing needs to be synced
    in between. `entries` are the recordings available so far: those of the previous store, if any,
    and of the journal.
    """

    def __init__(
        self, folder: Path, name: str, store_format: StoreFormat, previous: FileStore | None
    ) -> None:
        self._folder, self._name, self._previous = folder, name, previous
        self._header, self._itemsize = store_format.header, store_format.dtype.itemsize
        self._journal_path = folder / f".{name}.journal"
        self.entries: dict[str, StoreEntry] = {}
        self._data_path = self._new_path()
        self._n_samples = 0
        if previous is not None:
            self.entries.update(previous.entries)
            self._data_path, self._n_samples = previous.data_path, previous.n_data
        self._journal_bytes = 0
        self._data: BinaryIO | None = None
        self._journal: BinaryIO | None = None
        self._read_journal()
        self._remove_other_data()

    def close(self) -> None:
        """Close the files; added recordings stay for the next build."""
        for file in (self._data, self._journal):
            if file is not None:
                with _naming(self._data_path):
                    file.close()

    def add(self, filename: str, samples: np.ndarray, entry: StoreEntry) -> None:
        """Append a recording, replacing a previous one of its name; `entry.offset` is set here."""
        if self._data is None or self._journal is None:
            self._data, self._journal = self._open()
        entry = replace(entry, offset=self._n_samples)
        with _naming(self._data_path):
            self._data.write(samples.data)
            self._data.flush()
        self._journal.write(_as_line({"filename": filename, **vars(entry)}))
        self._journal.flush()
        self._n_samples += entry.n_samples
        self.entries[filename] = entry

    def finish(self, filenames: set[str]) -> bool:
        """Write the index of `filenames` and drop other recordings; return whether it changed."""
        self.close()
        entries = {name: entry for name, entry in self.entries.items() if name in filenames}
        changed = self._previous is None or entries != self._previous.entries
        if changed:
            self._write_index(entries)
        elif self._previous is not None and self._previous.n_data < self._n_samples:
            # Recordings of a table that changed back. Windows cannot truncate a mapped file.
            with contextlib.suppress(PermissionError):
                os.truncate(self._data_path, self._previous.n_data * self._itemsize)
        self._journal_path.unlink(missing_ok=True)
        return changed

    def _write_index(self, entries: dict[str, StoreEntry]) -> None:
        n_samples = sum(entry.n_samples for entry in entries.values())
        if n_samples < self._n_samples or not self._data_path.exists():
            entries = self._copy(entries)
        else:
            with self._data_path.open("rb+") as data:
                os.fsync(data.fileno())
        recordings = {name: vars(entry) for name, entry in entries.items()}
        header = {**self._header, "data": self._data_path.name, "n_samples": n_samples}
        write_json(self._folder / f"{self._name}.json", {**header, "recordings": recordings})
        self._remove_other_data()

    def _open(self) -> tuple[BinaryIO, BinaryIO]:
        """Open data and journal, truncating an incomplete recording and line at their ends."""
        if not self._journal_bytes:
            header = _as_line({**self._header, "data": self._data_path.name})
            with atomic_write(self._journal_path) as temporary:
                temporary.write_bytes(header)
            self._journal_bytes = len(header)
        self._data_path.touch()
        data, journal = self._data_path.open("rb+"), self._journal_path.open("rb+")
        for file, n_bytes in (
            (data, self._n_samples * self._itemsize),
            (journal, self._journal_bytes),
        ):
            file.truncate(n_bytes)
            file.seek(n_bytes)
        return data, journal

    def _read_journal(self) -> None:
        """Recover the complete recordings of a build that was killed."""
        # No journal, half a line, samples lost in a power cut: everything before counts.
        with (
            contextlib.suppress(OSError, ValueError, KeyError, TypeError),
            self._journal_path.open("rb") as journal,
        ):
            line = journal.readline()
            header = json.loads(line)
            data_path = self._folder / Path(header.pop("data")).name
            if header != self._header:
                return  # of another version
            if self._previous is not None and data_path != self._data_path:
                return  # the index is newer, and its data file a copy
            self._data_path, self._journal_bytes = data_path, len(line)
            with data_path.open("rb") as data:
                for line in journal:
                    fields = json.loads(line)
                    filename, entry = fields.pop("filename"), StoreEntry(**fields)
                    if hashlib.sha256(self._read_samples(data, entry)).hexdigest() != entry.sha256:
                        return
                    self.entries[filename] = entry
                    self._n_samples = entry.end
                    self._journal_bytes += len(line)

    def _copy(self, entries: Mapping[str, StoreEntry]) -> dict[str, StoreEntry]:
        """Copy recordings to a new data file; return their entries with the new offsets."""
        moved: dict[str, StoreEntry] = {}
        offset = 0
        previous_path, self._data_path = self._data_path, self._new_path()
        with atomic_write(self._data_path) as temporary, temporary.open("wb") as copy:
            if entries:
                with previous_path.open("rb") as data:
                    for filename, entry in entries.items():
                        copy.write(self._read_samples(data, entry))
                        moved[filename] = replace(entry, offset=offset)
                        offset += entry.n_samples
        return moved

    def _read_samples(self, data: BinaryIO, entry: StoreEntry) -> bytes:
        data.seek(entry.offset * self._itemsize)
        return data.read(entry.n_samples * self._itemsize)

    def _new_path(self) -> Path:
        return self._folder / f"{self._name}.{uuid.uuid4().hex}.pcm"

    def _remove_other_data(self) -> None:
        """Remove data files of the store's other builds, complete or not."""
        name = self._name
        for path in chain(self._folder.glob(f"{name}.*.pcm"), self._folder.glob(f".{name}.*.pcm")):
            if path != self._data_path:
                with contextlib.suppress(PermissionError):  # Windows: a process has it open
                    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name a file in errors of writing, unlike opening, which name none."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _as_line(fields: Mapping[str, Any]) -> bytes:
    return (json.dumps(fields) + "\n").encode()
