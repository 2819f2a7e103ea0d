"""Token log-probabilities computed in blocks equal those of a full softmax."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hearback.engine.whisper import token_logprobs
from hearback.engine.whisper.token_logprobs import token_log_probs

N_TOKENS, WIDTH, N_VOCABULARY = 7, 6, 50


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    hidden = 2 * torch.randn(N_TOKENS, WIDTH, generator=rng)
    embedding = torch.randn(N_VOCABULARY, WIDTH, generator=rng)
    return hidden.requires_grad_(), embedding, torch.arange(N_TOKENS) * 5


def full_softmax(hidden: Tensor, embedding: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    log_probs = F.linear(hidden, embedding).log_softmax(-1)
    return log_probs.gather(1, targets[:, None]).squeeze(1), log_probs.amax(-1)


@pytest.mark.parametrize("n_tokens", [1, 3, N_TOKENS, 100])
@pytest.mark.parametrize("n_entries", [1, 7, N_VOCABULARY, 100])
def test_equals_a_full_softmax_forward_and_backward(
    n_tokens: int, n_entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(token_logprobs.BLOCKS, "cpu", (n_tokens, n_entries))
    results = []
    for function in (token_log_probs, full_softmax):
        hidden, embedding, targets = inputs()
        target, best = function(hidden, embedding, targets)
        (target * torch.arange(1.0, 8.0) + 0.3 * best).sum().backward()
        results.append((target, best, hidden.grad))
    for ours, expected in zip(*results, strict=True):
        assert ours is not None and expected is not None
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_is_exact_where_the_logits_are_large() -> None:
    hidden, embedding, targets = inputs()
    target, best = token_log_probs(100 * hidden, embedding, targets)
    expected, expected_best = full_softmax(100 * hidden, embedding, targets)
    torch.testing.assert_close(target, expected, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(best, expected_best, atol=1e-3, rtol=1e-5)


def test_autocast_multiplies_in_bf16_and_returns_float32() -> None:
    hidden, embedding, targets = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        target, best = token_log_probs(hidden, embedding, targets)
    (target + best).sum().backward()
    assert target.dtype == best.dtype == torch.float32
    assert hidden.grad is not None and hidden.grad.dtype == torch.float32
    expected, expected_best = full_softmax(*inputs())
    assert 1e-5 < (target - expected).abs().max() < 0.1  # a small rounding error
    torch.testing.assert_close(best, expected_best, atol=0.1, rtol=0)


def test_an_empty_batch_gives_empty_results() -> None:
    hidden, embedding, _ = inputs()
    target, best = token_log_probs(hidden[:0], embedding, torch.empty(0, dtype=torch.int64))
    assert target.shape == best.shape == (0,)


def test_an_embedding_that_requires_a_gradient_is_rejected() -> None:
    hidden, embedding, targets = inputs()
    with pytest.raises(ValueError, match="must be frozen"):
        token_log_probs(hidden, embedding.requires_grad_(), targets)
