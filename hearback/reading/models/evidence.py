"""From evidence for the units of a text (tokens, phones) to scores of its words."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.reading.window_batches import UNKNOWN, TextBatch

SHARP, SOFT = 0.3, 1.0  # nats: temperatures of the soft minima
CORRECTION_SCALE = 4.0  # nats per unit of a correction network's output
LARGEST_LOGIT = 15.0


@dataclass(frozen=True)
class WordScores:
    """Scores of texts given recordings.

    Attributes:
        logits: (texts,) that the learner said the whole text.
        said: (texts, max words) log-probabilities that each word was said; 0 in the padding.
        complete: (texts, max words + 1) log-probabilities that no word is missing before this word
            (last entry of a text: at its end); 0 in the padding.
        phones: (texts, targets) log-odds that each phone was said, of a model that hears phones.
    """

    logits: Tensor
    said: Tensor
    complete: Tensor
    phones: Tensor | None = None


@dataclass(frozen=True)
class TextMasks:
    """Which targets of a batch's texts are what, (texts, targets) bool each.

    Attributes:
        in_word: units of words.
        is_start: the first unit of each word, and the end of the text.
        is_end: the end of the text.
    """

    in_word: Tensor
    is_start: Tensor
    is_end: Tensor

    @classmethod
    def of(cls, texts: TextBatch) -> "TextMasks":
        """Return the masks of some texts."""
        positions = torch.arange(texts.word_ids.shape[1], device=texts.word_ids.device)
        is_end = positions == texts.n_targets[:, None] - 1
        in_word = positions < texts.n_targets[:, None] - 1
        is_start = torch.ones_like(in_word)
        is_start[:, 1:] = texts.word_ids[:, 1:] != texts.word_ids[:, :-1]
        # The end of text shows whether the last word is missing.
        return cls(in_word, is_start & (in_word | is_end), is_end)


def make_correction(n_inputs: int, hidden: int, dropout: float) -> nn.Sequential:
    """Return a network from (…, n_inputs) to two corrections of the evidence, zero at the start."""
    layers = (nn.Linear(n_inputs, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, 2))
    for parameter in layers[-1].parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(*layers)


def word_losses(scores: WordScores, texts: TextBatch) -> Tensor:
    """Return the log loss of each text, summed over its known word targets, (texts,), nats.

    A target may be any probability.
    """
    losses = torch.zeros_like(scores.logits)
    for log_prob, target in ((scores.said, texts.said), (scores.complete, texts.complete)):
        log_complement = torch.log(-torch.expm1(log_prob.clamp(max=-1e-6)))
        loss = -(target * log_prob + (1 - target) * log_complement)
        losses = losses + (loss * (target != UNKNOWN)).sum(1)
    return losses


def phone_losses(scores: WordScores, texts: TextBatch) -> Tensor:
    """Return the log loss of each text, summed over its known phone targets, (texts,), nats."""
    if scores.phones is None or texts.phones is None:
        return torch.zeros_like(scores.logits)
    is_known = texts.phones != UNKNOWN
    targets = texts.phones.clamp(min=0)
    losses = F.binary_cross_entropy_with_logits(scores.phones, targets, reduction="none")
    return (losses * is_known).sum(1)


def sum_by_word(values: Tensor, mask: Tensor, texts: TextBatch) -> Tensor:
    """Sum (texts, targets) by word where `mask`; the end of text counts as one more word."""
    sums = torch.zeros(*texts.complete.shape, device=values.device)
    return sums.scatter_add(1, texts.word_ids, values * mask)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of (texts, targets) where `mask`, (texts,)."""
    return (values * mask).sum(1) / mask.sum(1)


def soft_minimum(values: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Return the mean of (texts, targets) where `mask`, weighted by softmax(-values), (texts,)."""
    weights = (-values / temperature).masked_fill(~mask, float("-inf")).softmax(1)
    return (weights * values).sum(1)


def log_odds(log_probability: Tensor) -> Tensor:
    """Convert log-probabilities to log-odds, clamped to ±`LARGEST_LOGIT`."""
    log_probability = log_probability.clamp(max=-1e-6)
    unbounded = log_probability - torch.log(-torch.expm1(log_probability))
    return unbounded.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)


def words_by_position(scores: WordScores, texts: TextBatch) -> Tensor:
    """Return log-odds of words in the layout of `hearback.reading.words`; NaN in the padding.

    (texts, max words + 1, 2).
    """
    said = torch.nn.functional.pad(scores.said, (0, 1))
    log_probs = torch.stack([said, scores.complete], dim=-1)
    n_words = texts.n_words[:, None]
    positions = torch.arange(log_probs.shape[1], device=n_words.device)
    padding = torch.stack([positions >= n_words, positions > n_words], dim=-1)
    return log_odds(log_probs).masked_fill(padding, float("nan"))
