"""Command-line options of a training."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from hearback.engine.data import corrections
from hearback.engine.training.options import FoldOptions, declare_common
from hearback.songs import GROUPINGS, SUBFOLDER
from hearback.songs.recipe import SeparationName, SongRecipe
from hearback.songs.separation import methods

if TYPE_CHECKING:
    from hearback.songs.dataset import SongData


@dataclass(frozen=True, kw_only=True)
class SongOptions(FoldOptions):
    """Options of a training, in addition to the recipe and the fold."""

    backbones: Path
    corrections: Path | None
    backbone: str | None
    separate: str
    demucs_python: Path
    demucs_model: Path
    demucs_device: str

    @classmethod
    def declare(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags of these options to a parser."""
        declare_common(parser, subfolder=SUBFOLDER, group_by=GROUPINGS)
        corrections.add_flag(parser)
        add = parser.add_argument
        add(
            "--backbones",
            type=Path,
            default=Path("assets"),
            help="folder of pretrained Whisper models",
        )
        add(
            "--backbone",
            help="hub id, or directory in Transformers' layout (default: the recipe's)",
        )
        add(
            "--separate",
            choices=get_args(SeparationName),
            default="none",
            help="method that separates the voice from the music",
        )
        methods.add_options(parser)

    def adapt(self, recipe: SongRecipe) -> SongRecipe:
        """Return `recipe` with these options applied."""
        if self.backbone is not None and recipe.backbone is not None:
            recipe = replace(recipe, backbone=self.backbone)
        adapted: SongRecipe = super().adapt(recipe.with_separation(self.separate))
        return adapted

    def load_data(self, recipes: Sequence[SongRecipe] | None = None) -> "SongData":
        """Load and validate the training set, the same for all recipes."""
        from hearback.songs.dataset import load_song_data  # noqa: PLC0415  (--help needs none)

        return load_song_data(
            self.data,
            self.store,
            separate=self.separate,
            separations=methods.options_from(self),
            n_folds=self.n_folds,
            group_by=self.group_by,
            limit=self.limit,
            strict=self.strict,
            corrections_path=self.corrections,
        )

    def pretrained_models(self, recipe: SongRecipe) -> frozenset[tuple[str, Path]]:
        """Return the recipe's backbone, if it has one; see `FoldOptions`."""
        names = [] if recipe.backbone is None else [recipe.backbone]
        return frozenset((name, self.backbones) for name in names)

    def run_key(self, recipe: SongRecipe, data: "SongData") -> dict[str, Any]:
        """Return the run key as JSON: a fold counts as done only while it is unchanged."""
        return {
            **super().run_key(recipe, data),
            "corrections": data.corrections.record(),
            "separation": data.separation,
        }
