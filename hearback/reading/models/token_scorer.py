"""The model that scores the tokens of the expected text with the decoder."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hearback.engine.whisper import joint_decoding
from hearback.engine.whisper.backbone import Part
from hearback.engine.whisper.decoder import DecoderConfig, WhisperDecoder
from hearback.engine.whisper.encoder import FRAMES_PER_SECOND
from hearback.engine.whisper.joint_logprobs import joint_token_log_probs
from hearback.engine.whisper.low_rank import add_low_rank, load_frozen
from hearback.engine.whisper.tokenizer import TextTokenizer
from hearback.reading.models.base import N_CONTEXT, WhisperScorer
from hearback.reading.models.evidence import WordScores, word_losses, words_by_position
from hearback.reading.models.token_head import DecoderOutput, TokenHead
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import Batch, TextBatch


class TokenScorer(WhisperScorer):
    """Scores the expected text's tokens with the decoder, given the encoded learner.

    `recipe.token_score`:
        likelihood: a `TokenHead` on each token's log-probability, predicted from the tokens before.
        own: the mean over the text of each token's logit at the position where it is the input,
            not where it is predicted, as the competition's first place did.
    """

    parts = ("encoder", "decoder")
    text_tokenizer: TextTokenizer

    def __init__(
        self, recipe: Recipe, config: Mapping[str, Any], text_tokenizer: TextTokenizer
    ) -> None:
        super().__init__(recipe, config)
        self.text_tokenizer = text_tokenizer
        self.decoder = WhisperDecoder(DecoderConfig.from_config(config))
        if recipe.adapter_rank:
            self._add_updates(recipe)
        self.n_context = N_CONTEXT if recipe.uses_context else 0
        self.head = (
            TokenHead(self.decoder.config.d_model, self.n_context, recipe.dropout)
            if recipe.token_score == "likelihood"
            else None
        )

    def _add_updates(self, recipe: Recipe) -> None:
        """Freeze the decoder; give the recipe's share of its layers, from the top, updates."""
        self.decoder.requires_grad_(False)
        layers = self.decoder.layers
        n_adapted = max(1, round(recipe.adapted_share * len(layers)))
        for layer in layers[len(layers) - n_adapted :]:
            add_low_rank(layer, recipe.adapter_layers, recipe.adapter_rank)

    def backbone_config(self) -> dict[str, Any]:
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
        words = words_by_position(scores, batch.texts)
        return scores.logits[: len(batch)], words[: len(batch)]

    def training_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (batch,) logits for the log loss, and the `losses_of_texts`."""
        assert batch.texts is not None
        if self.head is None:
            logits = self._own_logits(batch)
            return self.losses_of_texts(logits, torch.zeros((), device=logits.device), batch)
        scores, _ = self.score_texts(batch)
        words = word_losses(scores, batch.texts).sum()
        return self.losses_of_texts(scores.logits, words, batch)

    def score_texts(self, batch: Batch) -> tuple[WordScores, Tensor]:
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
        """Return the mean of the tokens' logits at their own positions, (texts,); see the class.

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
    text, position = texts.targets
    by_decoder = hidden.unflatten(0, (-1, len(texts.tokens)))
    # Skip the padding: the product with the vocabulary is the expensive step.
    log_probs, best_log_probs = joint_token_log_probs(
        by_decoder[:, :, texts.n_prompt - 1 : -1][:, text, position],
        decoder.embed_tokens.weight,
        texts.tokens[:, texts.n_prompt :][text, position],
    )

    def pad(values: Tensor) -> Tensor:
        shape = (len(values), *texts.word_ids.shape)
        padded = torch.zeros(shape, device=values.device)
        padded[:, text, position] = values
        return padded.flatten(0, 1)

    return DecoderOutput(hidden, pad(log_probs), pad(best_log_probs))


def decode_jointly(models: Sequence[TokenScorer], batch: Batch) -> list[DecoderOutput]:
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
