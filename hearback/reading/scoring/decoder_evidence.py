"""What a token scorer's decoder tells beside the score: times of words, and whether it is English.

Whisper's decoder, before it has seen any text, tells how likely it is that there is no speech, and
which word it expects first. A learner who reads another text than the expected one is therefore
not taken for noise.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hearback.engine.devices import to_host
from hearback.reading.inference.model_group import ScoreFn
from hearback.reading.models.base import Scorer
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.models.word_times import word_times
from hearback.reading.window_batches import Batch

# Thresholds in nats that tell English reading from the rest; error rates: docs/results/scoring.md.
# A multilingual decoder is less sure that children speak, and of what they say.
SURPRISE = 5.0
NO_SPEECH, NO_SPEECH_MULTILINGUAL = -0.7, -0.4
CONFIDENCE, CONFIDENCE_MULTILINGUAL = -1.8, -2.4
MIN_WORDS = 3  # of a text: single words, and invented ones, surprise a decoder that knows English


@dataclass(frozen=True)
class DecoderEvidence:
    """What a decoder tells of a clip, numbers in nats.

    Attributes:
        n_words: of the text.
        no_speech: log-probability that there is no speech; -inf if the decoder cannot tell.
        surprise: entropy of the first word that it expects: high if it does not understand.
        confidence: mean log-probability of the likeliest token at each position of the text.
        is_multilingual: whether the decoder knows other languages than English.
        times: (words, 2) start and end of each word, in s of the clip as the batch has it; None if
            they were not asked for.
    """

    n_words: int
    no_speech: float
    surprise: float
    confidence: float
    is_multilingual: bool = False
    times: np.ndarray | None = None

    @property
    def is_no_speech(self) -> bool:
        """Whether there is noise, music or a tone instead of speech."""
        return self.no_speech > (NO_SPEECH_MULTILINGUAL if self.is_multilingual else NO_SPEECH)

    @property
    def is_not_understood(self) -> bool:
        """Whether there is speech, but no English that the decoder understands."""
        is_long = self.n_words >= MIN_WORDS
        lowest = CONFIDENCE_MULTILINGUAL if self.is_multilingual else CONFIDENCE
        return is_long and self.surprise > SURPRISE and self.confidence < lowest


class EvidenceCollector:
    """A score function that also collects evidence, of the first token scorer that scores a clip.

    Attributes:
        score_fn: the score function.
        with_times: whether to find when each word is said, which takes another pass of the decoder.
        evidence: of the rows so far.
    """

    def __init__(self, score_fn: ScoreFn, *, with_times: bool) -> None:
        self.score_fn = score_fn
        self.with_times = with_times
        self.evidence: dict[int, DecoderEvidence] = {}

    def __call__(self, model: Scorer, batch: Batch) -> Tensor:
        """Return the scores of a batch."""
        rows = batch.rows.tolist()
        if isinstance(model, TokenScorer) and not self.evidence.keys() >= set(rows):
            # Decoded once, for the score too.
            batch = replace(batch, decoded=batch.decoded or model.decode(batch))
            found = compute_evidence(model, batch, with_times=self.with_times)
            self.evidence.update(zip(rows, found, strict=True))
        return self.score_fn(model, batch)


@torch.inference_mode()
def compute_evidence(
    model: TokenScorer, batch: Batch, *, with_times: bool = True
) -> list[DecoderEvidence]:
    """Return the evidence of each clip of a batch; `batch.decoded` is used if present."""
    assert batch.texts is not None
    output = batch.decoded or model.decode(batch)
    texts, n_clips = batch.texts, len(batch)
    hidden, embedding = output.hidden, model.decoder.embed_tokens.weight
    hidden = torch.stack([hidden[:n_clips, 0], hidden[:n_clips, texts.n_prompt - 1]], dim=1)
    hidden = hidden.to(embedding.dtype)
    log_probs = (hidden @ embedding.T).float().log_softmax(-1)
    first = log_probs[:, 1]
    surprise = -(first.exp() * first).sum(-1)
    tokenizer = model.text_tokenizer
    token = tokenizer.no_speech if tokenizer else None
    is_multilingual = tokenizer is not None and tokenizer.is_multilingual
    no_speech = surprise.new_full((), -math.inf) if token is None else log_probs[:, 0, token]
    # 0 in the padding.
    confidence = output.best_log_probs[:n_clips].sum(1) / texts.n_targets[:n_clips]
    on_host = to_host(texts.n_words[:n_clips], no_speech.expand(n_clips), surprise, confidence)
    values = zip(*(each.tolist() for each in on_host), [is_multilingual] * n_clips, strict=True)
    found = [DecoderEvidence(*each) for each in values]
    if not with_times:
        return found
    times = word_times(model, batch)
    return [replace(each, times=of_clip) for each, of_clip in zip(found, times, strict=True)]
