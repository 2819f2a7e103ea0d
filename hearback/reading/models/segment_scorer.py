"""The model that scores the frames of each phone of the expected text."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hearback.engine.errors import HearbackError
from hearback.engine.phones.ctc import PhoneCTC, PhoneCTCConfig
from hearback.engine.phones.edits import edit_ratios
from hearback.engine.phones.tokenizer import PhoneTokenizer
from hearback.engine.whisper.backbone import Part
from hearback.engine.whisper.encoder import (
    FRAMES_PER_SECOND,
    SAMPLES_PER_FRAME,
    EncoderConfig,
)
from hearback.reading.models.base import N_CONTEXT, WhisperScorer
from hearback.reading.models.evidence import (
    WordScores,
    phone_losses,
    word_losses,
    words_by_position,
)
from hearback.reading.models.phone_head import PhoneEvidence
from hearback.reading.models.recognition import (
    FRAMES_PER_TARGET,
    IMPOSSIBLE,
    Recognition,
    frames_needed,
    without_boundaries,
)
from hearback.reading.models.segment_head import SegmentHead, pool_segments
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import Batch, TextBatch

PHONE_CLASS_LOSS = 0.2  # weight of the classifier of phones, in the words' loss


class SegmentScorer(WhisperScorer):
    """Scores each phone of the expected text by the encoder frames of its segment.

    A frozen recogniser of phones finds the segments and has evidence of its own (`PhoneEvidence`);
    a frozen encoder, cut at `recipe.encoder_layers`, hears what is in them. Only the head learns.
    """

    parts = encoding_parts = ("encoder", "recogniser")
    text_tokenizer: PhoneTokenizer
    alternatives: Tensor

    def __init__(
        self, recipe: Recipe, config: Mapping[str, Any], text_tokenizer: PhoneTokenizer
    ) -> None:
        sizes = EncoderConfig.from_config(config)
        n_layers = recipe.encoder_layers or sizes.encoder_layers
        if n_layers > sizes.encoder_layers:
            raise HearbackError(
                f"{recipe.name} uses {n_layers} encoder layers, but {recipe.backbone} has "
                f"{sizes.encoder_layers}: choose fewer with --set encoder_layers=N"
            )
        super().__init__(recipe, {**config, "encoder_layers": n_layers})
        self.text_tokenizer = text_tokenizer
        self.recogniser = PhoneCTC(PhoneCTCConfig.from_config(config["recogniser"]))
        self.encoder.requires_grad_(False)
        self.recogniser.requires_grad_(False)
        self.n_context = N_CONTEXT if recipe.uses_context else 0
        width, n_tokens = 3 * sizes.d_model, self.recogniser.config.n_tokens
        self.head = SegmentHead(width, n_tokens, self.n_context, recipe.dropout)
        alternatives = torch.tensor(text_tokenizer.alternatives)
        self.register_buffer("alternatives", alternatives, persistent=False)

    def backbone_config(self) -> dict[str, Any]:
        """Return the sizes of encoder and recogniser."""
        return {**super().backbone_config(), "recogniser": self.recogniser.config.as_dict()}

    def load_pretrained(self, tensors: Mapping[Part, Mapping[str, Tensor]]) -> None:
        """Load encoder and recogniser."""
        super().load_pretrained(tensors)
        recogniser = {name: tensor.float() for name, tensor in tensors["recogniser"].items()}
        self.recogniser.load_state_dict(recogniser)

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
        evidence = self.evidence(batch)
        scores, _ = self._score(evidence, batch)
        words = word_losses(scores, batch.texts).sum()
        with torch.autocast(words.device.type, enabled=False):
            words = words + PHONE_CLASS_LOSS * self._class_losses(evidence, batch.texts)
        logits, loss = self.losses_of_texts(scores.logits, words, batch)
        return logits, loss + self.recipe.phone_loss * phone_losses(scores, batch.texts).sum()

    def pretrained_features(self, batch: Batch) -> Tensor | None:
        """Return the features of the head, (texts, features)."""
        return self.score_texts(batch)[1]

    def init_from_pretrained(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Initialise the classifier as a logistic regression of labels on (rows, features)."""
        self.head.classifier.init_from_pretrained(features, labels)

    def score_texts(self, batch: Batch) -> tuple[WordScores, Tensor]:
        """Return the scores of all texts of the batch, and the features of the head."""
        return self._score(self.evidence(batch), batch)

    def _score(self, evidence: PhoneEvidence, batch: Batch) -> tuple[WordScores, Tensor]:
        assert batch.texts is not None
        texts = batch.texts
        seconds = (batch.n_frames / FRAMES_PER_SECOND)[texts.clips]
        context = batch.context[texts.clips, : self.n_context]
        with torch.autocast(context.device.type, enabled=False):
            return self.head(evidence, texts, seconds, context)

    @torch.no_grad()
    def evidence(self, batch: Batch) -> PhoneEvidence:
        """Return what encoder and recogniser hear of the texts; nothing of it is trained."""
        if batch.evidence is not None:
            return batch.evidence
        assert batch.texts is not None
        texts = batch.texts
        recognition = self._recognise(batch).select(texts.clips)
        # float32: differences of log-probabilities over a whole recording.
        with torch.autocast(recognition.hidden.device.type, enabled=False):
            edits = edit_ratios(
                recognition.log_probs,
                recognition.n_frames,
                texts.tokens[:, :-1],
                texts.n_targets - 1,
                blank=self.text_tokenizer.blank,
                alternatives=self.alternatives,
            )
            frames = recognition.hidden.float()
            vectors = pool_segments(frames, edits.occupancy, texts.n_targets - 1)
            return PhoneEvidence.of(edits, recognition, texts, self.alternatives, vectors)

    def encode_recordings(self, waveforms: Tensor, n_samples: Tensor) -> Tensor:
        """Return the frames of encoder and recogniser, (recordings, frames, width + n_tokens)."""
        frames = super().encode_recordings(waveforms, n_samples)
        with torch.autocast(waveforms.device.type, enabled=False):
            log_probs, _ = self.recogniser(waveforms, n_samples)
        return torch.cat([frames.float(), log_probs[:, : frames.shape[1]]], dim=-1)

    def _recognise(self, batch: Batch) -> Recognition:
        """Return what the recogniser hears; its hidden states are the encoder's frames.

        A recording that is too short for the phones of its texts is prolonged by silence.
        """
        assert batch.texts is not None
        encoded = batch.frames
        if encoded is None:
            n_samples = batch.n_frames * SAMPLES_PER_FRAME
            encoded = self.encode_recordings(batch.waveforms, n_samples)
        frames, log_probs = encoded.split(
            [self.encoder.config.d_model, self.recogniser.config.n_tokens], dim=-1
        )
        blank = self.text_tokenizer.blank
        log_probs = without_boundaries(log_probs, blank, self.text_tokenizer.word_boundary)
        # What the longest text needs, known from a shape: no number is read from the device.
        longest = FRAMES_PER_TARGET * batch.texts.word_ids.shape[1]
        log_probs = F.pad(log_probs, (0, 0, 0, max(0, longest - log_probs.shape[1])))
        positions = torch.arange(log_probs.shape[1], device=log_probs.device)
        is_silent = (positions >= batch.n_frames[:, None])[..., None]
        is_blank = torch.arange(log_probs.shape[2], device=log_probs.device) == blank
        log_probs = torch.where(is_silent, torch.where(is_blank, 0.0, IMPOSSIBLE), log_probs)
        n_frames = torch.maximum(batch.n_frames, frames_needed(batch.texts, len(batch)))
        return Recognition(log_probs, frames, n_frames)

    def _class_losses(self, evidence: PhoneEvidence, texts: TextBatch) -> Tensor:
        """Return the log loss of the classifier of phones, over the phones of words that were said.

        Each counts with the share of experts who accept it, where that is known.
        """
        classes = self.head.phone_classes(self.head.hidden(evidence, texts))
        own = classes.gather(2, texts.tokens[..., None])[..., 0]
        said = F.pad(texts.said.clamp(min=0), (0, 1)).gather(1, texts.word_ids)
        if texts.phones is not None:
            said = torch.where(texts.phones >= 0, said * texts.phones, said)
        return -(own * said).sum()
