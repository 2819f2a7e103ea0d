"""Score words and texts from a decoder's token log-probabilities and hidden states."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine.whisper.heads import LogisticInitLinear
from hearback.reading.window_batches import UNKNOWN, DecoderOutput, TextBatch

CORRECTION_WIDTH = 256
CORRECTION_SCALE = 4.0  # nats per unit of the correction network's output
SHARP, SOFT = 0.3, 1.0  # nats: temperatures of the soft minima
LARGEST_LOGIT = 15.0
FEATURES = (
    "mean log-probability",
    "mean evidence",
    "soft minimum of the evidence",
    "sharp minimum of the evidence",
    "misses",
    "mean evidence that nothing is missing",
    "sharp minimum of the evidence that nothing is missing",
    "end's log-probability",
    "end's evidence",
    "log-odds that every word was said",
    "log tokens",
    "log seconds per token",
)


@dataclass(frozen=True)
class TokenScores:
    """Scores of texts given recordings.

    Attributes:
        logits: (texts,) that the learner said the whole text.
        said: (texts, max words) log-probabilities that each word was said; 0 in the padding.
        complete: (texts, max words + 1) log-probabilities that no word is missing before this word
            (last entry of a text: at its end); 0 in the padding.
    """

    logits: Tensor
    said: Tensor
    complete: Tensor


class TokenHead(nn.Module):
    """Scores words and texts from decoder outputs, with a learned correction.

    The evidence for a token is its log-probability minus that of the most likely token at its
    position, in nats: 0 if the decoder would have chosen it, negative otherwise. A small network on
    the hidden states before and after the token adds a correction to the evidence, zero at
    initialisation; it has two outputs: that the word was said, and that no word is missing before
    it. A word was said if all of its tokens were. `FEATURES` of the evidence are the inputs of a
    linear layer that is initialised as a logistic regression.
    """

    def __init__(self, width: int, n_context: int, dropout: float) -> None:
        super().__init__()
        self.norm_before = nn.LayerNorm(width)
        self.norm_after = nn.LayerNorm(width)
        self.correction = nn.Sequential(
            nn.Linear(2 * width, CORRECTION_WIDTH),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(CORRECTION_WIDTH, 2),
        )
        last = self.correction[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        # Evidence to log-odds, for word and completeness. The offset is positive: a token with zero
        # evidence counts as said (2 fits speechocean762 well enough as an initial value).
        self.slope = nn.Parameter(torch.ones(2))
        self.offset = nn.Parameter(torch.full((2,), 2.0))
        self.classifier = LogisticInitLinear(len(FEATURES) + n_context)

    def forward(
        self, output: DecoderOutput, texts: TextBatch, seconds: Tensor, context: Tensor
    ) -> tuple[TokenScores, Tensor]:
        """Score texts.

        Args:
            output: the decoder's output for `texts`.
            texts: the texts, tokenized.
            seconds: (texts,), length of each text's recording.
            context: (texts, n_context).

        Returns:
            The scores, and the classifier's features, (texts, len(FEATURES) + n_context).
        """
        log_probs = output.log_probs
        evidence = (log_probs - output.best_log_probs)[..., None] + self._correct(output, texts)

        positions = torch.arange(texts.word_ids.shape[1], device=log_probs.device)
        is_end = positions == texts.n_targets[:, None] - 1
        in_word = positions < texts.n_targets[:, None] - 1
        is_start = torch.ones_like(in_word)
        is_start[:, 1:] = texts.word_ids[:, 1:] != texts.word_ids[:, :-1]
        is_start &= in_word | is_end  # the end of text shows whether the last word is missing

        token_odds = self.slope * evidence + self.offset
        said = _sum_by_word(F.logsigmoid(token_odds[..., 0]), in_word, texts)[:, :-1]
        complete = _sum_by_word(F.logsigmoid(token_odds[..., 1]), is_start, texts)
        word_evidence, completeness = evidence.unbind(-1)
        n_tokens = in_word.sum(1)
        end = is_end.float()
        features = [
            _mean(log_probs, in_word),
            _mean(word_evidence, in_word),
            _soft_minimum(word_evidence, in_word, SOFT),
            _soft_minimum(word_evidence, in_word, SHARP),
            (F.softplus(-word_evidence).log1p() * in_word).sum(1) / n_tokens.sqrt(),
            _mean(completeness, is_start),
            _soft_minimum(completeness, is_start, SHARP),
            (log_probs * end).sum(1),
            (completeness * end).sum(1),
            log_odds(said.sum(1) + complete.sum(1)),
            n_tokens.log(),
            (seconds / n_tokens).log(),
        ]
        stacked = torch.cat([torch.stack(features, dim=1), context.float()], dim=1)
        return TokenScores(self.classifier(stacked), said, complete), stacked

    def _correct(self, output: DecoderOutput, texts: TextBatch) -> Tensor:
        """Return the learned correction of the evidence, (texts, targets, 2), in nats."""
        before = self.norm_before(output.hidden[:, texts.n_prompt - 1 : -1])
        after = self.norm_after(output.hidden[:, texts.n_prompt :])
        return CORRECTION_SCALE * self.correction(torch.cat([before, after], dim=-1)).float()

    def word_losses(self, scores: TokenScores, texts: TextBatch) -> Tensor:
        """Return the log loss of each text, summed over its known word targets, (texts,), nats."""
        losses = torch.zeros_like(scores.logits)
        for log_prob, target in ((scores.said, texts.said), (scores.complete, texts.complete)):
            log_complement = torch.log(-torch.expm1(log_prob.clamp(max=-1e-6)))
            loss = -torch.where(target > 0.5, log_prob, log_complement)
            losses = losses + (loss * (target != UNKNOWN)).sum(1)
        return losses


def _sum_by_word(values: Tensor, mask: Tensor, texts: TextBatch) -> Tensor:
    """Sum (texts, targets) by word where `mask`; the end of text counts as one more word."""
    sums = torch.zeros(*texts.complete.shape, device=values.device)
    return sums.scatter_add(1, texts.word_ids, values * mask)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(1) / mask.sum(1)


def _soft_minimum(values: Tensor, mask: Tensor, temperature: float) -> Tensor:
    weights = (-values / temperature).masked_fill(~mask, float("-inf")).softmax(1)
    return (weights * values).sum(1)


def log_odds(log_probability: Tensor) -> Tensor:
    """Convert log-probabilities to log-odds, clamped to ±`LARGEST_LOGIT`."""
    log_probability = log_probability.clamp(max=-1e-6)
    unbounded = log_probability - torch.log(-torch.expm1(log_probability))
    return unbounded.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
