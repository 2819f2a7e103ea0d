"""Score words and texts by how well a recogniser of phones hears each phone."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine.phones.edits import EditRatios
from hearback.engine.whisper.heads import LogisticInitLinear
from hearback.reading.models.evidence import (
    CORRECTION_SCALE,
    SHARP,
    SOFT,
    TextMasks,
    WordScores,
    log_odds,
    make_correction,
    masked_mean,
    soft_minimum,
    sum_by_word,
)
from hearback.reading.models.recognition import Recognition
from hearback.reading.window_batches import TextBatch

CORRECTION_WIDTH = 128
PHONE_WIDTH = 32  # of the vector of each phone, an input of the correction
NATS = 5.0  # scale of evidence where it is an input of the correction
FEATURES = (
    "log-likelihood ratio to the best path, per phone",
    "log-likelihood ratio to the best path, per frame",
    "mean goodness",
    "mean corrected goodness",
    "soft minimum of the corrected goodness",
    "sharp minimum of the corrected goodness",
    "misses",
    "mean evidence that nothing is missing",
    "sharp minimum of the evidence that nothing is missing",
    "mean gap to the best phone",
    "soft minimum of the gap to the best phone",
    "log-odds that every word was said",
    "log phones",
    "log seconds per phone",
)
# Odds of edits are clamped to these before their logarithm, far beyond any real text's.
_SMALLEST, _LARGEST = 1e-12, 1e25
_UNREACHED = 1e7  # odds of an edit of a phone that was certainly not said: what SMOOTHING allows


@dataclass(frozen=True)
class PhoneEvidence:
    """What a recogniser hears of texts. The targets are the phones and the end of the text.

    Attributes:
        goodness: (texts, targets), nats: log-probability of the text minus that of all texts in
            which this phone is another one, is missing, or has one more before it in its word; 0
            at the end.
        nothing_inserted: (texts, targets), nats: log-probability of the text minus that of all
            texts with one more phone before this one (at the end: after the last).
        gap: (texts, targets), nats, at most 0: mean log-probability of the phone minus that of the
            best one, over the frames of the phone.
        log_frames: (texts, targets), logarithm of the number of frames of the phone.
        hidden: (texts, targets, width), mean hidden state over the frames of the phone.
        ratio: (texts,), nats: log-probability of the text, all of its alignments together, minus
            that of the best path.
        n_frames: (texts,).
    """

    goodness: Tensor
    nothing_inserted: Tensor
    gap: Tensor
    log_frames: Tensor
    hidden: Tensor
    ratio: Tensor
    n_frames: Tensor

    @classmethod
    def of(
        cls,
        edits: EditRatios,
        recognition: Recognition,
        texts: TextBatch,
        alternatives: Tensor,
        hidden: Tensor | None = None,
    ) -> "PhoneEvidence":
        """Return the evidence for `texts`.

        Args:
            edits: of the texts' phones, without their ends.
            recognition: of each text's recording.
            texts: the texts.
            alternatives: (alternatives,), tokens of `edits`.
            hidden: (texts, phones, width), vectors in place of the recogniser's hidden states.
        """
        log_probs = recognition.log_probs
        n_frames = recognition.n_frames
        phones = texts.tokens[:, :-1]
        masks = TextMasks.of(texts)
        is_start = masks.is_start[:, :-1]
        inserted = edits.inserted.sum(-1)
        others = edits.substituted.masked_fill(phones[:, :, None] == alternatives, 0.0).sum(-1)
        # An insertion before a word is another word; within a word it is an error of this one.
        wrong = others + edits.deleted + inserted[:, :-1].masked_fill(is_start, 0.0)
        is_unreached = masks.in_word[:, :-1] & ~edits.is_reached
        wrong = wrong.masked_fill(is_unreached, _UNREACHED)
        inserted = inserted.masked_fill(F.pad(is_unreached, (0, 1)), _UNREACHED)
        frames_of = edits.occupancy.float()
        shares = frames_of / frames_of.sum(1, keepdim=True).clamp(min=1e-6)
        best = log_probs.amax(-1)
        of_phone = log_probs.gather(2, phones[:, None].expand(-1, log_probs.shape[1], -1))
        if hidden is None:
            hidden = shares.transpose(1, 2) @ recognition.hidden.float()
        within = torch.arange(log_probs.shape[1], device=n_frames.device) < n_frames[:, None]
        return cls(
            goodness=F.pad(_log_ratio(wrong), (0, 1)),
            nothing_inserted=_log_ratio(inserted),
            gap=F.pad((shares * (of_phone - best[..., None])).sum(1), (0, 1)),
            log_frames=F.pad(frames_of.sum(1).clamp(min=1e-3).log(), (0, 1)),
            hidden=F.pad(hidden, (0, 0, 0, 1)),
            ratio=edits.log_prob.float() - (best * within).sum(1),
            n_frames=n_frames,
        )


class EvidenceHead(nn.Module, ABC):
    """Scores words and texts from a recogniser's evidence, with a learned correction.

    A word was said if all of its phones were; no word is missing before it if nothing is inserted
    there. A network of the subclass adds a correction to the evidence, zero at initialisation.
    `FEATURES` of the evidence are the inputs of a linear layer that is initialised as a logistic
    regression.
    """

    def __init__(self, n_context: int) -> None:
        super().__init__()
        # Evidence to log-odds, for word and completeness, fitted to words of speechocean762. From
        # other values the words' loss would first teach the correction their base rate.
        self.slope = nn.Parameter(torch.tensor([0.36, 1.2]))
        self.offset = nn.Parameter(torch.tensor([3.8, 7.8]))
        self.classifier = LogisticInitLinear(len(FEATURES) + n_context)

    def forward(
        self, evidence: PhoneEvidence, texts: TextBatch, seconds: Tensor, context: Tensor
    ) -> tuple[WordScores, Tensor]:
        """Score texts.

        Args:
            evidence: the evidence for `texts`.
            texts: the texts; their tokens are phones.
            seconds: (texts,), length of each text's recording.
            context: (texts, n_context).

        Returns:
            The scores, and the classifier's features, (texts, len(FEATURES) + n_context).
        """
        masks = TextMasks.of(texts)
        in_word, is_start = masks.in_word, masks.is_start
        of_phone, of_gap = self._correct(evidence, texts).unbind(-1)
        goodness = evidence.goodness + of_phone
        nothing_inserted = evidence.nothing_inserted + of_gap
        said_odds = self.slope[0] * goodness + self.offset[0]
        complete_odds = self.slope[1] * nothing_inserted + self.offset[1]
        said = sum_by_word(F.logsigmoid(said_odds), in_word, texts)[:, :-1]
        complete = sum_by_word(F.logsigmoid(complete_odds), is_start, texts)
        n_phones = in_word.sum(1)
        features = [
            evidence.ratio / n_phones,
            evidence.ratio / evidence.n_frames,
            masked_mean(evidence.goodness, in_word),
            masked_mean(goodness, in_word),
            soft_minimum(goodness, in_word, SOFT),
            soft_minimum(goodness, in_word, SHARP),
            (F.softplus(-goodness).log1p() * in_word).sum(1) / n_phones.sqrt(),
            masked_mean(nothing_inserted, is_start),
            soft_minimum(nothing_inserted, is_start, SHARP),
            masked_mean(evidence.gap, in_word),
            soft_minimum(evidence.gap, in_word, SOFT),
            log_odds(said.sum(1) + complete.sum(1)),
            n_phones.log(),
            (seconds / n_phones).log(),
        ]
        stacked = torch.cat([torch.stack(features, dim=1), context.float()], dim=1)
        return WordScores(self.classifier(stacked), said, complete, said_odds), stacked

    @abstractmethod
    def _correct(self, evidence: PhoneEvidence, texts: TextBatch) -> Tensor:
        """Return the learned correction of the evidence, (texts, targets, 2), in nats."""


class PhoneHead(EvidenceHead):
    """An `EvidenceHead` that corrects by the phone, the recogniser's hidden states and evidence."""

    def __init__(self, width: int, n_tokens: int, n_context: int, dropout: float) -> None:
        super().__init__(n_context)
        self.norm = nn.LayerNorm(width)
        self.phones = nn.Embedding(n_tokens, PHONE_WIDTH)
        self.correction = make_correction(width + PHONE_WIDTH + 4, CORRECTION_WIDTH, dropout)

    def _correct(self, evidence: PhoneEvidence, texts: TextBatch) -> Tensor:
        values = [
            (evidence.goodness / NATS).tanh(),
            (evidence.nothing_inserted / NATS).tanh(),
            (evidence.gap / NATS).tanh(),
            evidence.log_frames / 2,
        ]
        inputs = [self.norm(evidence.hidden), self.phones(texts.tokens), torch.stack(values, -1)]
        return CORRECTION_SCALE * self.correction(torch.cat(inputs, dim=-1)).float()


def _log_ratio(odds: Tensor) -> Tensor:
    """Return minus the logarithm of float64 odds, float32."""
    return -odds.clamp(_SMALLEST, _LARGEST).log().float()
