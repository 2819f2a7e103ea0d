"""The base class of the models."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine.audio.log_mel import log_mel
from hearback.engine.errors import HearbackError
from hearback.engine.phones.ctc import PhoneCTCConfig
from hearback.engine.whisper.backbone import BackboneModel, Part
from hearback.engine.whisper.encoder import EncoderConfig, WhisperEncoder
from hearback.engine.whisper.tokenizer import WordTokenizer
from hearback.reading.models.text_embedder import TextEmbedder
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import Batch

N_CONTEXT = 2  # task, grade


class Scorer(BackboneModel, ABC):
    """Maps batches to logits that the learners said the texts.

    `WhisperScorer` is the base of those on Whisper's encoder.

    Models return logits, not probabilities: in half precision, the sigmoid of a large logit rounds
    to 0 or 1, and the log loss of a confident mistake would be infinite.

    Attributes:
        recipe: the model's recipe.
        text_tokenizer: tokenizer of the expected texts, if the model needs one.
        embedder: text embedder, if the model needs one.
        negative_bias: learned offset of the logits of sampled negatives, used in training only.
    """

    parts: ClassVar[tuple[Part, ...]] = ("encoder",)
    encoder: Any  # by subclass

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.text_tokenizer: WordTokenizer | None = None
        self.embedder: TextEmbedder | None = None
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

    def losses_of_texts(self, logits: Tensor, words: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the result of `training_step` of a model that scores all texts of the batch.

        The auxiliary loss is the log loss of the hard negatives and of the words, each multiplied
        by its weight in the recipe.

        Args:
            logits: (texts,), the expected texts of the clips first.
            words: (), the log loss of the words.
            batch: the batch.
        """
        hard_negatives = F.softplus(logits[len(batch) :] + self.negative_bias).sum()
        loss = self.recipe.hard_negative_weight * hard_negatives + self.recipe.word_loss * words
        return logits[: len(batch)] + self.negative_bias * batch.is_negative, loss

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

    @property
    @abstractmethod
    def encoder_sizes(self) -> EncoderConfig | PhoneCTCConfig:
        """The sizes of the encoder."""

    @abstractmethod
    def load_pretrained(self, tensors: Mapping[Part, Mapping[str, Tensor]]) -> None:
        """Load the backbone's weights; freeze the recipe's share of encoder layers."""

    @abstractmethod
    def backbone_config(self) -> dict[str, Any]:
        """Return the backbone's sizes, as JSON."""


class WhisperScorer(Scorer):
    """A scorer on Whisper's encoder.

    Args:
        recipe: the recipe.
        config: the backbone's sizes, as in Transformers' `config.json`.
    """

    # What `encode_recordings` computes with.
    encoding_parts: ClassVar[tuple[Part, ...]] = ("encoder",)
    encoder: WhisperEncoder

    def __init__(self, recipe: Recipe, config: Mapping[str, Any]) -> None:
        super().__init__(recipe)
        self.encoder = WhisperEncoder(EncoderConfig.from_config(config))

    @property
    def encoder_sizes(self) -> EncoderConfig:
        """The sizes of the encoder."""
        return self.encoder.config

    def load_pretrained(self, tensors: Mapping[Part, Mapping[str, Tensor]]) -> None:
        """Load the backbone's weights; freeze the recipe's share of encoder layers."""
        self.encoder.load_pretrained(tensors["encoder"])
        n_layers = self.encoder.config.encoder_layers
        self.encoder.freeze_below(round(self.recipe.frozen_share * n_layers))

    def backbone_config(self) -> dict[str, Any]:
        """Return the backbone's sizes under the names of a Transformers `config.json`."""
        return self.encoder.config.as_dict()

    def encode_recordings(self, waveforms: Tensor, n_samples: Tensor) -> Tensor:
        """Encode recordings: what is computed once where all of it is frozen.

        Args:
            waveforms: (recordings, samples) float32 at 16 kHz.
            n_samples: (recordings,), samples of each recording before its padding.

        Returns:
            (recordings, frames, width); `Batch.frames` of these recordings.
        """
        return self._encode_waveforms(waveforms)

    def encode(self, batch: Batch) -> Tensor:
        """Encode the batch's waveforms, or use `batch.frames` if present.

        Returns:
            (batch, frames, width) or, with separate references, (2 × batch, frames, width):
            learners first, then the reference of each.
        """
        frames = batch.frames
        if frames is None:
            frames = self._encode_waveforms(batch.encoder_waveforms)
        if batch.reference_index is None:
            return frames
        return torch.cat([frames[: len(batch)], frames[len(batch) :][batch.reference_index]])

    def _encode_waveforms(self, waveforms: Tensor) -> Tensor:
        """Return the encoder's output for (recordings, samples), (recordings, frames, width)."""
        return self.encoder(log_mel(waveforms, self.encoder.config.num_mel_bins))


def frame_mask(frames: Tensor, n_frames: Tensor) -> Tensor:
    """Return the (batch, frames) bool mask of frames before the padding of (batch, …) frames."""
    return torch.arange(frames.shape[1], device=frames.device) < n_frames[:, None]
