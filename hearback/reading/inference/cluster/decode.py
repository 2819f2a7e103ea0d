"""Decode a chunk of the test table, and find the window that each row needs."""

from collections.abc import Sequence

import numpy as np

from hearback.engine.audio.store_builder import build_store
from hearback.engine.data.filenames import find_files
from hearback.engine.data.problems import Report
from hearback.reading.inference.batch_plan import find_windows
from hearback.reading.inference.cluster.shards import Chunk, Decoded
from hearback.reading.inference.outputs import InferenceOptions
from hearback.reading.pairs import PairSource
from hearback.reading.recipe import Recipe
from hearback.reading.references import References
from hearback.reading.tables import metadata_path
from hearback.reading.window_coverage import Coverage, report_uncovered

STORES = "shards"  # folder in that of the stores, with a store for each chunk of the table


def decode_chunk(
    chunk: Chunk,
    options: InferenceOptions,
    *,
    recipes: Sequence[Recipe],
    coverages: Sequence[Coverage],
    references: References | None,
    longest: int,
    n_threads: int,
) -> Decoded | None:
    """Decode a chunk; None if files are missing, or spelled otherwise, and `found` is not given.

    Which file such a name stands for depends on the other rows of the table.

    Args:
        chunk: the rows.
        options: those of infer.py.
        recipes: one for each input format.
        coverages: the models' windows.
        references: reference speech of all texts; None if no model hears it.
        longest: number of samples at which recordings of over 16 s are cut.
        n_threads: threads that decode.
    """
    metadata, found = chunk.metadata, chunk.found
    if found is None:
        names = [name for name in metadata["filename"] if name]
        found = find_files(options.data, names, max_suggestions=0)
        if found[1] or not all(file.exists for file in found[0].values() if file.path):
            return None
    report, table = Report(), metadata_path(options.data, "test")
    store = build_store(
        *(metadata, options.data, table, options.store / STORES, f"test-{chunk.number:06}"),
        report=report,
        progress=False,
        workers=n_threads,
        found=found,
    )
    built = report.problems
    faulty = chunk.faulty | {problem.row for problem in report.errors}
    rows = np.flatnonzero(~metadata["line"].isin(faulty).to_numpy())
    usable = metadata.iloc[rows]
    source = PairSource(usable, references, store).with_longest(longest)
    left_out = report_uncovered(source, usable, str(table), coverages, report, is_scoring=True)
    covered = np.setdiff1d(np.arange(len(source)), np.array(left_out, dtype=np.int64))
    entries = [store.entries[source.filenames[row]] for row in covered]
    unsafe = {name for name, file in found[0].items() if file.path is None}
    before, after = set(built), set(report.problems)
    kept = [problem for problem in built if problem in after]
    return Decoded(
        rows[covered],
        str(store.data_path),
        np.array([entry.offset for entry in entries], dtype=np.int64),
        np.array([entry.n_samples for entry in entries], dtype=np.int64),
        np.array([find_windows(source, covered, recipe) for recipe in recipes], dtype=np.int32),
        [problem for problem in kept if problem.filename in unsafe],
        [problem for problem in kept if problem.filename not in unsafe],
        [problem for problem in report.problems if problem not in before],
    )
