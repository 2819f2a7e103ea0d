"""A scorer's ensemble, loaded once and run on any number of clips."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from hearback.engine.errors import HearbackError
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.ensemble_run import plan_formats, total_cost
from hearback.reading.inference.folds import EnsembleFold, longest_window, read_folds
from hearback.reading.inference.memory import memory_for_models
from hearback.reading.inference.model_group import ModelGroup, load_model_groups
from hearback.reading.inference.predict import Predictions, score_with_words
from hearback.reading.inference.progress import Progress
from hearback.reading.inference.score_sums import ScoreSums
from hearback.reading.models.load import load_scorer
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.pairings import HEARS_30_S, WITHOUT_REFERENCE
from hearback.reading.pairs import PairSource
from hearback.reading.passages.length import most_words_corrected
from hearback.reading.passages.rows import Passages, split_rows, whole_rows
from hearback.reading.pretrained.folders import CONFIG
from hearback.reading.scoring.decoder_evidence import DecoderEvidence, EvidenceCollector
from hearback.reading.scoring.statistics import Statistics, read_training_statistics
from hearback.reading.tables import GRADES
from hearback.reading.words import count_positions


@dataclass
class LoadedEnsemble:
    """The folds of a scorer, kept in memory from the first clip on.

    Where they don't fit in half of the free memory, they are loaded again for each call.

    Attributes:
        config: the ensemble.
        folds: its folds.
        device: where it runs.
        dtype: of the matrix products.
        training_statistics: of the recordings that it learned from; None if unknown.
    """

    config: EnsembleConfig
    folds: Sequence[EnsembleFold]
    device: torch.device
    dtype: torch.dtype
    training_statistics: Statistics | None = None

    @classmethod
    def read(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> "LoadedEnsemble":
        """Read a scorer's folder, without the weights.

        Raises HearbackError if it has models that need reference speech, or none with a weight.
        """
        path = folder / CONFIG
        config = EnsembleConfig.load(path)
        if not config.models_to_run:
            raise HearbackError(f"{path}: no model has a weight, so there is nothing to score with")
        folds = read_folds(config, folder)
        with_references = {
            fold.files.model for fold in folds if fold.recipe.pair not in WITHOUT_REFERENCE
        }
        if with_references:
            # The ensemble's own fallback, fitted without them.
            config = _without(config, with_references, path)
            folds = read_folds(config, folder)
        return cls(config, folds, device, dtype, read_training_statistics(folder, folds))

    @property
    def uses_context(self) -> bool:
        """Whether it needs the grade and the task of each recording."""
        return any(fold.recipe.uses_context for fold in self.folds)

    @property
    def speed_by_grade(self) -> tuple[float, ...]:
        """The speed by grade at which the first token scorer hears recordings."""
        recipes = [fold.recipe for fold in self.folds if fold.recipe.pair == "tokens"]
        return recipes[0].speed_by_grade if recipes else (1.0,) * len(GRADES)

    @property
    def can_split(self) -> bool:
        """Whether it scores recordings of minutes: a token scorer finds where to split them."""
        pairs = {fold.recipe.pair for fold in self.folds}
        return "tokens" in pairs and pairs <= set(HEARS_30_S)

    def with_windows(self, source: PairSource) -> PairSource:
        """Return the source with the longest windows that all of the models hear."""
        return source.with_longest(longest_window(self.folds))

    def predict(
        self, source: PairSource, grades: np.ndarray, *, progress: str | None = None
    ) -> tuple[Predictions, dict[int, DecoderEvidence]]:
        """Return the scores of all clips of `source`, and the evidence of its first token scorer.

        `grades`, (rows,) str, are "" if unknown. There is no evidence without a token scorer.
        """
        rows = np.arange(len(source))
        n_positions = count_positions(source.texts)
        collector = EvidenceCollector(score_with_words(n_positions), with_times=True)
        sums = ScoreSums(self.config, source.texts, n_positions)
        plans = plan_formats(self.folds, source, self.device)
        with Progress(len(rows) * len(self.folds), total_cost(self.folds, plans), progress) as bar:
            for group, folds in self._groups():
                plan = plans[folds[0].input_format]
                for batch in group.run(source, rows, plan, collector):
                    for number, values in batch.values.items():
                        sums.add(folds[number], batch.indices, values)
                    bar.advance(len(batch.indices) * len(batch.values), batch.cost)
                sums.finish(folds)
        combined = sums.combine(grades)
        assert combined is not None  # all folds are finished
        return combined[1], collector.evidence

    def split(self, source: PairSource) -> Passages:
        """Return the rows of `source` in windows that the models hear whole.

        No row is split unless `can_split`.
        """
        if not self.can_split:
            return whole_rows(self.with_windows(source))
        return split_rows(
            source,
            self._first_token_scorer(),
            device=self.device,
            dtype=self.dtype,
            most_words=most_words_corrected(self.config),
        )

    def _first_token_scorer(self) -> TokenScorer:
        """Return the first token scorer, which finds the words of passages."""
        for group, _ in self._kept or ():
            for model in group.models:
                if isinstance(model, TokenScorer):
                    return model
        fold = next(fold for fold in self.folds if fold.recipe.pair == "tokens")
        loaded = load_scorer(fold.files, fold.metadata)
        assert isinstance(loaded, TokenScorer)
        return loaded.to(self.device).eval()

    def _groups(self) -> Iterator[tuple[ModelGroup, list[EnsembleFold]]]:
        """Yield the models and their folds, all folds of an input format before those of another.

        Models that are not kept in memory are released when the next ones are asked for.
        """
        if self._kept is not None:
            yield from self._kept
            return
        max_bytes = memory_for_models(self.device, None)
        for folds in self._by_format():
            yield from load_model_groups(folds, self.device, self.dtype, max_bytes)

    @cached_property
    def _kept(self) -> list[tuple[ModelGroup, list[EnsembleFold]]] | None:
        """All models, a group for each input format; None if they don't fit in memory together."""
        max_bytes = memory_for_models(self.device, None)
        groups = []
        for folds in self._by_format():
            # The generator empties a group when the next one is asked for.
            group, loaded = next(load_model_groups(folds, self.device, self.dtype, max_bytes))
            max_bytes -= group.n_bytes()
            if len(loaded) < len(folds) or max_bytes < 0:
                return None
            groups.append((group, loaded))
        return groups

    def _by_format(self) -> list[list[EnsembleFold]]:
        """Return the folds of each input format, in their order."""
        by_format: dict[object, list[EnsembleFold]] = {}
        for fold in self.folds:
            by_format.setdefault(fold.input_format, []).append(fold)
        return list(by_format.values())


def _without(config: EnsembleConfig, models: set[str], path: Path) -> EnsembleConfig:
    """Return the ensemble's fallback without some models; HearbackError if there is none."""
    folds = {
        model.name: () if model.name in models else model.folds for model in config.models_to_run
    }
    restricted = config.restrict_to(folds)
    if restricted is None:
        names = ", ".join(sorted(models))
        raise HearbackError(
            f"{path}: {names} compare with reference speech, which recordings without a corpus "
            "have not; use an ensemble of models that hear the recording alone, such as modeltok "
            "or modeltokzero"
        )
    return restricted
