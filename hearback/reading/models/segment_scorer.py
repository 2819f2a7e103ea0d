"""The model that scores the frames of each phone of the expected text."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hearback.engine.errors import HearbackError
from hearback.engine.phones.ctc import PhoneCTC, PhoneCTCConfig
from hearback.engine.phones.tokenizer import PhoneTokenizer
from hearback.engine.whisper.backbone import Part
from hearback.engine.whisper.encoder import SAMPLES_PER_FRAME, EncoderConfig
from hearback.reading.models.base import WhisperScorer
from hearback.reading.models.evidence import WordScores
from hearback.reading.models.evidence_scorer import EvidenceScorer
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


class SegmentScorer(EvidenceScorer, WhisperScorer):
    """Scores each phone of the expected text by the encoder frames of its segment.

    A frozen recogniser of phones finds the segments and has evidence of its own (`PhoneEvidence`);
    a frozen encoder, cut at `recipe.encoder_layers`, hears what is in them. Only the head learns.
    """

    parts = encoding_parts = ("encoder", "recogniser")
    head: SegmentHead

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
        self._set_texts(recipe, text_tokenizer)
        self.recogniser = PhoneCTC(PhoneCTCConfig.from_config(config["recogniser"]))
        self.encoder.requires_grad_(False)
        self.recogniser.requires_grad_(False)
        width, n_tokens = 3 * sizes.d_model, self.recogniser.config.n_tokens
        self.head = SegmentHead(width, n_tokens, self.n_context, recipe.dropout)

    def backbone_config(self) -> dict[str, Any]:
        """Return the sizes of encoder and recogniser."""
        return {**super().backbone_config(), "recogniser": self.recogniser.config.as_dict()}

    def load_pretrained(self, tensors: Mapping[Part, Mapping[str, Tensor]]) -> None:
        """Load encoder and recogniser."""
        super().load_pretrained(tensors)
        recogniser = {name: tensor.float() for name, tensor in tensors["recogniser"].items()}
        self.recogniser.load_state_dict(recogniser)

    def words_loss(self, scores: WordScores, evidence: PhoneEvidence, texts: TextBatch) -> Tensor:
        """Return the log loss of the words of all texts and of the classifier of phones, ()."""
        words = super().words_loss(scores, evidence, texts)
        with torch.autocast(words.device.type, enabled=False):
            return words + PHONE_CLASS_LOSS * self._class_losses(evidence, texts)

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
            edits = self.edits(recognition, texts)
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
