"""Recipes of the reading competition: a model's architecture, data and optimisation."""

import importlib.util
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from hearback.engine.errors import HearbackError
from hearback.engine.project import SHIPPED
from hearback.engine.training.recipe import FoldRecipe
from hearback.engine.whisper.poolings import Pooling
from hearback.reading.augment import LIGHT, LIGHT_REFERENCE, Augmentation
from hearback.reading.pairings import (
    HEARS_30_S,
    SCORES_WORDS,
    WITH_PHONES,
    WITH_TEXT_EMBEDDING,
    WITHOUT_REFERENCE,
    Pairing,
)

N_RECIPES = 18  # the project's train_model*.py scripts; `find_recipes` checks the number

# The decoder's linear layers but for the projections of the recordings: many adapted decoders can
# then share these (`whisper.joint_decoding`).
ADAPTER_LAYERS = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
    *("encoder_attn.q_proj", "encoder_attn.out_proj", "fc1", "fc2"),
)


@dataclass(frozen=True)
class Recipe(FoldRecipe):
    """A model's architecture, data and optimisation.

    The defaults are the values that the competition's ten recipes share.

    Attributes:
        name: name of the model and, as train_<name>.py, of its script.
        backbone: hub id, directory or name in the assets of a pretrained Whisper.
        dropout: probability.
        learning_rate: peak learning rate of the backbone.
        epochs: number of training epochs.
        schedule_epochs: length of the learning rate schedule, at least `epochs`.
        cycles: periods of the schedule's cosine; 0.5 decays to 0.
        weight_decay: of AdamW.
        seed: seed of weights and dropout.
        data_seed: seed of the sampled examples, their order and their augmentation.
        augment_learner: augmentation of the learners' recordings.
        augment_reference: augmentation of the references.
        pair: how the learner is compared with the expected text (`pairings.Pairing`).
        token_score: for "tokens": the score taken from the decoder (`token_scorer.TokenScorer`).
        text_embedder: hub id, or name in the assets; for the pairings with text embeddings.
        pooling: pooling over frames; for "joined" and the pairings of vectors.
        hidden: width of the head's hidden layer; None: a linear head; "width": the encoder's width.
        dropout_on: apply dropout to the frames before pooling or to the pooled vector.
        negatives: examples with another row's text, per correct clip and epoch.
        hard_negatives: texts that differ in a word or a sound, per correct clip and epoch.
        hard_negative_weight: weight of their loss, for models that score words.
        word_loss: weight of the words' loss, for models that score words.
        labelled_word_loss: the same where the corpus has labels of words, and the recipe uses them;
            None: `word_loss`.
        uses_word_labels: whether a model that scores words learns from the labels of words of a
            corpus that has them (`word_labels`).
        phone_loss: weight of the phones' loss, for models that hear phones, where labels of words
            have transcriptions (`phone_labels`).
        read_texts: share of the clips with another expected text than the one that was read, by
            these labels, that an epoch also contains with the text that was read; the label is the
            experts' probability that it is correct.
        soft_labels: weight of the experts' probability that a clip is correct
            (`ReadWords.probability`) in its label, where words have labels.
        repeats_by_grade: number of times that an epoch contains each clip, by grade
            (`tables.GRADES`); every repeat is augmented differently.
        joined_clips: number of further examples, per clip and epoch, that are several recordings of
            one speaker, joined to 8 to 28 s (`joined_clips`). For models that hear up to 30 s.
        warm_start: name of a model; its encoder of the same fold initialises this one.
        encoder_layers: number of encoder layers that "segments" uses, from the bottom; None: all.
        frozen_share: share of encoder layers to freeze, from the bottom, with the convolutions; 1
            freezes the whole encoder.
        adapter_rank: rank of the low-rank updates that the decoder of a token scorer learns instead
            of its weights (`whisper.low_rank`); 0: it learns its weights.
        adapter_layers: the decoder's linear layers with an update.
        adapted_share: share of the decoder's layers, from the top, whose linear layers have one.
        n_augmented: number of augmented versions of each recording that are encoded once, for all
            epochs, folds and seeds (`encoded`); 0: each example is augmented and encoded anew.
            Needs a frozen encoder.
        uses_context: whether the head of a model that scores words gets task and grade.
        batch_size: pairs per batch.
        head_learning_rate: peak learning rate of all other parameters; None: `learning_rate`.
        warmup_share: share of the schedule with linear warm-up.
        average_decay: decay per step of the exponential moving average of the weights; 0: none.
        max_gradient_norm: norm that gradients are clipped to.
        adam_epsilon: epsilon of AdamW.
        adam_betas: betas of AdamW.
        speed_by_grade: speed of the recordings in validation and inference, by grade; below 1 a
            voice is slower and lower (`pairs.PairSource.with_speeds`). Training uses the original
            speed with augmentation (docs/results/youngest.md).
        window: see `window_batches.window_samples`.
        window_step_seconds: see `window_batches.window_samples`.
    """

    OMITTED_AT_DEFAULT = frozenset(
        {
            *("text_embedder", "repeats_by_grade", "speed_by_grade"),
            *("adapter_rank", "adapter_layers", "adapted_share", "n_augmented", "uses_context"),
            *(
                "uses_word_labels",
                "labelled_word_loss",
                "phone_loss",
                "read_texts",
                "soft_labels",
                "joined_clips",
                "encoder_layers",
            ),
        }
    )

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
    text_embedder: str | None = None
    pooling: Pooling = "mean"
    hidden: int | Literal["width"] | None = None
    dropout_on: Literal["frames", "pooled"] = "frames"
    negatives: float = 0.0
    hard_negatives: float = 0.0
    hard_negative_weight: float = 1.0
    word_loss: float = 0.0
    labelled_word_loss: float | None = None
    uses_word_labels: bool = False
    phone_loss: float = 0.0
    read_texts: float = 0.0
    soft_labels: float = 0.0
    repeats_by_grade: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    joined_clips: float = 0.0
    warm_start: str | None = None
    encoder_layers: int | None = None
    frozen_share: float = 0.0
    adapter_rank: int = 0
    adapter_layers: tuple[str, ...] = ADAPTER_LAYERS
    adapted_share: float = 1.0
    n_augmented: int = 0
    uses_context: bool = True
    batch_size: int = 16
    head_learning_rate: float | None = None
    warmup_share: float = 0.02  # the competition's code had none; it keeps Adam's first steps small
    average_decay: float = 0.0
    max_gradient_norm: float = 1.0
    adam_epsilon: float = 1e-6
    adam_betas: tuple[float, float] = (0.9, 0.999)
    speed_by_grade: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    window: Literal["trimmed", "fixed"] = "trimmed"
    window_step_seconds: float = 0.64

    def _out_of_range(self) -> list[str]:
        return [name for name, is_valid in _check_fields(self).items() if not is_valid]

    @property
    def hears_reference(self) -> bool:
        """Whether the model compares with reference speech."""
        return self.pair not in WITHOUT_REFERENCE

    @property
    def needs_rendering(self) -> bool:
        """Whether training needs what preprocess.py renders: references, or hard negatives.

        Models that score words generate their hard negatives themselves.
        """
        return self.hears_reference or (self.hard_negatives > 0 and self.pair not in SCORES_WORDS)

    @property
    def has_pretrained_init(self) -> bool:
        """Whether the head is initialised from pretrained features, which gives an epoch 0."""
        return self.pair != "joined" and (self.pair != "tokens" or self.token_score != "own")

    def with_labels_of_words(self, has_labels: bool) -> "Recipe":
        """Return the recipe with the words' loss that it has for a corpus with or without labels.

        Everything else about labels is decided where they are used.
        """
        if not has_labels or self.labelled_word_loss is None:
            return self
        return replace(self, word_loss=self.labelled_word_loss)

    def with_preset(self, preset: str) -> "Recipe":
        """Return the recipe with the fields that the preset sets for its pairing."""
        return replace(self, **PRESETS[preset].get(self.pair, {}))

    def with_epochs(self, epochs: int) -> "Recipe":
        """Return the recipe with another number of epochs and a schedule scaled in proportion.

        A recipe without any training stays as it is.
        """
        if self.epochs == 0:
            return self
        stretched = round(epochs * self.schedule_epochs / max(self.epochs, 1))
        return replace(self, epochs=epochs, schedule_epochs=stretched)


def _check_fields(recipe: Recipe) -> dict[str, bool]:
    """Return whether a field's value is valid, alone and beside the other fields', by its name."""
    return {
        "text_embedder": recipe.text_embedder is not None or recipe.pair not in WITH_TEXT_EMBEDDING,
        "epochs": 0 <= recipe.epochs <= recipe.schedule_epochs
        and (recipe.epochs > 0 or recipe.has_pretrained_init),
        "dropout": 0 <= recipe.dropout < 1,
        "encoder_layers": recipe.encoder_layers is None
        or (recipe.encoder_layers >= 1 and recipe.pair == "segments"),
        "frozen_share": 0 <= recipe.frozen_share <= 1
        and (recipe.frozen_share == 0 or recipe.pair != "phones")
        and (recipe.frozen_share == 1 or recipe.pair != "segments"),
        "adapter_rank": recipe.adapter_rank >= 0
        and (recipe.adapter_rank == 0 or recipe.pair == "tokens"),
        "adapter_layers": set(recipe.adapter_layers) <= set(ADAPTER_LAYERS),
        "adapted_share": 0 < recipe.adapted_share <= 1,
        "n_augmented": recipe.n_augmented >= 0
        and (
            recipe.n_augmented == 0
            or (recipe.frozen_share == 1 and recipe.pair in ("tokens", "segments"))
        ),
        "uses_context": recipe.uses_context or recipe.pair in SCORES_WORDS,
        "warmup_share": 0 <= recipe.warmup_share < 1,
        "negatives": recipe.negatives >= 0,
        "hard_negatives": recipe.hard_negatives >= 0,
        "hard_negative_weight": recipe.hard_negative_weight >= 0,
        "repeats_by_grade": min(recipe.repeats_by_grade) > 0,
        "joined_clips": recipe.joined_clips >= 0
        and (recipe.joined_clips == 0 or recipe.pair in HEARS_30_S),
        "word_loss": recipe.word_loss >= 0,
        "labelled_word_loss": recipe.labelled_word_loss is None
        or (recipe.labelled_word_loss >= 0 and recipe.uses_word_labels),
        "phone_loss": recipe.phone_loss >= 0
        and (recipe.phone_loss == 0 or (recipe.pair in WITH_PHONES and recipe.uses_word_labels)),
        "uses_word_labels": not recipe.uses_word_labels or recipe.pair in SCORES_WORDS,
        "read_texts": 0 <= recipe.read_texts <= float(recipe.uses_word_labels),
        "soft_labels": 0 <= recipe.soft_labels <= float(recipe.uses_word_labels),
        "average_decay": 0 <= recipe.average_decay < 1,
        "batch_size": recipe.batch_size >= 1,
        "speed_by_grade": min(recipe.speed_by_grade) >= 0.5 and max(recipe.speed_by_grade) <= 2,
        "learning_rate": recipe.learning_rate >= 0,
        "head_learning_rate": recipe.head_learning_rate is None or recipe.head_learning_rate >= 0,
        "weight_decay": recipe.weight_decay >= 0,
        "max_gradient_norm": recipe.max_gradient_norm > 0,
        "window_step_seconds": recipe.window_step_seconds > 0,
    }


# The pairings compared in the ablation (hearback/reading/baselines/ablation.py), simplest first.
COMPARISON_PAIRINGS: tuple[Pairing, ...] = (
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

# A preset replaces fields of the recipes with these pairings. The competition's recipes were tuned
# on its 32,000 clips; "small" was tuned on 1,900 (docs/results/small_preset.md), as were the
# recipes of the other pairings.
PRESETS: dict[str, dict[Pairing, dict[str, Any]]] = {
    "competition": {},
    "small": dict.fromkeys(COMPARISON_PAIRINGS, SMALL_COMPARISON),
}


def program_of(recipe: Recipe) -> tuple[str, ...]:
    """Return Python's arguments that train a recipe: its script."""
    return (f"train_{recipe.name}.py",)


def find_recipes(folder: Path = SHIPPED) -> dict[str, Recipe]:
    """Read the recipes of all `train_model*.py` in `folder`, by name.

    Raises:
        HearbackError: the number of scripts is not `N_RECIPES` (a missing model would be missing
            from every table), or a script is not named after its recipe.
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
