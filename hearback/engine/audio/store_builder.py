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
from filelock import FileLock
from tqdm import tqdm

from hearback.engine.audio.decode import UnreadableAudioError, decode
from hearback.engine.audio.store import BadStoreError, Store
from hearback.engine.audio.store_format import SPEECH, StoreEntry, StoreFormat
from hearback.engine.audio.store_writer import StoreWriter
from hearback.engine.data.paths import containing, leads_out
from hearback.engine.data.problems import Problem, Report
from hearback.engine.devices import count_processors

# A recording's filename and path -> its array, and notes. Raises UnreadableAudioError.
Load = Callable[[str, Path], tuple[np.ndarray, tuple[str, ...]]]


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
) -> Store:
    """Bring the store up to date with a metadata table, and open it.

    `metadata` comes from the competition's `read_metadata(table_path, ...)`, or has its columns
    `filename` and `line`; the recordings are in `data_folder`. A recording is decoded if it is new
    or its file's size or modification time changed, and dropped if the table no longer lists it.
    Recordings that a killed build has decoded are not decoded again. All problems go into `report`,
    also those of recordings decoded earlier; a recording with an error is not in the store. Memory
    holds a few recordings at a time. `workers` is the number of threads, by default one for each
    processor.

    For other arrays than 16 kHz speech, pass their `store_format`, the function that computes them
    (`load`, called in those threads) and the progress bar's `description`.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"a store's name is letters, digits, '_' and '-', not {name!r}")
    sources = _find_sources(metadata, data_folder, table_path, report)
    store_folder.mkdir(parents=True, exist_ok=True)
    # A second process that builds the same store waits here, and then finds it up to date.
    with FileLock(store_folder / f".{name}.lock"):
        previous: Store | None = None
        with contextlib.suppress(BadStoreError):  # it can be built again from the recordings
            previous = Store(store_folder, name, store_format)
        writer = StoreWriter(store_folder, name, store_format, previous)
        current = {source.filename for source in sources if _is_current(source, writer.entries)}
        for source in sources:
            if source.filename in current:
                notes = writer.entries[source.filename].notes
                _report_notes(source, notes, store_format, table_path, report)
        missing = [source for source in sources if source.filename not in current]
        with contextlib.closing(writer):
            decoder = _Decoder(
                store_format, load, description if progress and missing else None, workers
            )
            # A recording with an error is tried again each time.
            for source, decoded in decoder.decode_all(missing, table_path, report):
                writer.add(source.filename, decoded.samples, decoded.entry)
                current.add(source.filename)
            if not writer.finish(current) and previous is not None:
                return previous
        return Store(store_folder, name, store_format)


@dataclass(frozen=True)
class _Source:
    """A recording's file, as listed in the metadata."""

    filename: str
    line: int
    path: Path
    size: int  # bytes; 0 if the file is missing
    mtime_ns: int


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
                notes = decoded.entry.notes
                _report_notes(source, notes, self.store_format, table_path, report)
                yield source, decoded

    def _decode(self, source: _Source) -> _Decoded | UnreadableAudioError:
        try:
            values, notes = self.load(source.filename, source.path)
        except UnreadableAudioError as error:
            return error
        samples = self.store_format.pack(values)
        digest = hashlib.sha256(samples.data).hexdigest()
        entry = StoreEntry(0, samples.size, source.size, source.mtime_ns, digest, notes)
        return _Decoded(entry, samples)


def _find_sources(
    metadata: pd.DataFrame, data_folder: Path, table_path: Path, report: Report
) -> list[_Source]:
    """Return the file of each metadata row; report names that lead out of the folder."""
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
        with contextlib.suppress(OSError):  # decoding reports the reason
            stat = path.stat()
            size, mtime_ns = stat.st_size, stat.st_mtime_ns
        sources[filename] = _Source(filename, line, path, size, mtime_ns)
    return list(sources.values())


def _is_current(source: _Source, stored: Mapping[str, StoreEntry]) -> bool:
    entry = stored.get(source.filename)
    if entry is None:
        return False
    return (source.size, source.mtime_ns) == (entry.source_size, entry.source_mtime_ns)


def _report_error(
    source: _Source, error: UnreadableAudioError, table_path: Path, report: Report
) -> None:
    wrong = "it" if table_path.is_dir() else "the row"  # a listed folder has no rows
    cure = f"put a good recording there, or remove {wrong}"
    what, filename = f"the recording {error}", source.filename
    report.add(Problem(str(table_path), source.line, what, cure, filename=filename))


def _report_notes(
    source: _Source,
    notes: Sequence[str],
    store_format: StoreFormat,
    table_path: Path,
    report: Report,
) -> None:
    if notes:
        cure = f"used as converted; where there is a {store_format.original}, use that"
        what, filename = "; ".join(notes), source.filename
        report.add(Problem(str(table_path), source.line, what, cure, "warning", filename))
