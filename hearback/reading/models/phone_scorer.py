"""The model that scores the phones of the expected text with a recogniser of phones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.phones.ctc import SAMPLES_PER_FRAME, PhoneCTC, PhoneCTCConfig
from hearback.engine.phones.edits import edit_ratios
from hearback.engine.phones.tokenizer import PhoneTokenizer
from hearback.engine.whisper.backbone import Part
from hearback.reading.models.base import N_CONTEXT, Scorer
from hearback.reading.models.evidence import (
    WordScores,
    phone_losses,
    word_losses,
    words_by_position,
)
from hearback.reading.models.phone_head import PhoneEvidence, PhoneHead
from hearback.reading.models.recognition import (
    FRAMES_PER_TARGET,
    Recognition,
    frames_needed,
    without_boundaries,
)
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import Batch


class PhoneScorer(Scorer):
    """Scores the expected text's phones with a recogniser of phones, without an alignment.

    A phone's goodness compares the text's probability with that of all texts that differ from it
    by this phone (`engine.phones.edits`). All of it is trained, the recogniser too.
    """

    encoder: PhoneCTC
    text_tokenizer: PhoneTokenizer
    alternatives: Tensor

    def __init__(
        self, recipe: Recipe, config: Mapping[str, Any], text_tokenizer: PhoneTokenizer
    ) -> None:
        super().__init__(recipe)
        self.text_tokenizer = text_tokenizer
        sizes = PhoneCTCConfig.from_config({**config, "dropout": recipe.dropout})
        self.encoder = PhoneCTC(sizes)
        self.n_context = N_CONTEXT if recipe.uses_context else 0
        self.head = PhoneHead(sizes.width, sizes.n_tokens, self.n_context, recipe.dropout)
        alternatives = torch.tensor(text_tokenizer.alternatives)
        self.register_buffer("alternatives", alternatives, persistent=False)
        self.blank, self.word_boundary = text_tokenizer.blank, text_tokenizer.word_boundary

    @property
    def encoder_sizes(self) -> PhoneCTCConfig:
        """The sizes of the recogniser."""
        return self.encoder.config

    def backbone_config(self) -> dict[str, Any]:
        """Return the recogniser's sizes."""
        return {**self.encoder.config.as_dict(), "dropout": 0.0}

    def load_pretrained(self, tensors: Mapping[Part, Mapping[str, Tensor]]) -> None:
        """Load the recogniser."""
        self.encoder.load_state_dict({k: v.float() for k, v in tensors["encoder"].items()})

    def forward(self, batch: Batch) -> Tensor:
        """Return (batch,) float32 logits."""
        return self.score_texts(batch)[0].logits[: len(batch)]

    def forward_with_words(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return (batch,) logits and the word scores."""
        assert batch.texts is not None
        scores, _ = self.score_texts(batch)
        words = words_by_position(scores, batch.texts)
        return scores.logits[: len(batch)], words[: len(batch)]

    def training_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (batch,) logits for the log loss, and the losses of texts, words and phones."""
        assert batch.texts is not None
        scores, _ = self.score_texts(batch)
        words = word_losses(scores, batch.texts).sum()
        logits, loss = self.losses_of_texts(scores.logits, words, batch)
        return logits, loss + self.recipe.phone_loss * phone_losses(scores, batch.texts).sum()

    def pretrained_features(self, batch: Batch) -> Tensor | None:
        """Return the features of `PhoneHead`, (texts, features)."""
        return self.score_texts(batch)[1]

    def init_from_pretrained(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Initialise the classifier as a logistic regression of labels on (rows, features)."""
        self.head.classifier.init_from_pretrained(features, labels)

    def score_texts(self, batch: Batch) -> tuple[WordScores, Tensor]:
        """Return the scores of all texts of the batch, and the features of `PhoneHead`."""
        assert batch.texts is not None
        texts = batch.texts
        # float32: differences of log-probabilities over a whole recording.
        with torch.autocast(batch.waveforms.device.type, enabled=False):
            recognition = self.recognise(batch).select(texts.clips)
            edits = edit_ratios(
                recognition.log_probs,
                recognition.n_frames,
                texts.tokens[:, :-1],
                texts.n_targets - 1,
                blank=self.blank,
                alternatives=self.alternatives,
            )
            evidence = PhoneEvidence.of(edits, recognition, texts, self.alternatives)
            seconds = (batch.n_frames * SAMPLES_PER_FRAME / SAMPLE_RATE)[texts.clips]
            context = batch.context[texts.clips, : self.n_context]
            return self.head(evidence, texts, seconds, context)

    def recognise(self, batch: Batch) -> Recognition:
        """Return what the recogniser hears in the recordings.

        A recording that is too short for the phones of its texts is prolonged by silence.
        """
        assert batch.texts is not None
        waveforms = batch.waveforms.float()
        n_needed = torch.maximum(batch.n_frames, frames_needed(batch.texts, len(batch)))
        # What the longest text needs, known from a shape: no number is read from the device.
        longest = FRAMES_PER_TARGET * batch.texts.word_ids.shape[1]
        n_whole = max(longest, -(-waveforms.shape[1] // SAMPLES_PER_FRAME)) * SAMPLES_PER_FRAME
        waveforms = F.pad(waveforms, (0, n_whole - waveforms.shape[1]))
        hidden, n_frames = self.encoder.encode(waveforms, n_needed * SAMPLES_PER_FRAME)
        log_probs = self.encoder.project(hidden)
        log_probs = without_boundaries(log_probs, self.blank, self.word_boundary)
        return Recognition(log_probs, hidden, n_frames)
