"""The models: a class for each way to compare the learner with the expected text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hearback.engine.devices import to_host
from hearback.engine.errors import HearbackError
from hearback.engine.phones.tokenizer import PhoneTokenizer
from hearback.engine.whisper.heads import Head, Pooler, VectorClassifier, VectorCosine
from hearback.engine.whisper.tokenizer import TextTokenizer
from hearback.reading.models.alignment import AlignmentPath
from hearback.reading.models.alignment_head import AlignmentHead
from hearback.reading.models.base import N_CONTEXT, Scorer, WhisperScorer, frame_mask
from hearback.reading.models.phone_scorer import PhoneScorer
from hearback.reading.models.segment_scorer import SegmentScorer
from hearback.reading.models.text_embedder import TextEmbedder
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.pairings import WITH_TEXT_EMBEDDING
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import Batch

ALIGNMENT_HIDDEN = 64  # width of the alignment head's correction network


class JoinedScorer(WhisperScorer):
    """Reference and learner concatenated into one waveform, as the competition's winner did."""

    def __init__(self, recipe: Recipe, config: Mapping[str, Any]) -> None:
        super().__init__(recipe, config)
        width = self.encoder.config.d_model
        self.head = Head(
            width=width,
            n_context=N_CONTEXT,
            pooling=recipe.pooling,
            hidden=width if recipe.hidden == "width" else recipe.hidden,
            dropout=recipe.dropout,
            dropout_on=recipe.dropout_on,
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return (batch,) float32 logits."""
        frames = self.encode(batch)
        return self.head(frames, frame_mask(frames, batch.n_frames), batch.context).float()


class EmbeddingScorer(WhisperScorer):
    """Learner and text as two vectors, compared by a classifier or their cosine.

    The learner's vector is pooled from its encoder frames. The text's vector is a sentence
    embedding (`TextEmbedder`) or pooled from the encoder frames of its reference.
    """

    def __init__(
        self, recipe: Recipe, config: Mapping[str, Any], embedder: TextEmbedder | None = None
    ) -> None:
        super().__init__(recipe, config)
        self.embedder = embedder
        width = self.encoder.config.d_model
        self.pooler = Pooler(
            width, pooling=recipe.pooling, dropout=recipe.dropout, dropout_on=recipe.dropout_on
        )
        n_pooled = self.pooler.n_pooled
        widths = (n_pooled, embedder.width if embedder else n_pooled)
        self.head = (
            VectorCosine(widths, N_CONTEXT, same_kind=embedder is None)
            if recipe.pair.endswith("cosine")
            else VectorClassifier(
                widths, N_CONTEXT, width if recipe.hidden == "width" else recipe.hidden
            )
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return (batch,) float32 logits."""
        return self.head(self._vectors(batch), batch.context).float()

    def pretrained_features(self, batch: Batch) -> Tensor | None:
        """Return the vectors of learner and text, concatenated, (batch, both widths)."""
        return self._vectors(batch)

    def init_from_pretrained(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Fit the head's z-scores on (rows, both widths) and its base rate on (rows,) labels."""
        self.head.init_from_pretrained(features, labels)

    def _vectors(self, batch: Batch) -> Tensor:
        if self.embedder is not None:
            assert batch.text_embeddings is not None
            return torch.cat([self._pool(batch, batch.n_frames), batch.text_embeddings], dim=-1)
        assert batch.n_reference_frames is not None
        both = self._pool(batch, torch.cat([batch.n_frames, batch.n_reference_frames]))
        return torch.cat(both.chunk(2), dim=-1)

    def _pool(self, batch: Batch, n_frames: Tensor) -> Tensor:
        frames = self.encode(batch)
        # Pool in float32: differences between clips are small compared to their common mean.
        with torch.autocast(frames.device.type, enabled=False):
            return self.pooler.pool(frames.float(), frame_mask(frames, n_frames))


class AlignedScorer(WhisperScorer):
    """Reference and learner encoded separately, aligned frame by frame and compared."""

    def __init__(self, recipe: Recipe, config: Mapping[str, Any]) -> None:
        super().__init__(recipe, config)
        self.head = AlignmentHead(
            self.encoder.config.d_model, n_context=N_CONTEXT, hidden=ALIGNMENT_HIDDEN
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return (batch,) float32 logits."""
        return self.head(*self._frames(batch), batch.context)

    def pretrained_features(self, batch: Batch) -> Tensor | None:
        """Return the features of the alignment, (batch, features)."""
        return self.head.features(*self._frames(batch), batch.context)

    def init_from_pretrained(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Initialise the classifier as a logistic regression of labels on (rows, features)."""
        self.head.classifier.init_from_pretrained(features, labels)

    def alignment_paths(self, batch: Batch) -> list[AlignmentPath]:
        """Return the alignment path of each pair of the batch."""
        learner, reference, *counts = self._frames(batch)
        n_learner, n_reference = (each.tolist() for each in to_host(*counts))
        return [
            self.head.alignment_path(learner[i, :n_frames], reference[i, :n_reference_frames])
            for i, (n_frames, n_reference_frames) in enumerate(
                zip(n_learner, n_reference, strict=True)
            )
        ]

    def _frames(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert batch.n_reference_frames is not None
        learner, reference = self.encode(batch).chunk(2)
        return learner, reference, batch.n_frames, batch.n_reference_frames


def build(
    recipe: Recipe,
    config: Mapping[str, Any],
    tokenizer: Path | None = None,
    embedder: TextEmbedder | None = None,
) -> Scorer:
    """Build a recipe's model with random weights.

    Args:
        recipe: the recipe.
        config: the backbone's sizes, as in Transformers' `config.json`.
        tokenizer: the backbone's tokenizer; required for token and phone scorers.
        embedder: required for the pairings in `WITH_TEXT_EMBEDDING`.

    Raises:
        HearbackError: the recipe needs a tokenizer or an embedder that is not given.
    """
    kind = model_class(recipe)
    if kind is EmbeddingScorer:
        if recipe.pair in WITH_TEXT_EMBEDDING and embedder is None:
            raise HearbackError(f"{recipe.name} compares text embeddings: it needs a text embedder")
        return EmbeddingScorer(recipe, config, embedder)
    if kind in (TokenScorer, PhoneScorer, SegmentScorer):
        if tokenizer is None:
            needed = "its backbone's tokenizer" if kind is TokenScorer else "pronunciations"
            raise HearbackError(f"{recipe.name} scores {recipe.pair}: it needs {needed}")
        if kind is PhoneScorer:
            return PhoneScorer(recipe, config, PhoneTokenizer(tokenizer))
        if kind is SegmentScorer:
            return SegmentScorer(recipe, config, PhoneTokenizer(tokenizer))
        return TokenScorer(recipe, config, TextTokenizer(tokenizer))
    assert issubclass(kind, WhisperScorer)
    return kind(recipe, config)


def model_class(recipe: Recipe) -> type[Scorer]:
    """Return the class of a recipe's model."""
    classes: dict[str, type[Scorer]] = {
        "joined": JoinedScorer,
        "aligned": AlignedScorer,
        "tokens": TokenScorer,
        "phones": PhoneScorer,
        "segments": SegmentScorer,
    }
    return classes.get(recipe.pair, EmbeddingScorer)
