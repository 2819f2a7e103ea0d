"""Recordings: decode, check, bring to one rate and one channel, and keep so in a store.

A recording that cannot be used (missing, unreadable, silent, ...) is an error. One in another
layout (stereo, 8 kHz, 44.1 kHz, ...) is converted, one that goes on for minutes is cut, and a
warning says what was done. What the header of a file tells is believed of nothing that costs
memory.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import pandas as pd
from filelock import FileLock
from tqdm import tqdm

from hearback.engine.audio.decode import SAMPLE_RATE, VERSION, UnreadableAudio, decode
from hearback.engine.audio.wav import FULL_SCALE, INT16, to_int16
from hearback.engine.data.paths import containing, leads_out
from hearback.engine.data.problems import Problem, Report
from hearback.engine.devices import count_processors
from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write, read_json, write_json

_FLOAT32 = np.dtype("<f4")


class BadStore(HearbackError):  # noqa: N818  (the fault is the store's)
    """A store that is not there, not whole, or of another version."""


class NotInStore(HearbackError, KeyError):  # noqa: N818  (it says what KeyError says)
    """A recording that the store does not hold."""

    __str__ = Exception.__str__  # KeyError's own puts the message in quotes


@dataclass(frozen=True)
class Contents:
    """What a store keeps of each recording: samples, or what was computed from them.

    A store whose index tells another `layout` is refused, and built again. So `version` goes up,
    or `made_by` (of JSON's types) changes, whenever the same recording would give other values.
    """

    version: int
    sample_rate: int  # Hz, of the sound that is kept, or that the values were computed from
    is_sound: bool = True  # kept as int16, full scale 1.0; else as float32
    shape: tuple[int, ...] | None = None  # of each recording's array; None: (n,), n its own
    made_by: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> np.dtype:
        """The type of the values in the data file, little-endian."""
        return INT16 if self.is_sound else _FLOAT32

    @property
    def layout(self) -> dict[str, Any]:
        """What the index and the journal tell of the data, as it comes back from JSON."""
        told = {"version": self.version, "dtype": self.dtype.str, "sample_rate": self.sample_rate}
        if self.shape is not None:
            told["shape"] = self.shape
        return json.loads(json.dumps({**told, **self.made_by}))

    @property
    def original(self) -> str:
        """What a recording is that needs no converting, in words."""
        said = f"{self.sample_rate / 1000:g} kHz mono original"
        if self.is_sound and self.shape is not None:
            said += f" of {self.shape[0] / self.sample_rate:g} s"
        return said

    def pack(self, values: np.ndarray) -> np.ndarray:
        """Return an array as the data file has it. Raises ValueError if it cannot be there."""
        if self.shape is not None and values.shape != self.shape:
            raise ValueError(f"an array of {values.shape} where the store keeps {self.shape}")
        if self.is_sound:
            return to_int16(values)
        if not np.isfinite(values).all():
            raise ValueError("NaN or infinite values")
        return np.ascontiguousarray(values, _FLOAT32)

    def unpack(self, stored: np.ndarray) -> np.ndarray:
        """Return a recording's array, float32, from its values in the data file, (n,)."""
        values = stored.astype(np.float32)
        if self.is_sound:
            values /= FULL_SCALE
        return values if self.shape is None else values.reshape(self.shape)


SPEECH = Contents(VERSION, SAMPLE_RATE)  # what Whisper hears

# A recording's filename and path -> its array, and notes. Raises UnreadableAudio.
Load = Callable[[str, Path], tuple[np.ndarray, tuple[str, ...]]]


def _load_speech(_filename: str, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    recording = decode(path)
    return recording.waveform, recording.notes


class Store:
    """The recordings of one table, decoded once, memory-mapped: 16 kHz sound, or other `Contents`.

    Two files: `<name>.json`, the index, names the other, `<name>.<id>.pcm`, which is the samples
    of all recordings one after the other, little-endian int16 without a header. The index is
    written last and in one step, and what it tells of the data is never written over, only
    appended to: a build that is killed leaves the former store as it was, and the next one goes on
    where it ended (`_Builder`). Any number of processes may have a store open.

    `Store(folder, name)` opens what `Store.build` made. Raises BadStore if it is not there, not
    whole, or of another version or other contents.
    """

    def __init__(self, folder: Path, name: str, contents: Contents = SPEECH) -> None:
        self._opened = (folder.absolute(), name, contents)
        self._contents = contents
        index_path = folder / f"{name}.json"
        if not index_path.is_file():
            raise BadStore(f"{index_path}: there is no such store; build it first")
        try:
            index = read_json(index_path)
            layout = {key: index[key] for key in contents.layout}
            if layout != contents.layout:
                raise BadStore(f"{index_path}: of another version ({layout}); build it again")
            recordings = index["recordings"].items()
            self._entries = {filename: _Entry(**entry) for filename, entry in recordings}
            n_samples = index["n_samples"]
            ends = [entry.end for entry in self._entries.values()]
            if contents.shape is not None:
                sizes = {entry.n_samples for entry in self._entries.values()}
                if not sizes <= {math.prod(contents.shape)}:
                    raise ValueError(f"recordings of {sizes} values cannot be {contents.shape}")
            if type(n_samples) is not int or n_samples < max(ends, default=0):
                raise ValueError(f"{n_samples!r} samples cannot be")
            self._data_path = folder / index["data"]
            if self._data_path.name != index["data"]:
                raise ValueError(f"its samples are said to lie in {index['data']!r}")
            n_bytes = self._data_path.stat().st_size
            n_bytes_told = n_samples * contents.dtype.itemsize
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise BadStore(f"{index_path}: damaged ({what}); build the store again") from error
        if n_bytes < n_bytes_told:
            what = f"{n_bytes} bytes where its index tells {n_bytes_told}"
            raise BadStore(f"{self._data_path}: {what}; build the store again")
        # More bytes are those of a build under way. An empty file cannot be mapped.
        self._data: np.ndarray = np.zeros(0, contents.dtype)
        if n_bytes_told:
            self._data = np.memmap(self._data_path, contents.dtype, "r", shape=(n_samples,))

    @classmethod
    def build(
        cls,
        metadata: pd.DataFrame,
        data_folder: Path,
        table_path: Path,
        store_folder: Path,
        name: str,
        *,
        report: Report,
        progress: bool = True,
        workers: int | None = None,
        contents: Contents = SPEECH,
        load: Load = _load_speech,
        doing: str = "decoding",
    ) -> Self:
        """Bring the store up to date with a metadata table, and open it.

        `metadata` comes from `tables.read_metadata(table_path, ...)`, or has its columns `filename`
        and `line`; the recordings lie in `data_folder`. A recording is decoded if it is new or its
        file's size or modification time changed, and dropped if the table no longer has it. What a
        build that was killed has decoded is not decoded again. All problems go into `report`, those
        of recordings decoded earlier too; a recording with an error is not in the store. Memory
        holds a few recordings at a time. `workers` is the number of threads, by default one for
        each processor.

        A store of something else than 16 kHz speech says what (`contents`), how a recording becomes
        that (`load`, called in those threads) and what the progress bar calls it (`doing`).
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"a store's name is letters, digits, '_' and '-', not {name!r}")
        sources = _sources(metadata, data_folder, table_path, report)
        store_folder.mkdir(parents=True, exist_ok=True)
        # A second process that builds the same store waits here, and then finds it up to date.
        with FileLock(store_folder / f".{name}.lock"):
            former: Self | None = None
            with contextlib.suppress(BadStore):  # the recordings are there to make it again
                former = cls(store_folder, name, contents)
            builder = _Builder(store_folder, name, contents, former)
            stored = builder.entries
            current = {source.filename for source in sources if _is_current(source, stored)}
            for source in sources:
                if source.filename in current:
                    notes = stored[source.filename].notes
                    _report_notes(source, notes, contents, table_path, report)
            missing = [source for source in sources if source.filename not in current]
            with contextlib.closing(builder):
                work = _Work(contents, load, doing if progress and missing else None, workers)
                # A recording with an error is tried again each time.
                for source, decoded in _decode_all(missing, work, table_path, report):
                    builder.add(source.filename, decoded)
                    current.add(source.filename)
                if not builder.finish(current) and former is not None:
                    return former
            return cls(store_folder, name, contents)

    def get(self, filename: str) -> np.ndarray:
        """Return a recording's waveform, (n,), or array, float32. Raises NotInStore."""
        return self._contents.unpack(self._samples(filename))

    def n_samples(self, filename: str) -> int:
        """Return how many samples (or values) a recording has in the store. Raises NotInStore."""
        return self._entry(filename).n_samples

    def fingerprint(self) -> str:
        """Return the SHA-256 of what the store holds: the same for the same audio in any order."""
        digest = hashlib.sha256()
        for filename, entry in sorted(self._entries.items()):
            digest.update(f"{filename}\0{entry.sha256}\n".encode())
        return digest.hexdigest()

    def __contains__(self, filename: object) -> bool:
        """Return whether the store has a recording of this name."""
        return filename in self._entries

    def __len__(self) -> int:
        """Return the number of recordings."""
        return len(self._entries)

    def __reduce__(self) -> tuple[type[Self], tuple[Path, str, Contents]]:
        """Travel to another process as a path: a pickled memory map is a copy of all the audio."""
        return type(self), self._opened

    def _samples(self, filename: str) -> np.ndarray:
        entry = self._entry(filename)
        return self._data[entry.offset : entry.end]

    def _entry(self, filename: str) -> "_Entry":
        try:
            return self._entries[filename]
        except KeyError:
            why = "its file has an error, or the table that the store is of does not name it"
            raise NotInStore(f"{filename!r} is not in {self._data_path}: {why}") from None


@dataclass(frozen=True)
class _Source:
    """A recording's file, as the metadata names it."""

    filename: str
    line: int
    path: Path
    size: int  # bytes; 0 where the file is missing
    mtime_ns: int


@dataclass(frozen=True)
class _Entry:
    """A recording in a store."""

    offset: int  # samples before it
    n_samples: int
    source_size: int  # bytes
    source_mtime_ns: int
    sha256: str  # of its samples
    notes: Sequence[str]

    def __post_init__(self) -> None:
        """Raise ValueError for what no build writes."""
        counts = (self.offset, self.n_samples)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"no places in the data: {counts}")
        if not all(isinstance(note, str) for note in self.notes):
            raise ValueError(f"no notes: {self.notes}")

    @property
    def end(self) -> int:
        """The number of samples up to its last one."""
        return self.offset + self.n_samples


@dataclass(frozen=True)
class _Decoded:
    """A recording as the store keeps it; its place is not known yet."""

    entry: _Entry
    samples: np.ndarray  # as `Contents.pack` gives them


@dataclass(frozen=True)
class _Work:
    """What is to be done with recordings that are not in a store."""

    contents: Contents
    load: Load
    doing: str | None  # as a progress bar calls it; None: no bar
    workers: int | None  # threads


class _Builder:
    """A store under way: samples are appended to its data file, and what they are to a journal.

    The journal, `.<name>.journal`, is a header that names the data file, then a line of JSON for
    each recording, written after its samples. The index takes its place when all is done. Until
    then a line counts only if the samples are those of its digest, so nothing needs to be synced
    on the way. `entries` are the recordings that there are, of the former store and of the journal.
    """

    def __init__(self, folder: Path, name: str, contents: Contents, former: Store | None) -> None:
        self._folder, self._name, self._former = folder, name, former
        self._layout, self._itemsize = contents.layout, contents.dtype.itemsize
        self._journal_path = folder / f".{name}.journal"
        self.entries: dict[str, _Entry] = {}
        self._data_path = self._new_path()
        self._n_samples = 0
        if former is not None:
            self.entries.update(former._entries)
            self._data_path, self._n_samples = former._data_path, len(former._data)
        self._journal_bytes = 0
        self._data: BinaryIO | None = None
        self._journal: BinaryIO | None = None
        self._read_journal()
        self._remove_data()

    def close(self) -> None:
        """Close the files; what was added stays for the next build."""
        for file in (self._data, self._journal):
            if file is not None:
                file.close()

    def add(self, filename: str, decoded: _Decoded) -> None:
        """Append a recording, in place of a former one of its name."""
        if self._data is None or self._journal is None:
            self._data, self._journal = self._open()
        entry = replace(decoded.entry, offset=self._n_samples)
        self._data.write(decoded.samples.data)
        self._data.flush()
        self._journal.write(_as_line({"filename": filename, **vars(entry)}))
        self._journal.flush()
        self._n_samples += entry.n_samples
        self.entries[filename] = entry

    def finish(self, filenames: set[str]) -> bool:
        """Write the index of `filenames` and drop the others; return whether anything changed."""
        self.close()
        former = self._former
        entries = {name: entry for name, entry in self.entries.items() if name in filenames}
        changed = former is None or entries != former._entries
        if changed:
            n_samples = sum(entry.n_samples for entry in entries.values())
            if n_samples < self._n_samples or not self._data_path.exists():
                entries = self._copy(entries)
            else:
                with self._data_path.open("rb+") as data:
                    os.fsync(data.fileno())
            recordings = {name: vars(entry) for name, entry in entries.items()}
            told = {**self._layout, "data": self._data_path.name, "n_samples": n_samples}
            write_json(self._folder / f"{self._name}.json", {**told, "recordings": recordings})
            self._remove_data()
        elif former is not None and len(former._data) < self._n_samples:
            # Decoded for a table that is no more. Windows cuts nothing that is mapped.
            with contextlib.suppress(PermissionError):
                os.truncate(self._data_path, len(former._data) * self._itemsize)
        self._journal_path.unlink(missing_ok=True)
        return changed

    def _open(self) -> tuple[BinaryIO, BinaryIO]:
        """Open data and journal, cut behind what counts: half a recording, half a line."""
        if not self._journal_bytes:
            header = _as_line({**self._layout, "data": self._data_path.name})
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
        """Take over what a build that was killed has stored, as far as it is whole."""
        # No journal, half a line, samples that were lost with the power: what comes before counts.
        with (
            contextlib.suppress(OSError, ValueError, KeyError, TypeError),
            self._journal_path.open("rb") as journal,
        ):
            header = journal.readline()
            told = json.loads(header)
            data_path = self._folder / Path(told.pop("data")).name
            if told != self._layout or (self._former is not None and data_path != self._data_path):
                return  # another version's; or the index is newer, and its data a copy
            self._data_path, self._journal_bytes = data_path, len(header)
            with data_path.open("rb") as data:
                for line in journal:
                    values = json.loads(line)
                    filename, entry = values.pop("filename"), _Entry(**values)
                    if hashlib.sha256(self._read_samples(data, entry)).hexdigest() != entry.sha256:
                        return
                    self.entries[filename] = entry
                    self._n_samples = entry.end
                    self._journal_bytes += len(line)

    def _copy(self, entries: Mapping[str, _Entry]) -> dict[str, _Entry]:
        """Copy some recordings to a new data file; return them with their places there."""
        moved: dict[str, _Entry] = {}
        offset = 0
        former_path, self._data_path = self._data_path, self._new_path()
        with atomic_write(self._data_path) as temporary, temporary.open("wb") as copy:
            if entries:
                with former_path.open("rb") as data:
                    for filename, entry in entries.items():
                        copy.write(self._read_samples(data, entry))
                        moved[filename] = replace(entry, offset=offset)
                        offset += entry.n_samples
        return moved

    def _read_samples(self, data: BinaryIO, entry: _Entry) -> bytes:
        data.seek(entry.offset * self._itemsize)
        return data.read(entry.n_samples * self._itemsize)

    def _new_path(self) -> Path:
        return self._folder / f"{self._name}.{uuid.uuid4().hex}.pcm"

    def _remove_data(self) -> None:
        """Remove the data files of the store's other builds, whole or begun."""
        name = self._name
        for path in chain(self._folder.glob(f"{name}.*.pcm"), self._folder.glob(f".{name}.*.pcm")):
            if path != self._data_path:
                with contextlib.suppress(PermissionError):  # Windows keeps what a process has open
                    path.unlink(missing_ok=True)


def _as_line(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values) + "\n").encode()


def _sources(
    metadata: pd.DataFrame, data_folder: Path, table_path: Path, report: Report
) -> list[_Source]:
    """Return the file of each row of the metadata; report names that lead out of the folder."""
    sources: dict[str, _Source] = {}
    path_of = containing(data_folder)
    for filename, line in zip(metadata["filename"], metadata["line"].tolist(), strict=True):
        if not filename or filename in sources:
            continue  # read_metadata reports both
        path = path_of(filename)
        if path is None:
            report.add(leads_out(table_path, line, filename))
            continue
        size = mtime_ns = 0
        with contextlib.suppress(OSError):  # decoding says why
            stat = path.stat()
            size, mtime_ns = stat.st_size, stat.st_mtime_ns
        sources[filename] = _Source(filename, line, path, size, mtime_ns)
    return list(sources.values())


def _is_current(source: _Source, stored: Mapping[str, _Entry]) -> bool:
    entry = stored.get(source.filename)
    if entry is None:
        return False
    return (source.size, source.mtime_ns) == (entry.source_size, entry.source_mtime_ns)


def _decode_all(
    sources: Sequence[_Source], work: _Work, table_path: Path, report: Report
) -> Iterator[tuple[_Source, _Decoded]]:
    """Yield, in their order, the recordings that can be used; report the others, and notes."""

    def outcome(source: _Source) -> _Decoded | UnreadableAudio:
        try:
            values, notes = work.load(source.filename, source.path)
        except UnreadableAudio as error:
            return error
        samples = work.contents.pack(values)
        digest = hashlib.sha256(samples.data).hexdigest()
        entry = _Entry(0, samples.size, source.size, source.mtime_ns, digest, notes)
        return _Decoded(entry, samples)

    # Threads: libsndfile, soxr and numpy work outside of Python's lock, and a waveform need not
    # be pickled. A few recordings ahead of the consumer and no more, to bound the memory.
    workers = work.workers or min(count_processors(), 16)
    bar = tqdm(total=len(sources), desc=work.doing, unit="clip", disable=work.doing is None)
    with ThreadPoolExecutor(workers) as pool, bar:
        submitted = ((source, pool.submit(outcome, source)) for source in sources)
        ahead = deque(islice(submitted, 4 * workers))
        while ahead:
            source, future = ahead.popleft()
            ahead.extend(islice(submitted, 1))
            decoded = future.result()
            bar.update()
            if isinstance(decoded, UnreadableAudio):
                wrong = "it" if table_path.is_dir() else "the row"  # a listed folder has no rows
                cure = f"put a good recording there, or remove {wrong}"
                what, filename = f"the recording {decoded}", source.filename
                report.add(Problem(str(table_path), source.line, what, cure, filename=filename))
                continue
            _report_notes(source, decoded.entry.notes, work.contents, table_path, report)
            yield source, decoded


def _report_notes(
    source: _Source, notes: Sequence[str], contents: Contents, table_path: Path, report: Report
) -> None:
    if notes:
        cure = f"used as converted; where there is a {contents.original}, use that"
        what, filename = "; ".join(notes), source.filename
        report.add(Problem(str(table_path), source.line, what, cure, "warning", filename))
