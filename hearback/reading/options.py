"""The command-line options of the reading competition's training scripts."""

import argparse
import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hearback.engine import cli, locks
from hearback.engine.data import corrections
from hearback.engine.errors import HearbackError
from hearback.engine.io import sha256_of
from hearback.engine.phones import layout as phones
from hearback.engine.training.options import FoldOptions, declare_common
from hearback.reading import FOLDERS, GROUPINGS, word_labels
from hearback.reading.hard_negatives import TABLE as HARD_NEGATIVES
from hearback.reading.pairings import SCORES_WORDS, WITH_TEXT_EMBEDDING
from hearback.reading.recipe import PRESETS, Recipe

if TYPE_CHECKING:
    from hearback.reading.dataset import TrainingData


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(FoldOptions):
    """Options of a training, in addition to the recipe and the fold."""

    tts_data: Path
    corrections: Path | None
    backbone: str | None
    preset: str
    window: str | None

    @classmethod
    def declare(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags of these options to a parser."""
        declare_common(parser, group_by=GROUPINGS)
        add = parser.add_argument
        cli.add_folders(parser, {"tts_data": FOLDERS["tts_data"]})
        corrections.add_flag(parser)
        add(
            "--backbone",
            help="Whisper of the models that use one: hub id, or directory in Transformers' "
            "layout (default: the recipe's)",
        )
        add(
            "--preset",
            choices=tuple(PRESETS),
            default="competition",
            help="set of values for the recipes",
        )
        add(
            "--window",
            choices=("trimmed", "fixed"),
            help="encoder window: the pair's length, or 16 s",
        )

    def adapt(self, recipe: Recipe) -> Recipe:
        """Return `recipe` with these options applied."""
        backbone = self.for_recipe(recipe).backbone
        recipe = recipe.with_preset(self.preset)
        if backbone is not None:
            recipe = replace(recipe, backbone=backbone)
        if self.window is not None:
            recipe = recipe.with_settings([f"window={self.window}"])
        adapted: Recipe = super().adapt(recipe)
        return adapted

    def for_recipe(self, recipe: Recipe) -> Self:
        """Return the options without --backbone for a recipe that has no Whisper."""
        return replace(self, backbone=None) if recipe.pair == "phones" else self

    def load_data(self, recipes: Sequence[Recipe] | None = None) -> "TrainingData":
        """Load and validate the training set, with references if one of `recipes` needs them.

        Also brings the metadata of folds up to date that earlier versions trained on this data.
        """
        # Not for --help: it imports torch.
        from hearback.reading import fold_upgrade  # noqa: PLC0415

        needed = recipes is None or any(recipe.needs_rendering for recipe in recipes)
        data = self._load(self.tts_data if needed else None)
        self._show_word_labels(recipes or (), data)
        outdated = [] if locks.are_refused() else fold_upgrade.find_outdated(self.assets)
        if outdated:
            fold_upgrade.upgrade(outdated, data if needed else self._load_with_references() or data)
        return data

    @staticmethod
    def _show_word_labels(recipes: Sequence[Recipe], data: "TrainingData") -> None:
        """Print how many words have labels, if one of `recipes` uses them."""
        users = ", ".join(dict.fromkeys(each.name for each in recipes if each.uses_word_labels))
        if users and data.word_labels:
            described = word_labels.describe(data.word_labels.record())
            print(f"{users}: {described} of {len(data.labels)} (train_words.csv)")
        elif users:
            print(f"{users}: no labels of words (train_words.csv); only those of recordings")

    def _load_with_references(self) -> "TrainingData | None":
        """Return the training set with its references, or None if they are not complete."""
        with contextlib.suppress(HearbackError), contextlib.redirect_stdout(io.StringIO()):
            return self._load(self.tts_data)
        return None

    def _load(self, tts_data: Path | None) -> "TrainingData":
        from hearback.reading.dataset import load_training_data  # noqa: PLC0415  (imports torch)

        return load_training_data(
            self.data,
            tts_data,
            self.store,
            n_folds=self.n_folds,
            group_by=self.group_by,
            limit=self.limit,
            strict=self.strict,
            corrections_path=self.corrections,
        )

    def pretrained_models(self, recipe: Recipe) -> frozenset[tuple[str, Path]]:
        """Return the recipe's backbone and text embedder; see `FoldOptions`."""
        names = [recipe.backbone]
        if recipe.pair == "segments":
            names.append(phones.NAME)
        if recipe.pair in WITH_TEXT_EMBEDDING and recipe.text_embedder is not None:
            names.append(recipe.text_embedder)
        return frozenset((name, self.assets) for name in names)

    def resolve_model(self, name: str, folder: Path) -> Path:
        """Return the directory of a Whisper, a text embedder, or the recogniser of phones."""
        if name == phones.NAME:
            return phones.resolve(folder)
        return super().resolve_model(name, folder)

    def run_key(self, recipe: Recipe, data: "TrainingData") -> dict[str, Any]:
        """Return the settings that identify a training of a fold, as JSON."""
        table = self.tts_data / HARD_NEGATIVES
        rendered = recipe.hard_negatives > 0 and recipe.pair not in SCORES_WORDS and table.exists()
        hears = recipe.hears_reference
        # Only where they are used: a table of words changes no other model's folds.
        words = {"word_labels": data.word_labels.record()} if recipe.uses_word_labels else {}
        return {
            **super().run_key(recipe, data),
            **words,
            "corrections": data.corrections.record(),
            "hard_negatives": sha256_of(table)[:16] if rendered else None,
            "references_fingerprint": data.fingerprint_with_references if hears else None,
        }
