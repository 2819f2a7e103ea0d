"""Score words and texts from a decoder's token log-probabilities and hidden states."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine.data.batching import Tensors
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
from hearback.reading.window_batches import TextBatch

CORRECTION_WIDTH = 256
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
class DecoderOutput(Tensors):
    """A decoder's output for texts given recordings (teacher forcing).

    Attributes:
        hidden: (texts, tokens, width), last hidden states.
        log_probs: (texts, targets) float32, log-probability of each target.
        best_log_probs: (texts, targets) float32, that of the most likely token at its position.
    """

    hidden: Tensor
    log_probs: Tensor
    best_log_probs: Tensor


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
        self.correction = make_correction(2 * width, CORRECTION_WIDTH, dropout)
        # Evidence to log-odds, for word and completeness. The offset is positive: a token with zero
        # evidence counts as said (2 fits speechocean762 well enough as an initial value).
        self.slope = nn.Parameter(torch.ones(2))
        self.offset = nn.Parameter(torch.full((2,), 2.0))
        self.classifier = LogisticInitLinear(len(FEATURES) + n_context)

    def forward(
        self, output: DecoderOutput, texts: TextBatch, seconds: Tensor, context: Tensor
    ) -> tuple[WordScores, Tensor]:
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

        masks = TextMasks.of(texts)
        in_word, is_start = masks.in_word, masks.is_start
        token_odds = self.slope * evidence + self.offset
        said = sum_by_word(F.logsigmoid(token_odds[..., 0]), in_word, texts)[:, :-1]
        complete = sum_by_word(F.logsigmoid(token_odds[..., 1]), is_start, texts)
        word_evidence, completeness = evidence.unbind(-1)
        n_tokens = in_word.sum(1)
        end = masks.is_end.float()
        features = [
            masked_mean(log_probs, in_word),
            masked_mean(word_evidence, in_word),
            soft_minimum(word_evidence, in_word, SOFT),
            soft_minimum(word_evidence, in_word, SHARP),
            (F.softplus(-word_evidence).log1p() * in_word).sum(1) / n_tokens.sqrt(),
            masked_mean(completeness, is_start),
            soft_minimum(completeness, is_start, SHARP),
            (log_probs * end).sum(1),
            (completeness * end).sum(1),
            log_odds(said.sum(1) + complete.sum(1)),
            n_tokens.log(),
            (seconds / n_tokens).log(),
        ]
        stacked = torch.cat([torch.stack(features, dim=1), context.float()], dim=1)
        return WordScores(self.classifier(stacked), said, complete), stacked

    def _correct(self, output: DecoderOutput, texts: TextBatch) -> Tensor:
        """Return the learned correction of the evidence, (texts, targets, 2), in nats."""
        before = self.norm_before(output.hidden[:, texts.n_prompt - 1 : -1])
        after = self.norm_after(output.hidden[:, texts.n_prompt :])
        return CORRECTION_SCALE * self.correction(torch.cat([before, after], dim=-1)).float()
