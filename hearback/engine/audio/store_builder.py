"""Build a store from a metadata table: decode new and changed recordings, report every problem."""

import contextlib
import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from hearback.engine.audio.decode import UnreadableAudioError, decode
from hearback.engine.audio.notes import NotesProblem, UnreadableProblem
from hearback.engine.audio.store import BadStoreError, FileStore
from hearback.engine.audio.store_format import SPEECH, StoreEntry, StoreFormat
from hearback.engine.audio.store_writer import StoreWriter
from hearback.engine.data.filenames import FoundFile, are_there, find_files
from hearback.engine.data.paths import leads_out
from hearback.engine.data.problems import Report
from hearback.engine.data.table_rows import FORMULA_CURE, is_formula
from hearback.engine.data.tables import respelled
from hearback.engine.locks import ReadOnlyFolderError, write_lock
from hearback.engine.machine import count_processors

# A recording's filename and path -> its array, and notes. Raises UnreadableAudioError.
Load = Callable[[str, Path], tuple[np.ndarray, tuple[str, ...]]]
# The result of `find_files`.
Found = tuple[Mapping[str, FoundFile], Mapping[str, str]]


def load_speech(_filename: str, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a recording's waveform, (n,) float32 at 16 kHz, and notes on its conversion."""
    recording = decode(path)
    return recording.waveform, recording.notes


def build_store(
    metadata: pd.DataFrame,
    data_folder: Path,
    table_path: Path,
    store_folder: Path,
    name: str,
    *,
    report: Report,
    progress: bool = True,
    workers: int | None = None,
    store_format: StoreFormat = SPEECH,
    load: Load = load_speech,
    description: str = "decoding",
    follow_links: bool = False,
    found: Found | None = None,
    verify: bool = False,
) -> FileStore:
    """Bring the store up to date with a metadata table, and open it.

    `metadata` comes from the competition's `read_metadata(table_path, ...)`, or has its columns
    `filename` and `line`; the recordings are in `data_folder`. A recording is decoded if it is new
    or its file's size or modification time changed, and dropped if the table no longer lists it.
    Recordings that a killed build has decoded are not decoded again. All problems go into `report`,
    also those of recordings decoded earlier; a recording with an error is not in the store. Memory
    holds a few recordings at a time. `workers` is the number of threads, by default one for each
    processor.

    For other arrays than 16 kHz speech, pass their `store_format`, the function that computes them
    (`load`, called in those threads) and the progress bar's `description`. With `follow_links`,
    recordings may be links to outside of `data_folder`. `found` are the recordings' files, if they
    are known. With `verify`, the store's samples are compared with their digests (about 1 GB a
    second), and those that are damaged are decoded again.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"a store's name is letters, digits, '_' and '-', not {name!r}")
    sources = _find_sources(
        *(metadata, data_folder, table_path, report),
        is_audio=store_format.is_audio,
        follow_links=follow_links,
        found=found,
    )
    build = _Build(sources, store_folder, name, store_format, load, table_path, report, verify)
    complete = build.complete_store()
    if complete is not None:
        return complete
    cure = (
        f"its store of {name} is not complete, or of files of another size or time: choose a "
        "writable folder with --store"
    )
    try:
        # A second process that builds the same store waits here, and then finds it up to date.
        with write_lock(store_folder / f".{name}.lock", cure):
            return build.update(description if progress else None, workers)
    except ReadOnlyFolderError:
        unwritten = build.store_without_unreadable()
        if unwritten is None:
            raise
        return unwritten


@dataclass(frozen=True)
class _Source:
    """A recording's file, as listed in the metadata."""

    filename: str
    line: int
    path: Path
    size: int  # bytes; 0 if the file is missing
    mtime_ns: int
    nearest: tuple[str, ...] = ()  # names that look like a missing one


@dataclass(frozen=True)
class _Decoded:
    """A recording as stored; its entry has no offset yet."""

    entry: StoreEntry
    samples: np.ndarray  # in the data file's type


@dataclass(frozen=True)
class _Decoder:
    """How to decode the recordings that are missing from a store."""

    store_format: StoreFormat
    load: Load
    description: str | None  # of the progress bar; None: no bar
    workers: int | None  # threads

    def decode_all(
        self, sources: Sequence[_Source], table_path: Path, report: Report
    ) -> Iterator[tuple[_Source, _Decoded]]:
        """Yield the usable recordings in order; report errors and notes."""
        # Threads: libsndfile, soxr and numpy release Python's lock, and waveforms need no pickling.
        # Only a few recordings ahead of the consumer, to bound the memory.
        workers = self.workers or min(count_processors(), 16)
        hidden = self.description is None
        bar = tqdm(total=len(sources), desc=self.description, unit="clip", disable=hidden)
        with ThreadPoolExecutor(workers) as pool, bar:
            submitted = ((source, pool.submit(self._decode, source)) for source in sources)
            ahead = deque(islice(submitted, 4 * workers))
            while ahead:
                source, future = ahead.popleft()
                ahead.extend(islice(submitted, 1))
                decoded = future.result()
                bar.update()
                if isinstance(decoded, UnreadableAudioError):
                    _report_error(source, decoded, table_path, report)
                    continue
                _report_notes(source, decoded.entry, self.store_format, table_path, report)
                yield source, decoded

    def _decode(self, source: _Source) -> _Decoded | UnreadableAudioError:
        try:
            values, notes = self.load(source.filename, source.path)
        except UnreadableAudioError as error:
            return error
        samples = self.store_format.pack(values)
        digest = hashlib.sha256(samples.data).hexdigest()
        where = {"source_size": source.size, "source_mtime_ns": source.mtime_ns}
        entry = StoreEntry.of(samples, digest, notes, **where)
        return _Decoded(entry, samples)


@dataclass(frozen=True)
class _Build:
    """A store to open or to bring up to date with its sources."""

    sources: Sequence[_Source]
    folder: Path
    name: str
    store_format: StoreFormat
    load: Load
    table_path: Path
    report: Report
    verify: bool = False  # whether to compare stored samples with their digests

    def complete_store(self) -> FileStore | None:
        """Open a store that has all recordings and no others; None if it must be written to."""
        if (self.folder / f".{self.name}.journal").exists():  # of a build that was killed
            return None
        store = self._open()
        if store is None or len(store) != len(self.sources):
            return None
        if self._missing(self._intact(store, store.entries)):
            return None
        self._report_stored(store.entries)
        return store

    def update(self, description: str | None, workers: int | None) -> FileStore:
        """Decode what is missing, drop what is not listed, and open the store."""
        previous = self._open()
        writer = StoreWriter(self.folder, self.name, self.store_format, previous)
        intact = self._intact(previous, writer.entries)
        self._report_stored(intact)
        missing = self._missing(intact)
        current = {source.filename for source in self.sources} - {each.filename for each in missing}
        with contextlib.closing(writer):
            decoder = _Decoder(
                self.store_format, self.load, description if missing else None, workers
            )
            # A recording with an error is tried again each time.
            for source, decoded in decoder.decode_all(missing, self.table_path, self.report):
                writer.add(source.filename, decoded.samples, decoded.entry)
                current.add(source.filename)
            if not writer.finish(current) and previous is not None:
                return previous
        return FileStore(self.folder, self.name, self.store_format)

    def store_without_unreadable(self) -> FileStore | None:
        """Open a store that lacks only recordings with errors, which are reported.

        None if it must be written to.
        """
        store = self._open()
        if store is None or not store.entries.keys() <= {each.filename for each in self.sources}:
            return None
        missing = self._missing(self._intact(store, store.entries))
        if any(source.filename in store for source in missing):  # it has their older versions
            return None
        errors = []
        for source in missing:
            try:
                self.load(source.filename, source.path)
            except UnreadableAudioError as error:
                errors.append((source, error))
            else:
                return None
        self._report_stored(store.entries)
        for source, unreadable in errors:
            _report_error(source, unreadable, self.table_path, self.report)
        return store

    def _open(self) -> FileStore | None:
        """Open the store; None if it is missing or bad: it is built from the recordings."""
        try:
            return FileStore(self.folder, self.name, self.store_format)
        except BadStoreError:
            return None

    def _intact(
        self, store: FileStore | None, entries: Mapping[str, StoreEntry]
    ) -> Mapping[str, StoreEntry]:
        """Return those of `entries` whose samples in the store are not damaged."""
        if store is None or not self.verify:
            return entries
        damaged = {name for name in store.damaged() if entries.get(name) == store.entries[name]}
        return {name: entry for name, entry in entries.items() if name not in damaged}

    def _missing(self, stored: Mapping[str, StoreEntry]) -> list[_Source]:
        return [source for source in self.sources if not _is_current(source, stored)]

    def _report_stored(self, stored: Mapping[str, StoreEntry]) -> None:
        """Report the notes of recordings that are not decoded again."""
        for source in self.sources:
            if _is_current(source, stored):
                _report_notes(
                    source, stored[source.filename], self.store_format, self.table_path, self.report
                )


def _find_sources(
    metadata: pd.DataFrame,
    folder: Path,
    table_path: Path,
    report: Report,
    *,
    is_audio: bool,
    follow_links: bool,
    found: Found | None,
) -> list[_Source]:
    """Return the file of each metadata row, also of one that is spelled otherwise.

    Reports those, and names that lead out of the folder.
    """
    lines: dict[str, int] = {}
    for filename, line in zip(metadata["filename"], metadata["line"].tolist(), strict=True):
        if filename:  # read_metadata reports empty and duplicated ones
            lines.setdefault(filename, line)
    files, match_of = found or find_files(folder, lines, follow_links=follow_links)
    # Arrays that are computed from another store's have its filenames, and it has reported them.
    if match_of and is_audio:
        report.add(respelled(table_path, match_of, "than on disk"))
    sources = []
    for filename, file in files.items():
        if file.path is None:
            report.add(leads_out(table_path, lines[filename], filename, folder))
            continue
        sources.append(
            _Source(filename, lines[filename], file.path, file.size, file.mtime_ns, file.nearest)
        )
    return sources


def _is_current(source: _Source, stored: Mapping[str, StoreEntry]) -> bool:
    entry = stored.get(source.filename)
    if entry is None:
        return False
    return (source.size, source.mtime_ns) == (entry.source_size, entry.source_mtime_ns)


def _report_error(
    source: _Source, error: UnreadableAudioError, table_path: Path, report: Report
) -> None:
    line = _line(source, table_path)
    wrong = "it" if line is None else "the row"
    cure = f"{error.cure or 'put a good recording there'}, or remove {wrong}"
    if re.fullmatch(r"\d[.,]\d+E\+\d+", source.filename, re.I):
        cure = f"a spreadsheet took this name for a number: write the name as a text; {cure}"
    if is_formula(source.filename):
        cure = f"the name is a formula of a spreadsheet: {FORMULA_CURE}"
    if source.nearest:
        cure = f"{are_there(source.nearest)}: write the name that is meant; or {cure}"
    what, kind, name = f"{error.subject} {error}", error.kind, source.filename
    where = (str(table_path), line)
    report.add(UnreadableProblem(*where, what, cure, "error", name, kind, error.seconds))


def _report_notes(
    source: _Source,
    entry: StoreEntry,
    store_format: StoreFormat,
    table_path: Path,
    report: Report,
) -> None:
    if entry.notes:
        notes = list(zip(entry.notes, entry.kinds, strict=True))
        line, wanted = _line(source, table_path), store_format.original
        report.add(NotesProblem.of(str(table_path), line, source.filename, notes, wanted))


def _line(source: _Source, table_path: Path) -> int | None:
    """Return the line of a recording in its table; None in the list of a folder or file."""
    return None if table_path.is_dir() else source.line
