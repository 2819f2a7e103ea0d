"""Probabilities of a sequence of phones and of every sequence that differs from it by one phone.

Given a recogniser's frame-by-frame probabilities (CTC), the probability of a sequence sums over all
its alignments. Forward and backward probabilities of one sequence are enough for all sequences that
differ by one substitution, insertion or deletion: an edit needs only one more recursion, over the
frames of the edited phone. `edit_ratios` computes them exactly, with gradients, in
O(frames × phones × alternatives).

The ratio of the sum over edits to the sequence is a goodness of pronunciation without alignment
(Cao et al., "A Framework for Phoneme-Level Pronunciation Assessment Using CTC", Interspeech 2024;
with restricted substitutions: Parikh et al., arXiv 2506.02080).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hearback.engine.devices import check_float64

# Share of a uniform distribution that is mixed into the probabilities: no phone is impossible, and
# a text that was not said at all keeps finite ratios.
SMOOTHING = 1e-5
_TINY = 1e-300
_LARGEST = 1e100  # of both factors of a ratio, so that their product is finite
_NO_PHONE = -1


@dataclass(frozen=True)
class EditRatios:
    """Probabilities of edited sequences, divided by that of the sequence itself.

    All are float64; entries of the padding are unspecified.

    Attributes:
        log_prob: (texts,) log-probability of each sequence.
        substituted: (texts, phones, alternatives), with this phone replaced by the alternative; 1
            for the phone itself.
        deleted: (texts, phones), without this phone.
        inserted: (texts, phones + 1, alternatives), with the alternative before this phone (last
            entry of a text: at its end).
        occupancy: (texts, frames, phones) probability that a frame is of this phone, given the
            sequence.
        is_reached: (texts, phones) bool: False for the phones from which on the sequence is so
            improbable, below 1e-100 of the best, that its ratios leave float64's range. They are
            meaningless: the sequence was certainly not said that far.
    """

    log_prob: Tensor
    substituted: Tensor
    deleted: Tensor
    inserted: Tensor
    occupancy: Tensor
    is_reached: Tensor


def edit_ratios(
    log_probs: Tensor,
    n_frames: Tensor,
    phones: Tensor,
    n_phones: Tensor,
    *,
    blank: int,
    alternatives: Tensor,
) -> EditRatios:
    """Return the probabilities of all sequences that differ from the given ones by one phone.

    Args:
        log_probs: (texts, frames, tokens), the recogniser's log-probabilities.
        n_frames: (texts,) number of frames, at least that of the phones, and one more for each
            phone that equals the one before it.
        phones: (texts, phones) tokens of the sequences, padded with any token.
        n_phones: (texts,) number of phones, at least 1.
        blank: CTC's blank.
        alternatives: (alternatives,) tokens that are substituted and inserted.

    Raises HearbackError on a device without float64.
    """
    check_float64(log_probs.device, "a phone or segment scorer")
    lattice = _Lattice.build(log_probs, n_frames, phones, n_phones, blank)
    alpha, beta = lattice.forward(), lattice.backward()
    # Scaled so that the states of each frame sum to 1: their posteriors.
    scale = (alpha.blank * beta.blank).sum(2) + (alpha.phone * beta.phone).sum(2)
    scale = scale.clamp(min=_TINY)[..., None]
    beta = _States(beta.blank / scale, beta.phone / scale)
    onward = lattice.onward(alpha.total, beta)
    before, after = lattice.neighbours()
    allow_before = (before[:, :, None] != alternatives).double()
    allow_after = (after[:, :, None] != alternatives).double()
    entry = lattice.entries(alpha)
    following = F.pad(onward.phone, (0, 1))  # the phone after each gap
    sums = _EditedPhone.apply(
        lattice.probs[:, :, alternatives] / alpha.total[..., None],
        *entry,
        allow_before,
        onward.blank,
        following,
        F.pad(onward.blank[:, :, 1:], (0, 1)),
        F.pad(following[:, :, 1:], (0, 1)),
    )
    to_own_blank, to_own_phone, to_next_blank, to_next_phone = sums
    allow_next = F.pad(allow_after[:, 1:], (0, 0, 0, 1))
    occupancy = alpha.phone * beta.phone * lattice.within[..., None]
    # Every phone has one frame at least: in exact arithmetic, its occupancies sum to 1 or more.
    is_in_range = alpha.phone.amax(1) > 1 / _LARGEST
    return EditRatios(
        log_prob=lattice.log_prob(alpha),
        substituted=(to_next_blank + allow_next * to_next_phone)[:, :-1],
        deleted=lattice.deletions(alpha, beta, onward),
        inserted=to_own_blank + allow_after * to_own_phone,
        occupancy=occupancy,
        is_reached=is_in_range & (occupancy.sum(1) > 0.5),
    )


class _States(NamedTuple):
    """Values of a lattice's states by frame: `blank`, (texts, frames, phones + 1), and `phone`."""

    blank: Tensor
    phone: Tensor


class _Forward(NamedTuple):
    """Forward probabilities, each frame's divided by their sum; `total`, (texts, frames), is it."""

    blank: Tensor
    phone: Tensor
    total: Tensor


@dataclass(frozen=True)
class _Lattice:
    """CTC's states of some texts: a blank before each phone, the phones, and a blank at the end.

    Attributes:
        probs: (texts, frames, tokens) float64.
        blank: (texts, frames, 1), the blank's probability.
        phone: (texts, frames, phones), that of the text's phones.
        phones: (texts, phones) tokens; `_NO_PHONE` in the padding.
        skips: (texts, phones) 1.0 where a phone may follow the one before without a blank.
        last: (texts,) last frame.
        ends: (texts, 1, …) 1.0 for the states that end a text.
    """

    probs: Tensor
    blank: Tensor
    phone: Tensor
    phones: Tensor
    skips: Tensor
    last: Tensor
    ends: _States

    @classmethod
    def build(
        cls, log_probs: Tensor, n_frames: Tensor, phones: Tensor, n_phones: Tensor, blank: int
    ) -> "_Lattice":
        # float64: ratios of a text that was not said are far beyond float32's range.
        probs = log_probs.double().exp()
        probs = (1 - SMOOTHING) * probs + SMOOTHING / probs.shape[2]
        positions = torch.arange(phones.shape[1] + 1, device=phones.device)
        known = phones.masked_fill(positions[:-1] >= n_phones[:, None], _NO_PHONE)
        return cls(
            probs=probs,
            blank=probs[:, :, blank, None],
            phone=probs.gather(2, phones[:, None].expand(-1, probs.shape[1], -1)),
            phones=known,
            skips=F.pad((known[:, 1:] != known[:, :-1]).double(), (1, 0)),
            last=n_frames - 1,
            ends=_States(
                (positions == n_phones[:, None]).double()[:, None],
                (positions[:-1] == n_phones[:, None] - 1).double()[:, None],
            ),
        )

    @property
    def within(self) -> Tensor:
        """Mask of frames within the recording, (texts, frames)."""
        frames = torch.arange(self.probs.shape[1], device=self.last.device)
        return frames <= self.last[:, None]

    @property
    def at_end(self) -> Tensor:
        """Mask of the last frame, (texts, frames, 1)."""
        frames = torch.arange(self.probs.shape[1], device=self.last.device)
        return (frames == self.last[:, None])[..., None]

    def neighbours(self) -> tuple[Tensor, Tensor]:
        """Return the phone before and after each blank, (texts, phones + 1) each."""
        before = F.pad(self.phones, (1, 0), value=_NO_PHONE)
        after = F.pad(self.phones, (0, 1), value=_NO_PHONE)
        return before, after

    def forward(self) -> _Forward:
        """Return the forward probabilities, each frame's own emission included."""
        n_phones = self.phones.shape[1]
        blanks, phones, totals = [], [], []
        blank = F.pad(self.blank[:, 0], (0, n_phones))
        phone = F.pad(self.phone[:, 0, :1], (0, n_phones - 1))
        emissions = zip(self.blank.unbind(1), self.phone.unbind(1), strict=True)
        for frame, (of_blank, of_phone) in enumerate(emissions):
            if frame:
                before = F.pad(phone, (1, 0))
                phone = of_phone * (phone + blank[:, :-1] + self.skips * before[:, :-1])
                blank = of_blank * (blank + before)
            total = blank.sum(1) + phone.sum(1)
            blank, phone = blank / total[:, None], phone / total[:, None]
            blanks.append(blank)
            phones.append(phone)
            totals.append(total)
        return _Forward(torch.stack(blanks, 1), torch.stack(phones, 1), torch.stack(totals, 1))

    def backward(self) -> _States:
        """Return the backward probabilities, emissions after each frame, in a scale of its own."""
        end = _States(self.ends.blank[:, 0], self.ends.phone[:, 0])
        skips_next = F.pad(self.skips[:, 1:], (0, 1))
        blanks, phones = [end.blank], [end.phone]
        for frame in range(self.probs.shape[1] - 2, -1, -1):
            blank = self.blank[:, frame + 1] * blanks[-1]
            phone = self.phone[:, frame + 1] * phones[-1]
            to_next = skips_next * F.pad(phone[:, 1:], (0, 1))
            to_phone = phone + blank[:, 1:] + to_next
            to_blank = blank + F.pad(phone, (0, 1))
            is_last = (self.last == frame)[:, None]
            to_phone = torch.where(is_last, end.phone, to_phone)
            to_blank = torch.where(is_last, end.blank, to_blank)
            total = to_phone.sum(1, keepdim=True) + to_blank.sum(1, keepdim=True)
            blanks.append(to_blank / total)
            phones.append(to_phone / total)
        return _States(torch.stack(blanks[::-1], 1), torch.stack(phones[::-1], 1))

    def log_prob(self, alpha: _Forward) -> Tensor:
        """Return the log-probability of each text, (texts,)."""
        frames = (alpha.total.log() * self.within).sum(1)
        ending = (alpha.blank * self.ends.blank).sum(2) + (alpha.phone * self.ends.phone).sum(2)
        return frames + ending.gather(1, self.last[:, None])[:, 0].clamp(min=_TINY).log()

    def entries(self, alpha: _Forward) -> _States:
        """Return what may precede a phone in each gap: a blank, or the phone before the gap.

        (texts, frames, phones + 1) each, from the frame before.
        """
        blank = F.pad(alpha.blank[:, :-1], (0, 0, 1, 0))
        start = torch.zeros_like(blank)
        start[:, 0, 0] = 1  # a recording may start with it
        return _States(blank + start, F.pad(alpha.phone[:, :-1], (1, 0, 1, 0)))

    def onward(self, total: Tensor, beta: _States) -> _States:
        """Return the probability to go on, after each frame, into each state and to the end.

        At the last frame, the end is reached by the blank that ends the text.
        """
        next_total = total[:, 1:, None]
        blank = F.pad(self.blank[:, 1:] * beta.blank[:, 1:] / next_total, (0, 0, 0, 1))
        phone = F.pad(self.phone[:, 1:] * beta.phone[:, 1:] / next_total, (0, 0, 0, 1))
        blank = torch.where(self.at_end, self._end_weight(beta) * self.ends.blank, blank)
        phone = phone.masked_fill(self.at_end, 0.0)
        within = self.within[..., None]
        return _States(*((each * within).clamp(max=_LARGEST) for each in (blank, phone)))

    def _end_weight(self, beta: _States) -> Tensor:
        """Return the scaled backward probability of the states that end a text, (texts, 1, 1)."""
        weights = (beta.blank * self.ends.blank).sum(2)
        return weights.gather(1, self.last[:, None])[:, :, None]

    def deletions(self, alpha: _Forward, beta: _States, onward: _States) -> Tensor:
        """Return the ratios of the texts without each phone, (texts, phones)."""
        before, after = self.neighbours()
        previous = F.pad(alpha.phone, (1, 0))[:, :, :-1]
        direct = (before[:, :-1] != after[:, 1:]).double()[:, None]
        into_next = F.pad(onward.phone[:, :, 1:], (0, 1))
        deleted = ((alpha.blank[:, :, :-1] + direct * previous) * into_next).sum(1)
        # Without the first phone, a recording may start with the second.
        start = self.phone[:, 0, 1:2] * beta.phone[:, 0, 1:2] / alpha.total[:, :1]
        deleted = deleted + F.pad(start, (0, deleted.shape[1] - start.shape[1]))
        ending = (alpha.blank[:, :, :-1] + previous) * self.at_end
        is_last = self.ends.phone[:, 0] > 0
        return torch.where(is_last, (ending * self._end_weight(beta)).sum(1), deleted)


class _EditedPhone(torch.autograd.Function):
    """Sums over all frames of one phone, in each gap and of each alternative, between given ends.

    Inputs: `probs`, (texts, frames, alternatives); `blank` and `phone`, (texts, frames, gaps), the
    ways into the gap at a frame; `allow`, (texts, gaps, alternatives), 1.0 where an alternative may
    follow the phone before the gap; and `ends`, each (texts, frames, gaps), the ways out after a
    frame. Returns for each of `ends` the sum, (texts, gaps, alternatives).

    Written by hand: autograd would keep and copy several tensors for every frame.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,  # noqa: ANN401  (torch's)
        probs: Tensor,
        blank: Tensor,
        phone: Tensor,
        allow: Tensor,
        *ends: Tensor,
    ) -> tuple[Tensor, ...]:
        texts, frames, gaps = blank.shape
        # All of them only for the gradients: they need far more memory than all else.
        n_kept = frames + 1 if any(ctx.needs_input_grad) else 2
        states = probs.new_zeros(n_kept, texts, gaps, probs.shape[2])
        sums = [torch.zeros_like(states[0]) for _ in ends]
        for frame in range(frames):
            state = states[(frame + 1) % n_kept]
            torch.mul(allow, phone[:, frame, :, None], out=state)
            state += blank[:, frame, :, None]
            state += states[frame % n_kept]
            state *= probs[:, frame, None]
            state.clamp_(max=_LARGEST)
            for total, end in zip(sums, ends, strict=True):
                total.addcmul_(state, end[:, frame, :, None])
        ctx.save_for_backward(probs, blank, phone, allow, states, *ends)
        return tuple(sums)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        probs, blank, phone, allow, states, *ends = ctx.saved_tensors
        of_probs, of_blank, of_phone = map(torch.zeros_like, (probs, blank, phone))
        of_ends = [torch.zeros_like(end) for end in ends]
        adjoint = torch.zeros_like(states[0])
        for frame in range(blank.shape[1] - 1, -1, -1):
            state = states[frame + 1]
            for gradient, end, of_end in zip(gradients, ends, of_ends, strict=True):
                adjoint.addcmul_(gradient, end[:, frame, :, None])
                of_end[:, frame] = (gradient * state).sum(2)
            entered = allow * phone[:, frame, :, None]
            entered += blank[:, frame, :, None]
            entered += states[frame]
            of_probs[:, frame] = (adjoint * entered).sum(1)
            adjoint *= probs[:, frame, None]
            of_blank[:, frame] = adjoint.sum(2)
            of_phone[:, frame] = (adjoint * allow).sum(2)
        return of_probs, of_blank, of_phone, None, *of_ends
