"""Score words and texts by the frames of each phone, pooled over its segment."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.reading.models.evidence import CORRECTION_SCALE, TextMasks, make_correction
from hearback.reading.models.phone_head import NATS, EvidenceHead, PhoneEvidence
from hearback.reading.window_batches import TextBatch

HIDDEN = 96  # width of the projected vectors, and of the correction
NEIGHBOUR_WIDTH = VALUES_WIDTH = 16
N_VALUES = 9  # numbers about each phone
_MOST_FRAMES = 8  # of a segment, before its first and after its last frame
_END_FRAMES = 4  # of the segments at the ends of a text
_LARGEST_ODDS = 8.0


def pool_segments(frames: Tensor, occupancy: Tensor, n_phones: Tensor) -> Tensor:
    """Return the mean frames before, in and after the core of each phone's segment.

    CTC recognises a phone in a few frames: its core. A segment reaches to the middle between the
    core and those beside it, at most 8 frames (0.16 s) from the core.

    Args:
        frames: (texts, frames, width), of each text's recording.
        occupancy: (texts, frames, phones), as in `edits.EditRatios`.
        n_phones: (texts,).

    Returns:
        (texts, phones, 3 * width).
    """
    n_frames = frames.shape[1]
    first, last = _cores(occupancy)
    middles = (last[:, :-1] + first[:, 1:] + 1) / 2  # between two cores
    start = torch.cat([first[:, :1] - _END_FRAMES, middles.floor().long()], dim=1)
    end = torch.cat([middles.ceil().long(), last[:, -1:] + _END_FRAMES], dim=1)
    phones = torch.arange(first.shape[1], device=first.device)
    end = torch.where(phones == n_phones[:, None] - 1, last + _END_FRAMES, end)
    start = torch.maximum(start, first - _MOST_FRAMES)
    end = torch.minimum(end, last + _MOST_FRAMES)
    # Each at least one frame long, which may be one of the core or beyond its neighbour.
    bounds = (
        (torch.minimum(start, first - 1), first),
        (first, last + 1),
        (last + 1, torch.maximum(end + 1, last + 2)),
    )
    sums = F.pad(frames.float().cumsum(1), (0, 0, 1, 0))
    pooled = []
    for begin, stop in bounds:
        inside = begin.clamp(0, n_frames - 1)
        after = torch.maximum(stop.clamp(0, n_frames), inside + 1)
        total = _rows(sums, after) - _rows(sums, inside)
        pooled.append(total / (after - inside)[..., None])
    return torch.cat(pooled, dim=-1)


def _cores(occupancy: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the last frame of each phone's core, (texts, phones) int64 each."""
    n_frames = occupancy.shape[1]
    is_core = (occupancy >= 0.5 * occupancy.amax(1, keepdim=True)).to(torch.int8)
    first = is_core.argmax(1)
    return first, n_frames - 1 - is_core.flip(1).argmax(1)


def _rows(values: Tensor, indices: Tensor) -> Tensor:
    """Return rows of (texts, rows, width) by (texts, phones) indices: (texts, phones, width)."""
    return values.gather(1, indices[..., None].expand(-1, -1, values.shape[2]))


class SegmentHead(EvidenceHead):
    """An `EvidenceHead` that corrects by the vectors of each phone's segment.

    The vectors, less their mean over the text (speaker and room), are projected to a few numbers:
    a classifier of phones, and with the expected phone and its neighbours, the correction.

    Args:
        width: of a phone's vectors.
        n_tokens: number of phones.
        n_context: numbers about the recording.
        dropout: probability.
    """

    def __init__(self, width: int, n_tokens: int, n_context: int, dropout: float) -> None:
        super().__init__(n_context)
        self.project = nn.Linear(width, HIDDEN)
        self.project_mean = nn.Linear(width, HIDDEN, bias=False)
        self.norm = nn.LayerNorm(HIDDEN)
        self.dropout = nn.Dropout(dropout)
        self.phone_classifier = nn.Linear(HIDDEN, n_tokens)
        self.phones = nn.Embedding(n_tokens, HIDDEN)
        self.neighbours = nn.Embedding(n_tokens, NEIGHBOUR_WIDTH)
        self.values = nn.Linear(N_VALUES, VALUES_WIDTH)
        n_inputs = 3 * HIDDEN + 2 * NEIGHBOUR_WIDTH + VALUES_WIDTH
        self.correction = make_correction(n_inputs, HIDDEN, dropout)
        self.weight_of_odds = nn.Parameter(torch.zeros(()))

    def hidden(self, evidence: PhoneEvidence, texts: TextBatch) -> Tensor:
        """Return the projected vectors, (texts, targets, HIDDEN)."""
        in_word = TextMasks.of(texts).in_word[..., None]
        mean = (evidence.hidden * in_word).sum(1, keepdim=True) / in_word.sum(1, keepdim=True)
        projected = self.project(evidence.hidden) - self.project_mean(mean)
        return self.dropout(F.gelu(self.norm(projected)))

    def phone_classes(self, hidden: Tensor) -> Tensor:
        """Return log-probabilities of the phones, (texts, targets, tokens)."""
        return self.phone_classifier(hidden).float().log_softmax(-1)

    def _correct(self, evidence: PhoneEvidence, texts: TextBatch) -> Tensor:
        masks, tokens = TextMasks.of(texts), texts.tokens
        hidden = self.hidden(evidence, texts)
        own = self.phone_classes(hidden).gather(2, tokens[..., None])[..., 0]
        odds = (own - torch.log(-torch.expm1(own.clamp(max=-1e-6)))).clamp(
            -_LARGEST_ODDS, _LARGEST_ODDS
        )
        previous, following = F.pad(tokens[:, :-1], (1, 0)), F.pad(tokens[:, 1:], (0, 1))
        is_last = F.pad(masks.is_start[:, 1:], (0, 1))
        log_frames = evidence.log_frames
        n_words = masks.in_word.sum(1, keepdim=True)
        mean_log_frames = (log_frames * masks.in_word).sum(1, keepdim=True) / n_words
        values = [
            (evidence.goodness / NATS).tanh(),
            (evidence.nothing_inserted / NATS).tanh(),
            (evidence.gap / NATS).tanh(),
            (evidence.gap / NATS).clamp(min=-2.0),
            log_frames / 2,
            log_frames - mean_log_frames,
            masks.is_start.float(),
            is_last.float(),
            odds / NATS,
        ]
        phone = self.phones(tokens)
        inputs = [
            *(hidden * phone, hidden, phone),
            *(self.neighbours(previous), self.neighbours(following)),
            self.values(torch.stack(values, -1)),
        ]
        correction = CORRECTION_SCALE * self.correction(torch.cat(inputs, dim=-1)).float()
        of_phone, of_gap = correction.unbind(-1)
        return torch.stack([of_phone + self.weight_of_odds * odds, of_gap], dim=-1)
