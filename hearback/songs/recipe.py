"""The recipe of a model: a frozen dataclass, defined in a module of recipes/."""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, Self, cast, get_args

from hearback.engine.errors import HearbackError
from hearback.engine.training.field_types import (
    Above0,
    AtLeast0,
    CountFrom0,
    CountFrom1,
    Share,
    ShareBelow1,
)
from hearback.engine.training.fields import Rule
from hearback.engine.training.recipe import FoldRecipe
from hearback.songs import recipes as recipes_package
from hearback.songs.augment import Augmentation

N_RECIPES = 4  # modules in recipes/; `find_recipes` checks the number

DEFAULT_PATIENCE_EPOCHS = 10  # as in torch

Architecture = Literal["resnet34", "cnn4", "whisper"]
FeatureName = Literal["log_mel_40", "mel_db_128", "waveform"]
SeparationName = Literal["none", "repet", "demucs"]


@dataclass(frozen=True, kw_only=True)
class SongRecipe(FoldRecipe):
    """A model's architecture, input, augmentation and optimisation.

    Attributes:
        stem: first convolution of a ResNet.
        backbone: hub id or directory of a pretrained Whisper.
        frozen_share: share of Whisper's encoder layers that is frozen, from below.
        head_learning_rate: None: `learning_rate`.
        periods: number of periods of the cosine.
        milestones: epochs after which the learning rate is multiplied by 0.1.
        patience_epochs: epochs without a lower validation loss that "plateau" tolerates.
        mix_up: alpha of mix-up's Beta distribution; 0: no mix-up.
        mixtures: probability of replacing a waveform by a true mixture of its class
            (`augment.Mixer`).
        speed: probability of changing a waveform's speed before it is mixed.
        shuffled: probability of shuffling pieces of the resulting waveform (`augment.shuffle`).
        class_weights: weight the classes in the loss inversely to their size.
        balanced_sampling: sample the classes equally often.
        keep: epoch whose weights are kept: "last", which is independent of the validation rows, or
            "best", with the lowest validation log loss.
    """

    OMITTED_AT_DEFAULT = frozenset({"patience_epochs", "shuffled", "speed"})

    name: str
    architecture: Architecture
    features: FeatureName
    dropout: ShareBelow1
    optimizer: Literal["adamw", "adam", "sgd"]
    learning_rate: AtLeast0
    weight_decay: AtLeast0
    batch_size: CountFrom1
    epochs: CountFrom1
    schedule: Literal["cosine restarts", "cosine", "multistep", "plateau"]
    seed: CountFrom1 = 1
    data_seed: int = 1
    stem: Literal["7x7 stride 2", "3x3 stride 1"] = "7x7 stride 2"
    backbone: str | None = None
    frozen_share: Share = 0.0
    head_learning_rate: AtLeast0 | None = None
    periods: CountFrom1 = 1
    milestones: tuple[int, ...] = ()
    patience_epochs: CountFrom0 = DEFAULT_PATIENCE_EPOCHS  # of "plateau"
    mix_up: AtLeast0 = 0.0
    mixtures: Share = 0.0
    speed: Share = 0.0
    shuffled: Share = 0.0
    augment: Augmentation = field(default_factory=Augmentation)
    class_weights: bool = False
    balanced_sampling: bool = False
    separate: SeparationName = "none"
    keep: Literal["last", "best"] = "last"
    average_decay: ShareBelow1 = 0.0
    max_gradient_norm: Above0 = 5.0

    def _rules(self) -> Iterator[Rule]:
        hears_waveforms, is_whisper = self.features == "waveform", self.architecture == "whisper"
        rule = "architecture whisper needs one, and no other has one"
        yield "backbone", (self.backbone is not None) == is_whisper, rule
        rule = "architecture whisper needs waveform, and no other takes it"
        yield "features", hears_waveforms == is_whisper, rule
        is_shorter = self.periods <= self.epochs
        yield "periods", is_shorter, f"it must be at most epochs, {self.epochs}"
        is_sorted = list(self.milestones) == sorted(set(self.milestones))
        yield "milestones", is_sorted, "they must increase"
        is_kept = hears_waveforms or self.augment.gain == 0
        yield "augment.gain", is_kept, "it is for features waveform only"
        is_kept = not hears_waveforms or self.augment.frequency_masks == 0
        yield "augment.frequency_masks", is_kept, "features waveform have no frequencies"
        for name in ("mixtures", "speed", "shuffled"):
            is_kept = hears_waveforms or getattr(self, name) == 0
            yield name, is_kept, f"only features waveform take it, and these are {self.features}"

    def with_separation(self, separation: str) -> Self:
        """Return the recipe with another separation, which is part of its name."""
        if separation not in get_args(SeparationName):
            raise HearbackError(f"unknown separation {separation!r}")
        if separation == self.separate:
            return self
        separate = cast(SeparationName, separation)
        return replace(self, name=f"{self.name}_{separation}", separate=separate)

    def with_epochs(self, epochs: int) -> Self:
        """Return the recipe with `epochs` and its schedule scaled in proportion."""
        milestones = {max(1, round(at * epochs / self.epochs)) for at in self.milestones}
        periods = min(self.periods, epochs)
        patience = max(1, round(self.patience_epochs * epochs / self.epochs))
        return replace(
            self,
            epochs=epochs,
            milestones=tuple(sorted(milestones)),
            periods=periods,
            patience_epochs=patience,
        )


def program_of(recipe: SongRecipe) -> tuple[str, ...]:
    """Return the Python arguments that run a recipe's training module."""
    return ("-m", f"hearback.songs.recipes.{recipe.name}")


def find_recipes() -> dict[str, SongRecipe]:
    """Return the recipes of all modules of `hearback.songs.recipes`, by name.

    Raises HearbackError for an unexpected number of recipes, or if a module and its recipe have
    different names.
    """
    recipes = {}
    for module in pkgutil.iter_modules(recipes_package.__path__):
        recipe = importlib.import_module(f"{recipes_package.__name__}.{module.name}").RECIPE
        if module.name != recipe.name:
            raise HearbackError(f"{module.name}.py contains the recipe of {recipe.name}")
        recipes[recipe.name] = recipe
    if len(recipes) != N_RECIPES:
        raise HearbackError(f"songs/recipes: {len(recipes)} recipes, {N_RECIPES} expected")
    return recipes
