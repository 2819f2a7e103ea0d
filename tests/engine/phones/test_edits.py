"""Edited sequences of phones against torch's CTC loss of each."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import ctc_loss

from hearback.engine.phones import edits
from hearback.engine.phones.edits import edit_ratios

N_FRAMES = torch.tensor([14, 11, 9, 9])
PHONES = torch.tensor([[1, 2, 2, 3, 1], [4, 4, 1, 0, 0], [2, 0, 0, 0, 0], [1, 1, 1, 2, 0]])
N_PHONES = torch.tensor([5, 3, 1, 4])
ALTERNATIVES = torch.tensor([1, 2, 3, 5])
BLANK = 6


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "SMOOTHING", 0.0)


def _log_probs() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 14, 7, generator=generator, dtype=torch.float64).mul(2).log_softmax(-1)


def _log_prob(log_probs: Tensor, text: int, phones: list[int]) -> float:
    loss = ctc_loss(
        log_probs[text : text + 1, : N_FRAMES[text]].transpose(0, 1),
        torch.tensor([phones], dtype=torch.long),
        N_FRAMES[text : text + 1],
        torch.tensor([len(phones)]),
        blank=BLANK,
        reduction="none",
    )
    return -loss.item()


def _ratios(log_probs: Tensor) -> edits.EditRatios:
    return edit_ratios(
        log_probs, N_FRAMES, PHONES, N_PHONES, blank=BLANK, alternatives=ALTERNATIVES
    )


@pytest.mark.parametrize("text", range(4))
def test_each_edit_has_the_probability_of_the_edited_sequence(text: int) -> None:
    log_probs = _log_probs()
    ratios = _ratios(log_probs)
    phones = PHONES[text, : N_PHONES[text]].tolist()
    own = _log_prob(log_probs, text, phones)
    assert ratios.log_prob[text].item() == pytest.approx(own, abs=1e-9)
    for at in range(len(phones)):
        expected = math.exp(_log_prob(log_probs, text, phones[:at] + phones[at + 1 :]) - own)
        assert ratios.deleted[text, at].item() == pytest.approx(expected, rel=1e-9)
        for number, other in enumerate(ALTERNATIVES.tolist()):
            edited = [*phones[:at], other, *phones[at + 1 :]]
            expected = math.exp(_log_prob(log_probs, text, edited) - own)
            assert ratios.substituted[text, at, number].item() == pytest.approx(expected, rel=1e-9)
    for at in range(len(phones) + 1):
        for number, other in enumerate(ALTERNATIVES.tolist()):
            edited = [*phones[:at], other, *phones[at:]]
            expected = math.exp(_log_prob(log_probs, text, edited) - own)
            assert ratios.inserted[text, at, number].item() == pytest.approx(
                expected, rel=1e-9, abs=1e-12
            )


def test_occupancy_is_the_derivative_of_the_log_probability() -> None:
    log_probs = _log_probs().requires_grad_()
    ratios = _ratios(log_probs)
    (gradient,) = torch.autograd.grad(ratios.log_prob.sum(), log_probs)
    by_token = torch.zeros_like(gradient).scatter_add(
        2, PHONES[:, None].expand(-1, 14, -1), ratios.occupancy.detach()
    )
    tokens = [token for token in range(7) if token != BLANK]
    torch.testing.assert_close(by_token[..., tokens], gradient[..., tokens])


def test_gradients_are_those_of_finite_differences() -> None:
    def edited(log_probs: Tensor) -> Tensor:
        ratios = _ratios(log_probs)
        known = torch.arange(5) < N_PHONES[:, None]
        gaps = torch.arange(6) <= N_PHONES[:, None]
        return torch.cat(
            [
                ratios.log_prob,
                ratios.substituted.sum(-1)[known].log(),
                ratios.deleted[known].log(),
                ratios.inserted.sum(-1)[gaps].log(),
            ]
        )

    torch.autograd.gradcheck(edited, _log_probs().requires_grad_())


def test_ratios_are_the_same_with_and_without_gradients() -> None:
    log_probs = _log_probs()
    without, with_them = _ratios(log_probs), _ratios(log_probs.requires_grad_())
    assert torch.equal(without.substituted, with_them.substituted)
    assert torch.equal(without.inserted, with_them.inserted)


def test_padding_and_other_texts_change_nothing() -> None:
    log_probs = _log_probs()
    together = _ratios(log_probs)
    alone = edit_ratios(
        log_probs[1:2, :11],
        N_FRAMES[1:2],
        PHONES[1:2, :3],
        N_PHONES[1:2],
        blank=BLANK,
        alternatives=ALTERNATIVES,
    )
    torch.testing.assert_close(together.substituted[1:2, :3], alone.substituted)
    torch.testing.assert_close(together.inserted[1:2, :4], alone.inserted)
    torch.testing.assert_close(together.deleted[1:2, :3], alone.deleted)


def test_a_text_that_was_not_said_has_finite_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "SMOOTHING", 1e-5)
    log_probs = torch.full((1, 800, 7), -200.0)
    log_probs[..., 5] = 0.0
    phones = torch.arange(80).remainder(3)[None] + 1
    ratios = edit_ratios(
        log_probs,
        torch.tensor([800]),
        phones,
        torch.tensor([80]),
        blank=BLANK,
        alternatives=ALTERNATIVES,
    )
    for values in (ratios.log_prob, ratios.substituted, ratios.inserted, ratios.deleted):
        assert values.isfinite().all()


@pytest.mark.parametrize("n_phones", [20, 40, 80])
def test_ratios_that_leave_the_range_of_float64_are_marked(
    n_phones: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edits, "SMOOTHING", 1e-5)
    log_probs = torch.full((1, 200, 7), -60.0)
    log_probs[..., BLANK] = 0.0  # silence
    phones = torch.arange(n_phones).remainder(3)[None] + 1
    ratios = edit_ratios(
        log_probs,
        torch.tensor([200]),
        phones,
        torch.tensor([n_phones]),
        blank=BLANK,
        alternatives=ALTERNATIVES,
    )
    reached = ratios.is_reached[0]
    assert reached[:5].all() == (n_phones < 80)  # with 80, every path underflows
    assert reached[-1] == (n_phones == 20)
    # What is left out is better by the cost of a phone, some 13 nats, wherever the ratio holds.
    assert (ratios.deleted[0, reached].log() > 10).all()
