"""The model that scores the phones of the expected text with a recogniser of phones."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hearback.engine.phones.ctc import SAMPLES_PER_FRAME, PhoneCTC, PhoneCTCConfig
from hearback.engine.phones.tokenizer import PhoneTokenizer
from hearback.engine.whisper.backbone import Part
from hearback.reading.models.evidence_scorer import EvidenceScorer
from hearback.reading.models.phone_head import PhoneEvidence, PhoneHead
from hearback.reading.models.recognition import (
    FRAMES_PER_TARGET,
    Recognition,
    frames_needed,
    without_boundaries,
)
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import Batch


class PhoneScorer(EvidenceScorer):
    """Scores the expected text's phones with a recogniser of phones, without an alignment.

    A phone's goodness compares the text's probability with that of all texts that differ from it
    by this phone (`engine.phones.edits`). All of it is trained, the recogniser too.
    """

    encoder: PhoneCTC

    def __init__(
        self, recipe: Recipe, config: Mapping[str, Any], text_tokenizer: PhoneTokenizer
    ) -> None:
        super().__init__(recipe)
        self._set_texts(recipe, text_tokenizer)
        sizes = PhoneCTCConfig.from_config({**config, "dropout": recipe.dropout})
        self.encoder = PhoneCTC(sizes)
        self.head = PhoneHead(sizes.width, sizes.n_tokens, self.n_context, recipe.dropout)

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

    def evidence(self, batch: Batch) -> PhoneEvidence:
        """Return what the recogniser hears of the texts."""
        assert batch.texts is not None
        texts = batch.texts
        # float32: differences of log-probabilities over a whole recording.
        with torch.autocast(batch.waveforms.device.type, enabled=False):
            recognition = self.recognise(batch).select(texts.clips)
            edits = self.edits(recognition, texts)
            return PhoneEvidence.of(edits, recognition, texts, self.alternatives)

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
        log_probs = without_boundaries(
            log_probs, self.text_tokenizer.blank, self.text_tokenizer.word_boundary
        )
        return Recognition(log_probs, hidden, n_frames)
