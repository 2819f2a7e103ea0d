"""Tests of reading token likelihoods without holding all logits."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hearback.engine.whisper import token_logprobs
from hearback.engine.whisper.token_logprobs import token_likelihoods

N_TOKENS, WIDTH, N_VOCABULARY = 7, 6, 50


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    hidden = 2 * torch.randn(N_TOKENS, WIDTH, generator=rng)
    embedding = torch.randn(N_VOCABULARY, WIDTH, generator=rng)
    return hidden.requires_grad_(), embedding, torch.arange(N_TOKENS) * 5


def whole_softmax(hidden: Tensor, embedding: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    log_probabilities = F.linear(hidden, embedding).log_softmax(-1)
    return log_probabilities.gather(1, targets[:, None]).squeeze(1), log_probabilities.amax(-1)


@pytest.mark.parametrize("n_at_once", [1, 3, N_TOKENS, 100])
def test_equals_a_whole_softmax_forward_and_back(
    n_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(token_logprobs.N_AT_ONCE, "cpu", n_at_once)
    results = []
    for function in (token_likelihoods, whole_softmax):
        hidden, embedding, targets = inputs()
        target, best = function(hidden, embedding, targets)
        (target * torch.arange(1.0, 8.0) + 0.3 * best).sum().backward()
        results.append((target, best, hidden.grad))
    for ours, expected in zip(*results, strict=True):
        assert ours is not None and expected is not None
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_is_exact_where_the_logits_are_large() -> None:
    hidden, embedding, targets = inputs()
    target, best = token_likelihoods(100 * hidden, embedding, targets)
    expected, expected_best = whole_softmax(100 * hidden, embedding, targets)
    torch.testing.assert_close(target, expected, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(best, expected_best, atol=1e-3, rtol=1e-5)


def test_mixed_precision_multiplies_in_half_and_returns_float32() -> None:
    hidden, embedding, targets = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        target, best = token_likelihoods(hidden, embedding, targets)
    (target + best).sum().backward()
    assert target.dtype == best.dtype == torch.float32
    assert hidden.grad is not None and hidden.grad.dtype == torch.float32
    expected, expected_best = whole_softmax(*inputs())
    assert 1e-5 < (target - expected).abs().max() < 0.1  # rounded, and not by much
    torch.testing.assert_close(best, expected_best, atol=0.1, rtol=0)


def test_no_tokens_have_no_likelihoods() -> None:
    hidden, embedding, _ = inputs()
    target, best = token_likelihoods(hidden[:0], embedding, torch.empty(0, dtype=torch.int64))
    assert target.shape == best.shape == (0,)


def test_an_embedding_that_wants_a_gradient_is_refused() -> None:
    hidden, embedding, targets = inputs()
    with pytest.raises(ValueError, match="not frozen"):
        token_likelihoods(hidden, embedding.requires_grad_(), targets)
