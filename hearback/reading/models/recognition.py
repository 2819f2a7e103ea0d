"""What a recogniser of phones hears in recordings, for texts that need a number of frames."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hearback.reading.window_batches import TextBatch

FRAMES_PER_TARGET = 2  # a frame for each phone, and one between phones that are alike
IMPOSSIBLE = -40.0  # nats: log-probability of the word boundary, which is counted as a blank


@dataclass(frozen=True)
class Recognition:
    """What a recogniser of phones computes from recordings.

    Attributes:
        log_probs: (recordings, frames, tokens).
        hidden: (recordings, frames, width): the last hidden states, or an encoder's frames.
        n_frames: (recordings,).
    """

    log_probs: Tensor
    hidden: Tensor
    n_frames: Tensor

    def select(self, recordings: Tensor) -> "Recognition":
        """Return that of these recordings, one for each of (texts,) int64."""
        parts = (self.log_probs, self.hidden, self.n_frames)
        return Recognition(*(part[recordings] for part in parts))


def without_boundaries(log_probs: Tensor, blank: int, word_boundary: int) -> Tensor:
    """Count the boundary between words as a blank: texts are sequences of phones alone.

    Maps (…, tokens) log-probabilities to the same shape.
    """
    of_blank = torch.logaddexp(log_probs[..., blank], log_probs[..., word_boundary])
    tokens = torch.arange(log_probs.shape[-1], device=log_probs.device)
    log_probs = torch.where(tokens == blank, of_blank[..., None], log_probs)
    return log_probs.masked_fill(tokens == word_boundary, IMPOSSIBLE)


def frames_needed(texts: TextBatch, n_clips: int) -> Tensor:
    """Return the frames that each recording needs for the phones of its texts, (n_clips,)."""
    n_frames = FRAMES_PER_TARGET * texts.n_targets
    longest = torch.zeros(n_clips, dtype=torch.int64, device=n_frames.device)
    return longest.scatter_reduce(0, texts.clips, n_frames, "amax")
