"""From what a decoder makes of a text to scores of its words and of the whole."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine.whisper.heads import LogisticInitLinear
from hearback.reading.window_batches import UNKNOWN, TextBatch

CORRECTION_WIDTH = 256
NATS = 4.0  # scale of the learned correction, so that it moves as fast as it can be needed
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
    "log seconds a token",
)


@dataclass(frozen=True)
class TokenScores:
    """Scores of texts read against recordings.

    `logits` (texts,) are those of the whole texts; `said` (texts, most words) and `complete`
    (texts, most words + 1) are log-probabilities that a word was said, and that nothing is missing
    before it or at the end; 0 where a text has no such word.
    """

    logits: Tensor
    said: Tensor
    complete: Tensor


@dataclass(frozen=True)
class TokenEvidence:
    """What a decoder makes of texts that it reads against recordings.

    `hidden` (texts, tokens, width) is its last layer; `log_probabilities` and `best` (texts,
    targets) float32 are those of each target and of the likeliest token in its place.
    """

    hidden: Tensor
    log_probabilities: Tensor
    best: Tensor


class TokenHead(nn.Module):
    """Scores texts by what a pretrained decoder already knows, and by a correction to it.

    The decoder gives each token a probability from the recording and the tokens before it. The
    evidence for a token is its log-probability less that of the likeliest token, in nats: 0 where
    the decoder would have said it too. A small network that sees the decoder's state before and
    after the token adds to the evidence, at first nothing; it has two outputs, for the word and for
    nothing missing before it. A word was said if all of its tokens were. `FEATURES` of the evidence
    go to a linear layer that starts as a logistic regression.
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
        # Evidence to log-odds, for word and completeness: with no evidence against it, a token is
        # taken for said (untrained, 2 fits speechocean762 well enough to start from).
        self.slope = nn.Parameter(torch.ones(2))
        self.offset = nn.Parameter(torch.full((2,), 2.0))
        self.classifier = LogisticInitLinear(len(FEATURES) + n_context)

    def forward(
        self, heard: TokenEvidence, texts: TextBatch, seconds: Tensor, context: Tensor
    ) -> tuple[TokenScores, Tensor]:
        """Return the scores, and the features (texts, len(FEATURES) + n_context) behind them.

        `seconds` (texts,) is the length of the recording, `context` (texts, n_context).
        """
        hidden, log_probabilities, best = heard.hidden, heard.log_probabilities, heard.best
        before = self.norm_before(hidden[:, texts.n_prompt - 1 : -1])
        after = self.norm_after(hidden[:, texts.n_prompt :])
        correction = NATS * self.correction(torch.cat([before, after], dim=-1)).float()
        evidence = (log_probabilities - best)[..., None] + correction

        places = torch.arange(texts.words.shape[1], device=hidden.device)
        is_end = places == texts.n_targets[:, None] - 1
        of_word = places < texts.n_targets[:, None] - 1
        is_start = torch.ones_like(of_word)
        is_start[:, 1:] = texts.words[:, 1:] != texts.words[:, :-1]
        is_start &= of_word | is_end  # the end of text is where the last word might be missing

        token_odds = self.slope * evidence + self.offset
        said = _by_word(F.logsigmoid(token_odds[..., 0]), of_word, texts)[:, :-1]
        complete = _by_word(F.logsigmoid(token_odds[..., 1]), is_start, texts)
        word_evidence, completeness = evidence.unbind(-1)
        n_tokens = of_word.sum(1)
        end = is_end.float()
        features = [
            _mean(log_probabilities, of_word),
            _mean(word_evidence, of_word),
            _soft_minimum(word_evidence, of_word, SOFT),
            _soft_minimum(word_evidence, of_word, SHARP),
            (F.softplus(-word_evidence).log1p() * of_word).sum(1) / n_tokens.sqrt(),
            _mean(completeness, is_start),
            _soft_minimum(completeness, is_start, SHARP),
            (log_probabilities * end).sum(1),
            (completeness * end).sum(1),
            log_odds(said.sum(1) + complete.sum(1)),
            n_tokens.log(),
            (seconds / n_tokens).log(),
        ]
        stacked = torch.cat([torch.stack(features, dim=1), context.float()], dim=1)
        return TokenScores(self.classifier(stacked), said, complete), stacked

    def word_losses(self, scores: TokenScores, texts: TextBatch) -> Tensor:
        """Return the log loss, in nats, of what is known of the words of each text, (texts,)."""
        losses = torch.zeros_like(scores.logits)
        known = ((scores.said, texts.said), (scores.complete, texts.complete))
        for log_probability, truth in known:
            log_otherwise = torch.log(-torch.expm1(log_probability.clamp(max=-1e-6)))
            loss = -torch.where(truth > 0.5, log_probability, log_otherwise)
            losses = losses + (loss * (truth != UNKNOWN)).sum(1)
        return losses


def _by_word(values: Tensor, counted: Tensor, texts: TextBatch) -> Tensor:
    """Sum (texts, targets) where `counted` by word; the end of text counts as one more word."""
    sums = torch.zeros(*texts.complete.shape, device=values.device)
    return sums.scatter_add(1, texts.words, values * counted)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return (values * counted).sum(1) / counted.sum(1)


def _soft_minimum(values: Tensor, counted: Tensor, temperature: float) -> Tensor:
    weights = (-values / temperature).masked_fill(~counted, float("-inf")).softmax(1)
    return (weights * values).sum(1)


def log_odds(log_probability: Tensor) -> Tensor:
    """Return the log-odds of log-probabilities, kept within `LARGEST_LOGIT` of zero."""
    log_probability = log_probability.clamp(max=-1e-6)
    unbounded = log_probability - torch.log(-torch.expm1(log_probability))
    return unbounded.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
