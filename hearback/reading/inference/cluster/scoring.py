"""Score the usable rows on a cluster, in shards of whole batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from hearback.engine.io import write_json
from hearback.engine.launch.pool import WorkerPool
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.batch_plan import group_by_window
from hearback.reading.inference.cluster.shards import (
    SHARD_ROWS,
    SHARDS_PER_WORKER,
    EnsemblePlan,
    Group,
    Shard,
    UsableRows,
    group_batches,
)
from hearback.reading.inference.cluster.sums import EnsembleSums
from hearback.reading.inference.progress import SHARE
from hearback.reading.words import count_positions

TEXTS = "texts.json"  # in the folder of the stores


@dataclass(frozen=True)
class ShardScoring:
    """Scores `usable` rows with all folds of an ensemble.

    Attributes:
        pool: the workers.
        config: the ensemble.
        usable: the rows.
        plan: the ensemble's folds.
        folder: for the sums.
        shared: a folder that the workers share.
    """

    pool: WorkerPool
    config: EnsembleConfig
    usable: UsableRows
    plan: EnsemblePlan
    folder: Path
    shared: Path

    def run(self) -> EnsembleSums:
        """Return the sums of the scores of all folds."""
        n_rows = len(self.usable.stored)
        sums = EnsembleSums(self.config, self.usable.texts, self._n_positions, self.folder)
        models = [model.name for model in self.config.models_to_run for _ in model.folds]
        texts = self._write_texts()
        started: set[str] = set()
        has_evidence = False
        with tqdm(total=n_rows * len(models), desc="ensemble", bar_format=SHARE) as bar:
            for number in range(len(self.plan.formats)):
                # Formats one after another, as in one process: sums are in the same order.
                left = self.plan.formats[number].folds if n_rows else ()
                while left:
                    n_folds, description = self.pool.call("fit", left)
                    folds, left = left[:n_folds], left[n_folds:]
                    bar.write(description)
                    group = Group(folds, frozenset(started), not has_evidence, texts)
                    for shard, scores in self.pool.map("score", self._shards(number, group)):
                        sums.add(shard.rows, scores)
                        has_evidence = has_evidence or scores.evidence is not None
                        bar.update(len(shard.rows) * len(folds))
                    started.update(models[fold] for fold in folds)
        return sums

    @property
    def _n_positions(self) -> int:
        """The number of word positions."""
        return count_positions(self.usable.texts)

    def _write_texts(self) -> str | None:
        """Write all texts for models that compare vectors of them; return the file, or None."""
        if not self.plan.embeds_texts:
            return None
        path = self.shared.absolute() / TEXTS
        write_json(path, list(dict.fromkeys(self.usable.texts)))
        return str(path)

    def _shards(self, number: int, group: Group) -> Iterator[Shard]:
        """Yield the batches that one process would run, some at a time, longest windows first."""
        texts, input_format = self.usable.texts, self.plan.formats[number]
        calibrations = [self.config.words, *(each.words for each in self.config.fallbacks)]
        with_words = any(calibration is not None for calibration in calibrations)
        batches = group_by_window(
            self.usable.windows[number],
            texts,
            input_format.batch_seconds,
            has_reference_windows=input_format.has_reference_windows,
        )
        n_rows = min(SHARD_ROWS, len(texts) // (SHARDS_PER_WORKER * self.pool.n_workers))
        n_positions = self._n_positions
        for rows, members in group_batches(batches, max(1, n_rows)):
            stored = self.usable.stored.take(rows)
            yield Shard(group, rows, stored, members, n_positions, with_words)
