"""The models: a class for each way to compare the learner with the expected text."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine.audio.log_mel import log_mel
from hearback.engine.errors import HearbackError
from hearback.engine.whisper import joint_decoding
from hearback.engine.whisper.backbone import BackboneModel, Part
from hearback.engine.whisper.decoder import DecoderConfig, WhisperDecoder
from hearback.engine.whisper.encoder import FRAMES_PER_SECOND, EncoderConfig, WhisperEncoder
from hearback.engine.whisper.heads import Head, Pooler, VectorClassifier, VectorCosine
from hearback.engine.whisper.low_rank import add_low_rank, load_frozen
from hearback.engine.whisper.token_logprobs import token_log_probs
from hearback.engine.whisper.tokenizer import TextTokenizer
from hearback.reading.models.alignment import AlignmentPath
from hearback.reading.models.alignment_head import AlignmentHead
from hearback.reading.models.text_embedder import TextEmbedder
from hearback.reading.models.token_head import TokenHead, TokenScores, log_odds
from hearback.reading.pairings import WITH_TEXT_EMBEDDING
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import Batch, DecoderOutput, TextBatch

N_CONTEXT = 2  # task, grade
ALIGNMENT_HIDDEN = 64  # width of the alignment head's correction network


class Scorer(BackboneModel, ABC):
    """Maps batches to logits that the learners said the texts.

    Models return logits, not probabilities: in half precision, the sigmoid of a large logit rounds
    to 0 or 1, and the log loss of a confident mistake would be infinite.

    Attributes:
        recipe: the model's recipe.
        text_tokenizer: tokenizer of the expected texts, if the model needs one.
        embedder: text embedder, if the model needs one.
        negative_bias: learned offset of the logits of sampled negatives, used in training only.
    """

    parts: ClassVar[tuple[Part, ...]] = ("encoder",)

    def __init__(self, recipe: Recipe, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.recipe = recipe
        self.text_tokenizer: TextTokenizer | None = None
        self.embedder: TextEmbedder | None = None
        self.encoder = WhisperEncoder(EncoderConfig.from_config(config))
        # Sampled negatives raise the share of incorrect texts in training. This bias absorbs the
        # shift, so that it does not lower the scores of real texts; inference does not apply it.
        self.negative_bias = nn.Parameter(torch.zeros(()))

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Return (batch,) float32 logits."""

    def forward_with_words(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return (batch,) logits and the word scores, or None if the model has no word scores.

        Word scores are log-odds, (batch, max words + 1, 2), in the layout of
        `hearback.reading.words`; NaN in the padding.
        """
        return self(batch), None

    def training_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (batch,) logits for the log loss, and a scalar auxiliary loss."""
        logits = self(batch) + self.negative_bias * batch.is_negative
        return logits, torch.zeros((), device=logits.device)

    def pretrained_features(self, batch: Batch) -> Tensor | None:
        """Return the features for `init_from_pretrained`, (batch, features), or None."""
        return None

    def init_from_pretrained(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Initialise the head from pretrained features.

        Args:
            features: (rows, features), from `pretrained_features`.
            labels: (rows,) of 0 and 1.
        """
        raise HearbackError(f"{self.recipe.name} has no pretrained features")

    def load_pretrained(self, tensors: Mapping[Part, Mapping[str, Tensor]]) -> None:
        """Load the backbone's weights; freeze the recipe's share of encoder layers."""
        self.encoder.load_pretrained(tensors["encoder"])
        n_layers = self.encoder.config.encoder_layers
        self.encoder.freeze_below(round(self.recipe.frozen_share * n_layers))

    def backbone_config(self) -> dict[str, int]:
        """Return the backbone's sizes under the names of a Transformers `config.json`."""
        return self.encoder.config.as_dict()

    def encode(self, batch: Batch) -> Tensor:
        """Encode the batch's waveforms, or use `batch.frames` if present.

        Returns:
            (batch, frames, width) or, with separate references, (2 × batch, frames, width):
            learners first, then the reference of each.
        """
        frames = batch.frames
        if frames is None:
            frames = self.encoder(
                log_mel(batch.encoder_waveforms, self.encoder.config.num_mel_bins)
            )
        if batch.reference_index is None:
            return frames
        return torch.cat([frames[: len(batch)], frames[len(batch) :][batch.reference_index]])


class JoinedScorer(Scorer):
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


class EmbeddingScorer(Scorer):
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


class TokenScorer(Scorer):
    """Scores the expected text's tokens with the decoder, given the encoded learner.

    `recipe.token_score`:
        likelihood: a `TokenHead` on each token's log-probability, predicted from the tokens before.
        own: the mean over the text of each token's own logit at its own position, as the
            competition's first place did.
    """

    parts = ("encoder", "decoder")

    def __init__(
        self, recipe: Recipe, config: Mapping[str, Any], text_tokenizer: TextTokenizer
    ) -> None:
        super().__init__(recipe, config)
        self.text_tokenizer = text_tokenizer
        self.decoder = WhisperDecoder(DecoderConfig.from_config(config))
        if recipe.adapter_rank:
            add_low_rank(self.decoder, recipe.adapter_layers, recipe.adapter_rank)
        self.n_context = N_CONTEXT if recipe.uses_context else 0
        self.head = (
            TokenHead(self.decoder.config.d_model, self.n_context, recipe.dropout)
            if recipe.token_score == "likelihood"
            else None
        )

    def backbone_config(self) -> dict[str, int]:
        """Return the backbone's sizes under the names of a Transformers `config.json`."""
        return self.encoder.config.as_dict() | self.decoder.config.as_dict()

    def load_pretrained(self, tensors: Mapping[Part, Mapping[str, Tensor]]) -> None:
        """Load encoder and decoder; freeze the recipe's share of encoder layers."""
        super().load_pretrained(tensors)
        load_frozen(self.decoder, tensors["decoder"])

    def forward(self, batch: Batch) -> Tensor:
        """Return (batch,) float32 logits."""
        if self.head is None:
            return self._own_logits(batch)[: len(batch)]
        return self.score_texts(batch)[0].logits[: len(batch)]

    def forward_with_words(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return (batch,) logits and, with a `TokenHead`, the word scores."""
        if self.head is None:
            return super().forward_with_words(batch)
        assert batch.texts is not None
        scores, _ = self.score_texts(batch)
        log_probs = torch.stack([F.pad(scores.said, (0, 1)), scores.complete], dim=-1)
        n_words = batch.texts.n_words[:, None]
        indices = torch.arange(log_probs.shape[1], device=n_words.device)
        padding = torch.stack([indices >= n_words, indices > n_words], dim=-1)
        words = log_odds(log_probs).masked_fill(padding, float("nan"))
        return scores.logits[: len(batch)], words[: len(batch)]

    def training_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (batch,) logits for the log loss, and a scalar auxiliary loss.

        The auxiliary loss is the log loss of the hard negatives and of the words, each multiplied
        by its weight in the recipe.
        """
        assert batch.texts is not None
        if self.head is None:
            logits = self._own_logits(batch)
            words = torch.zeros((), device=logits.device)
        else:
            scores, _ = self.score_texts(batch)
            logits = scores.logits
            words = self.head.word_losses(scores, batch.texts).sum()
        hard_negatives = F.softplus(logits[len(batch) :] + self.negative_bias).sum()
        loss = self.recipe.hard_negative_weight * hard_negatives + self.recipe.word_loss * words
        return logits[: len(batch)] + self.negative_bias * batch.is_negative, loss

    def score_texts(self, batch: Batch) -> tuple[TokenScores, Tensor]:
        """Return the scores of all texts of the batch, and the features of `TokenHead`."""
        assert batch.texts is not None and self.head is not None
        texts = batch.texts
        return self.head(
            batch.decoded or self.decode(batch),
            texts,
            (batch.n_frames / FRAMES_PER_SECOND)[texts.clips],
            batch.context[texts.clips, : self.n_context],
        )

    def decode(self, batch: Batch) -> DecoderOutput:
        """Return the decoder's output for the texts of the batch."""
        assert batch.texts is not None
        return score_tokens(self._hidden(batch), self.decoder, batch.texts)

    def pretrained_features(self, batch: Batch) -> Tensor | None:
        """Return the features of `TokenHead`, (texts, features), or None without a `TokenHead`."""
        return None if self.head is None else self.score_texts(batch)[1]

    def init_from_pretrained(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Initialise the classifier as a logistic regression of labels on (rows, features)."""
        assert self.head is not None
        self.head.classifier.init_from_pretrained(features, labels)

    def _hidden(self, batch: Batch) -> Tensor:
        assert batch.texts is not None
        frames = self.encode(batch)
        return self.decoder(batch.texts.tokens, frames, batch.texts.clips)

    def _own_logits(self, batch: Batch) -> Tensor:
        """Return the mean over each text's tokens of the token's logit at its position, (texts,).

        The end of text is not counted.
        """
        assert batch.texts is not None
        texts = batch.texts
        targets = texts.tokens[:, texts.n_prompt :]
        embedded = self.decoder.embed_tokens(targets)
        own = (self._hidden(batch)[:, texts.n_prompt :] * embedded).sum(-1).float()
        positions = torch.arange(own.shape[1], device=own.device)
        mask = positions < texts.n_targets[:, None] - 1
        return (own * mask).sum(1) / mask.sum(1)


def score_tokens(hidden: Tensor, decoder: WhisperDecoder, texts: TextBatch) -> DecoderOutput:
    """Return the log-probabilities of the texts' tokens, from the decoder's last hidden states.

    `hidden` is (texts, tokens, width); it may be of several decoders with the same embeddings, one
    after the other: (decoders × texts, tokens, width), and so is the result.
    """
    n_decoders = len(hidden) // len(texts.tokens)
    positions = torch.arange(texts.word_ids.shape[1], device=hidden.device)
    mask = (positions < texts.n_targets[:, None]).repeat(n_decoders, 1)
    # Skip the padding: the product with the vocabulary is the expensive step.
    log_probs, best_log_probs = token_log_probs(
        hidden[:, texts.n_prompt - 1 : -1][mask],
        decoder.embed_tokens.weight,
        texts.tokens[:, texts.n_prompt :].repeat(n_decoders, 1)[mask],
    )

    def pad(values: Tensor) -> Tensor:
        return torch.zeros(mask.shape, device=values.device).masked_scatter(mask, values)

    return DecoderOutput(hidden, pad(log_probs), pad(best_log_probs))


def decode_jointly(models: Sequence["TokenScorer"], batch: Batch) -> list[DecoderOutput]:
    """Return the decoder's output of each model: see `joint_decoding.decode_jointly`.

    `batch.frames` are from the encoder that the models share.
    """
    assert batch.texts is not None and batch.frames is not None
    decoders = [model.decoder for model in models]
    tokens, clips = batch.texts.tokens, batch.texts.clips
    hidden = joint_decoding.decode_jointly(decoders, tokens, batch.frames, clips)
    output = score_tokens(hidden.flatten(0, 1), decoders[0], batch.texts)
    parts = (output.hidden, output.log_probs, output.best_log_probs)
    return [
        DecoderOutput(*of_model)
        for of_model in zip(*(part.chunk(len(models)) for part in parts), strict=True)
    ]


class AlignedScorer(Scorer):
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
        learner, reference, n_learner, n_reference = self._frames(batch)
        return [
            self.head.alignment_path(learner[i, :n_frames], reference[i, :n_reference_frames])
            for i, (n_frames, n_reference_frames) in enumerate(
                zip(n_learner.tolist(), n_reference.tolist(), strict=True)
            )
        ]

    def _frames(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert batch.n_reference_frames is not None
        learner, reference = self.encode(batch).chunk(2)
        return learner, reference, batch.n_frames, batch.n_reference_frames


def frame_mask(frames: Tensor, n_frames: Tensor) -> Tensor:
    """Return the (batch, frames) bool mask of frames before the padding of (batch, …) frames."""
    return torch.arange(frames.shape[1], device=frames.device) < n_frames[:, None]


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
        tokenizer: the backbone's tokenizer.json; required for token scorers.
        embedder: required for the pairings in `WITH_TEXT_EMBEDDING`.

    Raises:
        HearbackError: the recipe needs a tokenizer or an embedder that is not given.
    """
    kind = model_class(recipe)
    if kind is EmbeddingScorer:
        if recipe.pair in WITH_TEXT_EMBEDDING and embedder is None:
            raise HearbackError(f"{recipe.name} compares text embeddings: it needs a text embedder")
        return EmbeddingScorer(recipe, config, embedder)
    if kind is TokenScorer:
        if tokenizer is None:
            raise HearbackError(
                f"{recipe.name} scores tokens: it needs its backbone's tokenizer.json"
            )
        return TokenScorer(recipe, config, TextTokenizer(tokenizer))
    return kind(recipe, config)


def model_class(recipe: Recipe) -> type[Scorer]:
    """Return the class of a recipe's model."""
    classes: dict[str, type[Scorer]] = {
        "joined": JoinedScorer,
        "aligned": AlignedScorer,
        "tokens": TokenScorer,
    }
    return classes.get(recipe.pair, EmbeddingScorer)
