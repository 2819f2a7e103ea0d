"""Decode the test table's recordings on a cluster, and find the rows that can be scored."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from hearback.engine.data.filenames import find_files
from hearback.engine.data.problems import Report
from hearback.engine.data.tables import respelled
from hearback.engine.launch.pool import WorkerPool
from hearback.reading.inference.cluster.shards import (
    CHUNK_ROWS,
    Chunk,
    Decoded,
    EnsemblePlan,
    StoredRows,
    UsableRows,
    slices,
)
from hearback.reading.inference.outputs import InferenceOptions, report_unrendered
from hearback.reading.tables import metadata_path


def decode_rows(
    pool: WorkerPool,
    options: InferenceOptions,
    metadata: pd.DataFrame,
    plan: EnsemblePlan,
    report: Report,
) -> UsableRows:
    """Decode all recordings, and render missing references.

    Problems go into `report`, in the order of one process.
    """
    table = metadata_path(options.data, "test")
    failures: Mapping[str, str] = {}
    if plan.hears_reference:
        texts = metadata["expected_text"][metadata["expected_text"] != ""]
        failures = pool.call("render", list(dict.fromkeys(texts)))
    faulty = {problem.row for problem in report.errors if problem.file == str(table)}
    faulty |= set(metadata["line"][metadata["expected_text"].isin(failures)].tolist())
    # A recording that is listed twice is decoded once; its second row has been reported.
    rows = metadata[~metadata["filename"].duplicated()]
    parts = _decode_chunks(pool, options, rows, frozenset(faulty), report)
    report.extend(problem for part in parts for problem in part.unsafe)
    report.extend(problem for part in parts for problem in part.decoding)
    report_unrendered(metadata, failures, table, report)
    for part in parts:
        report.extend(part.uncovered)
    return _join(rows, parts, len(plan.formats))


def _decode_chunks(
    pool: WorkerPool,
    options: InferenceOptions,
    rows: pd.DataFrame,
    faulty: frozenset[int | None],
    report: Report,
) -> list[Decoded]:
    """Return the decoded chunks in order."""

    def chunks() -> Iterator[Chunk]:
        for number, part in enumerate(slices(len(rows), CHUNK_ROWS)):
            own = rows.iloc[part]
            yield Chunk(number, own, faulty.intersection(own["line"].tolist()))

    decoded: dict[int, Decoded] = {}
    incomplete: list[Chunk] = []
    with tqdm(total=len(rows), desc="decoding", unit="clip") as bar:

        def collect(chunks: Iterable[Chunk]) -> None:
            for chunk, result in pool.map("decode", chunks):
                if result is None:
                    incomplete.append(chunk)
                else:
                    decoded[chunk.number] = result
                    bar.update(len(chunk.metadata))

        collect(chunks())
        if incomplete:
            collect(_with_files(options, rows, incomplete, report))
    return [decoded[number] for number in sorted(decoded)]


def _with_files(
    options: InferenceOptions, rows: pd.DataFrame, chunks: Sequence[Chunk], report: Report
) -> list[Chunk]:
    """Return chunks with their recordings' files, which are looked for among all rows."""
    names = [name for name in rows["filename"] if name]
    files, match_of = find_files(options.data, names)
    if match_of:
        table = metadata_path(options.data, "test")
        report.add(respelled(table, match_of, "than on disk"))
    return [
        Chunk(
            chunk.number,
            chunk.metadata,
            chunk.faulty,
            ({name: files[name] for name in chunk.metadata["filename"] if name}, {}),
        )
        for chunk in chunks
    ]


def _join(rows: pd.DataFrame, parts: list[Decoded], n_formats: int) -> UsableRows:
    """Return the usable rows of all chunks, which start every `CHUNK_ROWS` rows."""
    kept = [number * CHUNK_ROWS + part.rows for number, part in enumerate(parts)]
    empty = np.empty(0, dtype=np.int64)
    usable = np.concatenate([empty, *kept])
    metadata = rows if len(usable) == len(rows) else rows.iloc[usable]
    stored = StoredRows(
        metadata.reset_index(drop=True),
        [part.path for part in parts],
        np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts]),
        np.concatenate([empty, *(part.offsets for part in parts)]),
        np.concatenate([empty, *(part.n_samples for part in parts)]),
    )
    none = np.empty((n_formats, 0), dtype=np.int32)
    return UsableRows(stored, np.concatenate([none, *(part.windows for part in parts)], axis=1))
