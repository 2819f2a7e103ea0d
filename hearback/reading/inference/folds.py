"""The trained folds of an ensemble, and which of them can share input batches."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from hearback.engine.phones.ctc import PhoneCTCConfig
from hearback.engine.training.fold_files import FoldFiles, TrainedFold, shared_files
from hearback.engine.whisper.backbone import PARTS
from hearback.engine.whisper.encoder import EncoderConfig
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.models.load import read_runnable_metadata
from hearback.reading.pairings import HEARS_30_S
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import LONGEST_WINDOW_SAMPLES, WINDOW_SAMPLES
from hearback.reading.window_coverage import Coverage, coverages_of


class EnsembleFold(TrainedFold):
    """A trained fold of the ensemble's `model`-th model."""

    # By identity: metadata, a dict, cannot be hashed.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that it was trained with."""
        return Recipe.from_dict(self.metadata["recipe"])

    @cached_property
    def encoder_config(self) -> EncoderConfig | PhoneCTCConfig:
        """The sizes of its encoder."""
        shape = self.metadata["shape"]
        if self.recipe.pair == "phones":
            return PhoneCTCConfig.from_config(shape)
        return EncoderConfig.from_config(shape)

    @cached_property
    def input_format(self) -> tuple[Any, ...]:
        """Everything that its input batches depend on: folds of one format can share them."""
        recipe = self.recipe
        return (
            recipe.pair,
            recipe.window,
            recipe.window_step_seconds,
            recipe.speed_by_grade,
            self.metadata["shape"].get("num_mel_bins"),
            *sorted(
                (key, file.sha256)
                for key, file in shared_files(self.metadata).items()
                if key not in PARTS  # of a backbone: no input
            ),
        )

    @property
    def n_shareable(self) -> int:
        """Number of encoder stages, from the first, that training left unchanged.

        Trained stages are unique, so they are not compared: hashing all weights of a large encoder
        takes seconds.
        """
        if self.recipe.frozen_share == 0:
            return 0
        n_layers = int(self.metadata["shape"]["encoder_layers"])
        n_frozen = round(self.recipe.frozen_share * n_layers)
        if n_frozen == 0:
            return 0
        # The convolutions too, and the final norm where all layers are frozen.
        return 1 + n_frozen + (n_frozen == n_layers)


def read_folds(config: EnsembleConfig, assets: Path) -> list[EnsembleFold]:
    """Return all folds that the ensemble runs; HearbackError if one of them cannot run."""
    folds = []
    for number, model in enumerate(config.models_to_run):
        for fold in model.folds:
            files = FoldFiles(assets, model.name, fold)
            folds.append(EnsembleFold(number, files, read_runnable_metadata(files, config.voice)))
    return folds


def coverages_of_folds(folds: Sequence[EnsembleFold]) -> list[Coverage]:
    """Return what the windows of the folds' models cover."""
    recipes = {fold.files.model: fold.recipe for fold in folds}
    return coverages_of(
        {name: (recipe.pair, recipe.speed_by_grade) for name, recipe in recipes.items()}
    )


def longest_window(folds: Sequence[EnsembleFold]) -> int:
    """Return the number of samples of the longest window that all of the folds' models hear."""
    hear_30_s = all(fold.recipe.pair in HEARS_30_S for fold in folds)
    return LONGEST_WINDOW_SAMPLES if hear_30_s else WINDOW_SAMPLES


def name_folds(folds: Sequence[EnsembleFold]) -> str:
    """Return the folds by model, such as "model1m folds 0 2, modeltok fold 0"."""
    by_model: dict[str, list[str]] = {}
    for fold in folds:
        by_model.setdefault(fold.files.model, []).append(str(fold.files.fold))
    return ", ".join(
        f"{model} {'fold' if len(numbers) == 1 else 'folds'} {' '.join(numbers)}"
        for model, numbers in by_model.items()
    )
