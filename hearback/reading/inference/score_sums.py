"""Sum the scores of the folds into those of the ensemble."""

from collections.abc import Iterable, Sequence

import numpy as np

from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.folds import EnsembleFold
from hearback.reading.inference.predict import Predictions
from hearback.reading.words import count_letters


class ScoreSums:
    """Sums over each model's folds of clip probabilities and word log-odds.

    A fold's scores are added only when it has scored all clips.
    """

    def __init__(self, config: EnsembleConfig, texts: Sequence[str], n_positions: int) -> None:
        """Prepare for the folds of `config` and the values of `score_with_words(n_positions)`.

        `texts` are those of all rows.
        """
        self._config, self._texts = config, texts
        n_rows = len(texts)
        self._shape = (n_rows, n_positions, 2)
        self._running: dict[EnsembleFold, np.ndarray] = {}
        self._folds: dict[str, list[int]] = {model.name: [] for model in config.models_to_run}
        self._clips = {name: np.zeros(n_rows) for name in self._folds}
        self._words: dict[str, np.ndarray] = {}
        calibrations = [config.words, *(fallback.words for fallback in config.fallbacks)]
        self._scores_words = any(calibration is not None for calibration in calibrations)
        # The fold that was dropped last, and its scores, (rows,); NaN for clips without a score.
        self._dropped: tuple[EnsembleFold, np.ndarray] | None = None

    def add(self, fold: EnsembleFold, indices: list[int], values: np.ndarray) -> None:
        """Add the scores of some clips, (clips, 1) or with words (clips, 1 + 2 n_positions)."""
        if not self._scores_words:
            values = values[:, :1]
        if fold not in self._running:
            self._running[fold] = np.full((self._shape[0], values.shape[1]), np.nan)
        self._running[fold][indices] = values

    def drop(self, folds: Iterable[EnsembleFold]) -> None:
        """Discard the scores of folds that stop before they are finished."""
        for fold in folds:
            self._dropped = fold, self._running.pop(fold)[:, 0]

    def finish(self, folds: Iterable[EnsembleFold]) -> None:
        """Add the scores of folds that have scored all clips."""
        for fold in folds:
            model = fold.files.model
            self._folds[model].append(fold.files.fold)
            if (scores := self._running.pop(fold, None)) is None:  # there are no clips
                continue
            self._clips[model] += scores[:, 0]
            if scores.shape[1] > 1:
                self._words[model] = self._words.get(model, 0.0) + scores[:, 1:]

    def combine(self, grades: np.ndarray) -> tuple[EnsembleConfig, Predictions] | None:
        """Return the ensemble of all finished folds and its predictions; None if there is none.

        `grades` are those of the metadata, (rows,).
        """
        config = self._config.restrict_to(self._folds)
        if config is None:
            return None
        means = [self._clips[model.name] / len(model.folds) for model in config.models_to_run]
        words = self._combine_words(config)
        return config, Predictions(config.predict(np.array(means), grades, words), words)

    def _combine_words(self, config: EnsembleConfig) -> np.ndarray | None:
        """Return the weighted mean of the models' log-odds of words, (rows, n_positions, 2)."""
        if config.words is None:
            return None
        if not self._shape[0]:  # no clip could be scored
            return np.empty(self._shape)
        means = {
            model.name: (self._words[model.name] / len(model.folds)).reshape(self._shape)
            for model in config.models_to_run
            if model.name in self._words
        }
        if not means.keys() & config.words.weight_of.keys():
            return None
        return config.words.mean(means, count_letters(self._texts, self._shape[1]))

    def combine_unfinished(self, grades: np.ndarray) -> np.ndarray:
        """Return the probabilities, (rows,), from the fold that was dropped last.

        NaN for the clips that it had not scored.
        """
        clips = np.full(len(grades), np.nan)
        if self._dropped is None:
            return clips
        fold, scores = self._dropped
        config = self._config.restrict_to({fold.files.model: [fold.files.fold]})
        if config is not None:
            is_scored = ~np.isnan(scores)
            clips[is_scored] = config.predict(scores[None, is_scored], grades[is_scored])
        return clips
