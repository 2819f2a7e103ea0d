"""What a model is: a frozen record that its script writes down once."""

import importlib.util
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from hearback.engine.errors import HearbackError
from hearback.engine.project import SHIPPED
from hearback.engine.training.recipe import FoldRecipe
from hearback.engine.whisper.heads import Pooling
from hearback.reading.augment import LIGHT, LIGHT_REFERENCE, Augmentation
from hearback.reading.pairs import WITH_TEXT_EMBEDDING, Pairing

N_RECIPES = 15  # the train_model*.py of the project; a listing that finds another number is wrong

# What token scorers hear KG, 1, 2 and 3 at (docs/results.md, "the youngest"): a child's voice is
# higher, its formants too, than those that Whisper knows best.
LIKE_GROWN_UPS = (0.8, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Recipe(FoldRecipe):
    """A model's architecture, augmentation and optimisation.

    The defaults are what all ten recipes of the competition share. `pair` says how learner and
    expected text meet (`pairs.Pairing`). For "joined" and the pairs of vectors, `pooling`, `hidden`
    and `dropout_on` describe the head: `hidden` is the width of its hidden layer (None: a linear
    head; "width": the encoder's), and dropout falls on the frames before pooling or on the pooled
    vector. For "tokens", `token_score` says what is read from the decoder (`models.TokenScorer`).
    The learning rate follows a cosine over `schedule_epochs` with `cycles` periods, after a warm-up
    of `warmup_share` of them. `warm_start` names a model whose trained encoder of the same fold is
    begun with. `repeats_by_grade` says how often an epoch has a clip of each of `tables.GRADES`: more
    than once weighs the youngest more, at another augmentation each time. `speed_by_grade` says how
    fast the recordings of each are played where they are judged, in validation and inference: below
    1 a voice is slower and lower, a child's more like a grown-up's (`pairs.PairSource.at_speeds`).
    Learned from they are at their own speed, but for the augmentation's (docs/results.md: why).
    """

    LATER = frozenset({"text_embedder", "repeats_by_grade", "speed_by_grade"})

    name: str
    backbone: str
    dropout: float
    learning_rate: float
    epochs: int
    schedule_epochs: int
    cycles: float
    weight_decay: float
    seed: int
    data_seed: int
    augment_learner: Augmentation
    augment_reference: Augmentation = field(default_factory=Augmentation)
    pair: Pairing = "joined"
    token_score: Literal["likelihood", "own"] = "likelihood"
    text_embedder: str | None = None  # hub id, or name in the assets; where texts are vectors
    pooling: Pooling = "mean"
    hidden: int | Literal["width"] | None = None
    dropout_on: Literal["frames", "pooled"] = "frames"
    negatives: float = 0.0  # per correct clip and epoch: pairs with the reference of another text
    hard_negatives: float = 0.0  # likewise: with a text that differs by a word or a sound
    hard_negative_weight: float = (
        1.0  # of such a text's loss, where it is read beside the clip's own
    )
    word_loss: float = 0.0  # weight of what is known of a single word, where words are read
    repeats_by_grade: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    warm_start: str | None = None
    frozen_share: float = 0.0  # of the encoder's layers, from below, the convolutions with them
    batch_size: int = 16
    head_learning_rate: float | None = None  # None: `learning_rate`
    warmup_share: float = 0.02  # the competition had none; it keeps Adam's first steps small
    average_decay: float = 0.0  # a step, of the running average of the weights; 0: no average
    max_gradient_norm: float = 1.0
    adam_epsilon: float = 1e-6
    adam_betas: tuple[float, float] = (0.9, 0.999)
    speed_by_grade: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    window: Literal["trimmed", "fixed"] = "trimmed"
    window_step_seconds: float = 0.64

    def _out_of_range(self) -> list[str]:
        in_range = {
            "text_embedder": self.text_embedder is not None or self.pair not in WITH_TEXT_EMBEDDING,
            "epochs": 0 <= self.epochs <= self.schedule_epochs
            and (self.epochs > 0 or self.has_pretrained_init),
            "dropout": 0 <= self.dropout < 1,
            "frozen_share": 0 <= self.frozen_share <= 1,
            "warmup_share": 0 <= self.warmup_share < 1,
            "negatives": self.negatives >= 0,
            "hard_negatives": self.hard_negatives >= 0,
            "hard_negative_weight": self.hard_negative_weight >= 0,
            "repeats_by_grade": min(self.repeats_by_grade) > 0,
            "word_loss": self.word_loss >= 0,
            "average_decay": 0 <= self.average_decay < 1,
            "batch_size": self.batch_size >= 1,
            "speed_by_grade": min(self.speed_by_grade) >= 0.5 and max(self.speed_by_grade) <= 2,
            "learning_rate": self.learning_rate >= 0,
            "head_learning_rate": self.head_learning_rate is None or self.head_learning_rate >= 0,
            "weight_decay": self.weight_decay >= 0,
            "max_gradient_norm": self.max_gradient_norm > 0,
            "window_step_seconds": self.window_step_seconds > 0,
        }
        return [name for name, fine in in_range.items() if not fine]

    @property
    def has_pretrained_init(self) -> bool:
        """Whether the model begins with what the untrained backbone knows, as an epoch 0."""
        return self.pair != "joined" and (self.pair != "tokens" or self.token_score != "own")

    def with_preset(self, preset: str) -> "Recipe":
        """Return the recipe with a preset's values for its pairing in place of its own."""
        return replace(self, **PRESETS[preset].get(self.pair, {}))

    def with_epochs(self, epochs: int) -> "Recipe":
        """Train for `epochs`, the cosine stretched in proportion."""
        stretched = round(epochs * self.schedule_epochs / max(self.epochs, 1))
        return replace(self, epochs=epochs, schedule_epochs=stretched)


# The ablation of the comparison idea (benchmarks/ablation.py), from the bottom.
COMPARISONS: tuple[Pairing, ...] = (
    "text classifier",
    "text cosine",
    "speech classifier",
    "speech cosine",
    "joined",
)

SMALL_COMPARISON: dict[str, Any] = {
    "learning_rate": 1e-4,
    "head_learning_rate": 1e-3,
    "epochs": 2,
    "schedule_epochs": 2,
    "cycles": 0.5,
    "dropout": 0.1,
    "frozen_share": 0.5,
    "negatives": 1.0,
    "augment_learner": LIGHT,
    "augment_reference": LIGHT_REFERENCE,
}

# A preset replaces fields of the recipes of some pairings. The competition's recipes were made for
# its 32,000 clips; "small" was chosen on 1,900 (docs/results.md: how, and what else was tried). The
# other families' recipes were chosen on these from the start.
PRESETS: dict[str, dict[Pairing, dict[str, Any]]] = {
    "competition": {},
    "small": dict.fromkeys(COMPARISONS, SMALL_COMPARISON),
}


def find_recipes(folder: Path = SHIPPED) -> dict[str, Recipe]:
    """Read the recipes of all `train_model*.py` in `folder`, by name.

    Raises HearbackError where they are not those that the project has, or a script's name is not
    its recipe's: a model that goes unseen would be missing from every table.
    """
    recipes = {}
    for script in sorted(folder.glob("train_model*.py")):
        spec = importlib.util.spec_from_file_location(script.stem, script)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if script.stem != f"train_{module.RECIPE.name}":
            raise HearbackError(f"{script.name} holds the recipe of {module.RECIPE.name}")
        recipes[module.RECIPE.name] = module.RECIPE
    if len(recipes) != N_RECIPES:
        raise HearbackError(f"{folder}: {len(recipes)} train_model*.py, {N_RECIPES} expected")
    return recipes
