"""Recipes of the reading competition: a model's architecture, data and optimisation."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from hearback.engine.errors import HearbackError
from hearback.engine.project import SHIPPED
from hearback.engine.training.field_types import (
    Above0,
    AtLeast0,
    CountFrom0,
    CountFrom1,
    Range,
    Share,
    ShareBelow1,
    any_of,
)
from hearback.engine.training.fields import Rule
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
_Speed = Annotated[float, Range(at_least=0.5, at_most=2)]

# The fields that keep their defaults in models of other pairings.
ONLY_FOR: dict[str, tuple[Pairing, ...]] = {
    "encoder_layers": ("segments",),
    "adapter_rank": ("tokens",),
    "n_augmented": ("tokens", "segments"),
    "joined_clips": HEARS_30_S,
    "phone_loss": WITH_PHONES,
    "uses_context": SCORES_WORDS,
    "uses_word_labels": SCORES_WORDS,
    "labelled_word_loss": SCORES_WORDS,
    "read_texts": SCORES_WORDS,
    "soft_labels": SCORES_WORDS,
}
OF_WORD_LABELS = ("labelled_word_loss", "phone_loss", "read_texts", "soft_labels")


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
    dropout: ShareBelow1
    learning_rate: AtLeast0
    epochs: CountFrom0
    schedule_epochs: int
    cycles: AtLeast0
    weight_decay: AtLeast0
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
    negatives: AtLeast0 = 0.0
    hard_negatives: AtLeast0 = 0.0
    hard_negative_weight: AtLeast0 = 1.0
    word_loss: AtLeast0 = 0.0
    labelled_word_loss: AtLeast0 | None = None
    uses_word_labels: bool = False
    phone_loss: AtLeast0 = 0.0
    read_texts: Share = 0.0
    soft_labels: Share = 0.0
    repeats_by_grade: tuple[Above0, Above0, Above0, Above0] = (1.0, 1.0, 1.0, 1.0)
    joined_clips: AtLeast0 = 0.0
    warm_start: str | None = None
    encoder_layers: CountFrom1 | None = None
    frozen_share: Share = 0.0
    adapter_rank: CountFrom0 = 0
    adapter_layers: tuple[str, ...] = ADAPTER_LAYERS
    adapted_share: Annotated[float, Range(above=0, at_most=1)] = 1.0
    n_augmented: CountFrom0 = 0
    uses_context: bool = True
    batch_size: CountFrom1 = 16
    head_learning_rate: AtLeast0 | None = None
    warmup_share: ShareBelow1 = (
        0.02  # the competition's code had none; it keeps Adam's first steps small
    )
    average_decay: ShareBelow1 = 0.0
    max_gradient_norm: Above0 = 1.0
    adam_epsilon: Above0 = 1e-6
    adam_betas: tuple[ShareBelow1, ShareBelow1] = (0.9, 0.999)
    speed_by_grade: tuple[_Speed, _Speed, _Speed, _Speed] = (1.0, 1.0, 1.0, 1.0)
    window: Literal["trimmed", "fixed"] = "trimmed"
    window_step_seconds: Above0 = 0.64

    def _rules(self) -> Iterator[Rule]:
        pair, share = self.pair, self.frozen_share
        for name, pairings in ONLY_FOR.items():
            rule = f"only models with pair {any_of(pairings)} take it, and this one has pair {pair}"
            yield name, self._is_default(name) or pair in pairings, rule
        for name in OF_WORD_LABELS:
            is_kept = self._is_default(name) or self.uses_word_labels
            yield name, is_kept, "it needs uses_word_labels=true"
        has_embedder = self.text_embedder is not None or pair not in WITH_TEXT_EMBEDDING
        yield "text_embedder", has_embedder, f"models with pair {pair} need one"
        is_shorter = self.epochs <= self.schedule_epochs
        yield "epochs", is_shorter, f"it must be at most schedule_epochs, {self.schedule_epochs}"
        is_trained = self.epochs > 0 or self.has_pretrained_init
        yield "epochs", is_trained, "this model's head must be trained, for at least 1 epoch"
        yield "frozen_share", share == 0 or pair != "phones", "models with pair phones need 0"
        yield "frozen_share", share == 1 or pair != "segments", "models with pair segments need 1"
        is_frozen = self.n_augmented == 0 or share == 1
        yield "n_augmented", is_frozen, "above 0 it needs a frozen encoder (frozen_share=1)"
        is_known = set(self.adapter_layers) <= set(ADAPTER_LAYERS)
        yield "adapter_layers", is_known, f"the layers are {', '.join(ADAPTER_LAYERS)}"

    def _is_default(self, field_name: str) -> bool:
        return bool(getattr(self, field_name) == getattr(type(self), field_name))

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
