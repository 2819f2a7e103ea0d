"""From a recipe to a module: one class for each way in which learner and expected text meet."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine.audio.log_mel import log_mel
from hearback.engine.errors import HearbackError
from hearback.engine.whisper.backbone import BackboneModel, Part
from hearback.engine.whisper.decoder import DecoderShape, WhisperDecoder
from hearback.engine.whisper.encoder import FRAMES_PER_SECOND, EncoderShape, WhisperEncoder
from hearback.engine.whisper.heads import Head, Pooler, VectorClassifier, VectorCosine
from hearback.engine.whisper.token_logprobs import token_likelihoods
from hearback.engine.whisper.tokenizer import TextReader
from hearback.reading.models.alignment import AlignmentHead, Trace
from hearback.reading.models.text_embedder import TextEmbedder
from hearback.reading.models.token_head import TokenEvidence, TokenHead, TokenScores, log_odds
from hearback.reading.pairs import WITH_TEXT_EMBEDDING
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import Batch

N_CONTEXT = 2  # task, grade
ALIGNMENT_HIDDEN = 64


class Scorer(BackboneModel, ABC):
    """Batches to logits that the learners said the texts.

    Logits rather than probabilities: a sigmoid in half precision rounds a confident mistake to 0 or
    1, whose logarithm is infinite.
    """

    parts: ClassVar[tuple[Part, ...]] = ("encoder",)  # of the backbone

    def __init__(self, recipe: Recipe, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.recipe = recipe
        self.reader: TextReader | None = None
        self.embedder: TextEmbedder | None = None
        self.encoder = WhisperEncoder(EncoderShape.from_config(config))
        # Texts chosen because they are wrong raise the share of wrong ones in training, which must
        # not lower the scores of real ones: how much it would is learned here, and left out after.
        self.negative_bias = nn.Parameter(torch.zeros(()))

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Return (batch,) float32 logits."""

    def forward_with_words(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return (batch,) logits and the scores of the texts' words, None where it has none.

        The latter are log-odds, (batch, most words + 1, 2), laid out as in `hearback.reading.words`.
        """
        return self(batch), None

    def training_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (batch,) logits to be judged by the labels, and () what else there is to lose."""
        logits = self(batch) + self.negative_bias * batch.is_negative
        return logits, torch.zeros((), device=logits.device)

    def pretrained_features(self, batch: Batch) -> Tensor | None:
        """Return what the untrained model knows, (batch, features), or None if that is nothing."""
        return None

    def init_from_pretrained(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Start from a logistic regression of (rows,) labels on (rows, features)."""
        raise HearbackError(f"{self.recipe.name} has nothing to start from")

    def load_pretrained(self, tensors: Mapping[Part, Mapping[str, Tensor]]) -> None:
        """Load the backbone's parts, and freeze of them what the recipe says."""
        self.encoder.load_pretrained(tensors["encoder"])
        n_layers = self.encoder.shape.encoder_layers
        self.encoder.freeze_below(round(self.recipe.frozen_share * n_layers))

    def shape(self) -> dict[str, int]:
        """Return the backbone's sizes under the names of a Transformers `config.json`."""
        return self.encoder.shape.as_config()

    def encode(self, batch: Batch) -> Tensor:
        """Return the learners' frames and after them, where references are apart, each clip's.

        That is (batch, or twice the batch, frames, width).
        """
        frames = batch.frames
        if frames is None:
            frames = self.encoder(log_mel(batch.sounds, self.encoder.shape.num_mel_bins))
        if batch.reference_of is None:
            return frames
        return torch.cat([frames[: len(batch)], frames[len(batch) :][batch.reference_of]])


class JoinedScorer(Scorer):
    """The comparison of the competition's winner: reference and learner in one waveform."""

    def __init__(self, recipe: Recipe, config: Mapping[str, Any]) -> None:
        super().__init__(recipe, config)
        width = self.encoder.shape.d_model
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


class EmbeddingScorer(Scorer):
    """Learner and text as two vectors, which only a classifier or their cosine brings together.

    The learner's is pooled from the encoder's frames, the text's from those of its reference, or it
    is a `TextEmbedder`'s.
    """

    def __init__(
        self, recipe: Recipe, config: Mapping[str, Any], embedder: TextEmbedder | None = None
    ) -> None:
        super().__init__(recipe, config)
        self.embedder = embedder
        width = self.encoder.shape.d_model
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
        """Return the untrained vectors, side by side, (batch, both widths)."""
        return self._vectors(batch)

    def init_from_pretrained(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Start from the scale of (rows, both widths) and the base rate of (rows,) labels."""
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
        # In half precision, what tells clips apart would drown in what they have in common.
        with torch.autocast(frames.device.type, enabled=False):
            return self.pooler.pool(frames.float(), frame_mask(frames, n_frames))


class TokenScorer(Scorer):
    """The decoder reads the expected text while it listens to the learner alone.

    With `token_score` "own" as the competition's first place had it: a token's own logit at its own
    place, averaged over the text. With "likelihood" a `TokenHead`.
    """

    parts = ("encoder", "decoder")

    def __init__(self, recipe: Recipe, config: Mapping[str, Any], reader: TextReader) -> None:
        super().__init__(recipe, config)
        self.reader = reader
        self.decoder = WhisperDecoder(DecoderShape.from_config(config))
        self.head = (
            TokenHead(self.decoder.shape.d_model, N_CONTEXT, recipe.dropout)
            if recipe.token_score == "likelihood"
            else None
        )

    def shape(self) -> dict[str, int]:
        """Return the backbone's sizes under the names of a Transformers `config.json`."""
        return self.encoder.shape.as_config() | self.decoder.shape.as_config()

    def load_pretrained(self, tensors: Mapping[Part, Mapping[str, Tensor]]) -> None:
        """Load the backbone's parts, and freeze of them what the recipe says."""
        super().load_pretrained(tensors)
        self.decoder.load_state_dict(tensors["decoder"])

    def forward(self, batch: Batch) -> Tensor:
        """Return (batch,) float32 logits."""
        if self.head is None:
            return self._own_logits(batch)[: len(batch)]
        return self.read(batch)[0].logits[: len(batch)]

    def forward_with_words(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return (batch,) logits and, with a `TokenHead`, the scores of the texts' words."""
        if self.head is None:
            return super().forward_with_words(batch)
        assert batch.texts is not None
        scores, _ = self.read(batch)
        log_probabilities = torch.stack([F.pad(scores.said, (0, 1)), scores.complete], dim=-1)
        n_words = batch.texts.n_words[:, None]
        places = torch.arange(log_probabilities.shape[1], device=n_words.device)
        beyond = torch.stack([places >= n_words, places > n_words], dim=-1)
        words = log_odds(log_probabilities).masked_fill(beyond, float("nan"))
        return scores.logits[: len(batch)], words[: len(batch)]

    def training_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (batch,) logits to be judged by the labels, and () what else there is to lose.

        That is what hard negatives and single words get wrong, weighed as the recipe says.
        """
        assert batch.texts is not None
        if self.head is None:
            logits = self._own_logits(batch)
            words = torch.zeros((), device=logits.device)
        else:
            scores, _ = self.read(batch)
            logits = scores.logits
            words = self.head.word_losses(scores, batch.texts).sum()
        hard_negatives = F.softplus(logits[len(batch) :] + self.negative_bias).sum()
        loss = self.recipe.hard_negative_weight * hard_negatives + self.recipe.word_loss * words
        return logits[: len(batch)] + self.negative_bias * batch.is_negative, loss

    def read(self, batch: Batch) -> tuple[TokenScores, Tensor]:
        """Return scores of all of the batch's texts and their words, and the features behind."""
        assert batch.texts is not None and self.head is not None
        texts = batch.texts
        hidden = self._hidden(batch)
        places = torch.arange(texts.words.shape[1], device=hidden.device)
        of_text = places < texts.n_targets[:, None]
        # Only where there is a target: the vocabulary is what costs here.
        log_probabilities, best = token_likelihoods(
            hidden[:, texts.n_prompt - 1 : -1][of_text],
            self.decoder.embed_tokens.weight,
            texts.tokens[:, texts.n_prompt :][of_text],
        )

        def lay(values: Tensor) -> Tensor:
            laid = torch.zeros(of_text.shape, device=values.device)
            return laid.masked_scatter(of_text, values)

        return self.head(
            TokenEvidence(hidden, lay(log_probabilities), lay(best)),
            texts,
            (batch.n_frames / FRAMES_PER_SECOND)[texts.clips],
            batch.context[texts.clips],
        )

    def pretrained_features(self, batch: Batch) -> Tensor | None:
        """Return what the untrained decoder makes of the texts, or None where that is not used."""
        return None if self.head is None else self.read(batch)[1]

    def init_from_pretrained(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Start from a logistic regression of (rows,) labels on (rows, features)."""
        assert self.head is not None
        self.head.classifier.init_from_pretrained(features, labels)

    def _hidden(self, batch: Batch) -> Tensor:
        assert batch.texts is not None
        frames = self.encode(batch)
        return self.decoder(batch.texts.tokens, frames, batch.texts.clips)

    def _own_logits(self, batch: Batch) -> Tensor:
        """Return the mean over a text's tokens of each token's logit in its own place, (texts,)."""
        assert batch.texts is not None
        texts = batch.texts
        targets = texts.tokens[:, texts.n_prompt :]
        embedded = self.decoder.embed_tokens(targets)
        own = (self._hidden(batch)[:, texts.n_prompt :] * embedded).sum(-1).float()
        places = torch.arange(own.shape[1], device=own.device)
        of_text = places < texts.n_targets[:, None] - 1
        return (own * of_text).sum(1) / of_text.sum(1)


class AlignedScorer(Scorer):
    """Reference and learner through the same encoder, aligned frame to frame."""

    def __init__(self, recipe: Recipe, config: Mapping[str, Any]) -> None:
        super().__init__(recipe, config)
        self.head = AlignmentHead(
            self.encoder.shape.d_model, n_context=N_CONTEXT, hidden=ALIGNMENT_HIDDEN
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return (batch,) float32 logits."""
        return self.head(*self._frames(batch), batch.context)

    def pretrained_features(self, batch: Batch) -> Tensor | None:
        """Return what the untrained alignment tells, (batch, features)."""
        return self.head.features(*self._frames(batch), batch.context)

    def init_from_pretrained(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Start from a logistic regression of (rows,) labels on (rows, features)."""
        self.head.classifier.init_from_pretrained(features, labels)

    def trace(self, batch: Batch) -> list[Trace]:
        """Return how each learner of the batch follows its reference."""
        learner, reference, n_learner, n_reference = self._frames(batch)
        return [
            self.head.trace(learner[place, :heard], reference[place, :said])
            for place, (heard, said) in enumerate(
                zip(n_learner.tolist(), n_reference.tolist(), strict=True)
            )
        ]

    def _frames(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert batch.n_reference_frames is not None
        learner, reference = self.encode(batch).chunk(2)
        return learner, reference, batch.n_frames, batch.n_reference_frames


def frame_mask(frames: Tensor, n_frames: Tensor) -> Tensor:
    """Return which of (batch, frames, width) are of the recording, (batch, frames) bool."""
    return torch.arange(frames.shape[1], device=frames.device) < n_frames[:, None]


def build(
    recipe: Recipe,
    config: Mapping[str, Any],
    tokenizer: Path | None = None,
    embedder: TextEmbedder | None = None,
) -> Scorer:
    """Build a recipe's model for a backbone of the sizes in `config`, its weights at random.

    Raises HearbackError where the recipe needs the backbone's `tokenizer` or an `embedder` and it
    is not there.
    """
    if recipe.pair == "joined":
        return JoinedScorer(recipe, config)
    if recipe.pair == "aligned":
        return AlignedScorer(recipe, config)
    if recipe.pair in WITH_TEXT_EMBEDDING:
        if embedder is None:
            raise HearbackError(f"{recipe.name} takes texts as vectors: it needs a text embedder")
        return EmbeddingScorer(recipe, config, embedder)
    if recipe.pair != "tokens":
        return EmbeddingScorer(recipe, config)
    if tokenizer is None:
        raise HearbackError(f"{recipe.name} reads texts: it needs its backbone's tokenizer.json")
    return TokenScorer(recipe, config, TextReader(tokenizer))
