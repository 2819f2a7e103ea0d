"""Sums of the folds' scores in files: they may be larger than the memory. Without torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.cluster.shards import CHUNK_ROWS, N_EVIDENCE, ShardScores, slices
from hearback.reading.words import count_letters


class EnsembleSums:
    """Sums over each model's folds, as `score_sums.ScoreSums`, and what a token scorer hears.

    Args:
        config: the ensemble; all of its folds run.
        texts: of the usable rows.
        n_positions: of words.
        folder: for the files.
    """

    def __init__(
        self, config: EnsembleConfig, texts: Sequence[str], n_positions: int, folder: Path
    ) -> None:
        self._texts, self._n_rows = texts, len(texts)
        self._n_positions, self._folder = n_positions, folder
        self.config = config.restrict_to({m.name: m.folds for m in config.models_to_run})
        assert self.config is not None  # all folds are there
        self._clips = {
            model.name: self._array(f"clips{number}", 1)
            for number, model in enumerate(config.models_to_run)
        }
        self._words: dict[str, np.ndarray] = {}
        self.evidence = self._array("evidence", N_EVIDENCE)
        self.evidence[:] = np.nan

    def _array(self, name: str, width: int) -> np.ndarray:
        """Return zeros, (rows, width) float64, in a file: pages of it are not the process's own."""
        shape = (self._n_rows, width)
        if not self._n_rows:
            return np.zeros(shape)
        return np.memmap(self._folder / name, np.float64, "w+", shape=shape)

    def add(self, rows: np.ndarray, scores: ShardScores) -> None:
        """Add the scores of some rows."""
        for model, values in scores.parts:
            self._clips[model][rows, 0] += values[:, 0]
            if values.shape[1] > 1:
                if model not in self._words:
                    name = f"words{len(self._words)}"
                    self._words[model] = self._array(name, 2 * self._n_positions)
                self._words[model][rows] += values[:, 1:]
        if scores.evidence is not None:
            self.evidence[rows] = scores.evidence

    def predict(self, grades: np.ndarray) -> np.ndarray:
        """Return the ensemble's probabilities, (rows,), of rows with these grades, (rows,)."""
        assert self.config is not None
        said = None
        if self.config.words_weight:
            parts = [np.empty(0)]
            for rows in slices(self._n_rows, CHUNK_ROWS):
                log_odds = self.mean_words(np.arange(rows.start, rows.stop))
                assert log_odds is not None
                parts.append(self.config.all_words_said(log_odds))
            said = np.concatenate(parts)
        # Unnamed here, so that they are released when they have been used.
        return self.config.predict(self._means(), grades, all_said=said)

    def _means(self) -> np.ndarray:
        """Return the mean scores of the models' folds, (models, rows)."""
        assert self.config is not None
        models = self.config.models_to_run
        means = np.empty((len(models), self._n_rows))
        for own, model in zip(means, models, strict=True):
            np.divide(self._clips[model.name][:, 0], len(model.folds), out=own)
        return means

    def mean_words(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the weighted mean log-odds of words, (rows, positions, 2); None without any."""
        assert self.config is not None
        if self.config.words is None:
            return None
        if not self._n_rows:
            return np.empty((0, self._n_positions, 2))
        shape = (len(rows), self._n_positions, 2)
        means = {
            model.name: (self._words[model.name][rows] / len(model.folds)).reshape(shape)
            for model in self.config.models_to_run
            if model.name in self._words
        }
        if not means.keys() & self.config.words.weight_of.keys():
            return None
        texts = [self._texts[row] for row in rows]
        return self.config.words.mean(means, count_letters(texts, self._n_positions))
