"""The base class of the models that score the phones of the expected text."""

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from hearback.engine.phones.edits import EditRatios, edit_ratios
from hearback.engine.phones.tokenizer import PhoneTokenizer
from hearback.engine.whisper.encoder import FRAMES_PER_SECOND
from hearback.reading.models.base import N_CONTEXT, Scorer
from hearback.reading.models.evidence import (
    WordScores,
    phone_losses,
    word_losses,
    words_by_position,
)
from hearback.reading.models.phone_head import EvidenceHead, PhoneEvidence
from hearback.reading.models.recognition import Recognition
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import Batch, TextBatch


class EvidenceScorer(Scorer):
    """Scores texts by what a recogniser of phones hears of them: `evidence`, then the head.

    A recogniser's frame is as long as an encoder's, 20 ms.
    """

    text_tokenizer: PhoneTokenizer
    head: EvidenceHead
    alternatives: Tensor
    n_context: int

    def _set_texts(self, recipe: Recipe, text_tokenizer: PhoneTokenizer) -> None:
        """Set what the texts need; once, when the model is built."""
        self.text_tokenizer = text_tokenizer
        self.n_context = N_CONTEXT if recipe.uses_context else 0
        alternatives = torch.tensor(text_tokenizer.alternatives)
        self.register_buffer("alternatives", alternatives, persistent=False)

    @abstractmethod
    def evidence(self, batch: Batch) -> PhoneEvidence:
        """Return the evidence of all texts of the batch."""

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
        scores, _ = self.score_evidence(evidence, batch)
        words = self.words_loss(scores, evidence, batch.texts)
        logits, loss = self.losses_of_texts(scores.logits, words, batch)
        return logits, loss + self.recipe.phone_loss * phone_losses(scores, batch.texts).sum()

    def words_loss(self, scores: WordScores, evidence: PhoneEvidence, texts: TextBatch) -> Tensor:
        """Return the log loss of the words of all texts, (). A subclass may add terms to it."""
        return word_losses(scores, texts).sum()

    def pretrained_features(self, batch: Batch) -> Tensor | None:
        """Return the features of the head, (texts, features)."""
        return self.score_texts(batch)[1]

    def init_from_pretrained(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Initialise the classifier as a logistic regression of labels on (rows, features)."""
        self.head.classifier.init_from_pretrained(features, labels)

    def score_texts(self, batch: Batch) -> tuple[WordScores, Tensor]:
        """Return the scores of all texts of the batch, and the features of the head."""
        return self.score_evidence(self.evidence(batch), batch)

    def score_evidence(self, evidence: PhoneEvidence, batch: Batch) -> tuple[WordScores, Tensor]:
        """Return what `score_texts` does, of evidence that was computed before."""
        assert batch.texts is not None
        texts = batch.texts
        seconds = (batch.n_frames / FRAMES_PER_SECOND)[texts.clips]
        context = batch.context[texts.clips, : self.n_context]
        with torch.autocast(context.device.type, enabled=False):
            return self.head(evidence, texts, seconds, context)

    def edits(self, recognition: Recognition, texts: TextBatch) -> EditRatios:
        """Return the texts' probabilities, and those of all that differ by one phone.

        `recognition` is of each text's recording.
        """
        return edit_ratios(
            recognition.log_probs,
            recognition.n_frames,
            texts.tokens[:, :-1],
            texts.n_targets - 1,
            blank=self.text_tokenizer.blank,
            alternatives=self.alternatives,
        )
