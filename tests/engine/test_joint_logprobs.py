"""Log-probabilities of several decoders by a sample of the vocabulary."""

import pytest
import torch
from torch import Tensor

from hearback.engine.whisper import joint_logprobs
from hearback.engine.whisper.joint_logprobs import MIN_DECODERS, joint_token_log_probs
from hearback.engine.whisper.token_logprobs import token_log_probs

N_DECODERS, N_TOKENS, WIDTH, N_VOCABULARY = 5, 300, 16, 20_000


def inputs(n_vocabulary: int = N_VOCABULARY) -> tuple[Tensor, Tensor, Tensor]:
    """Return states of decoders, which differ by a quarter of their length, and an embedding."""
    random = torch.Generator().manual_seed(0)
    mean = 1.5 * torch.randn(N_TOKENS, WIDTH, generator=random)
    shift = 0.35 * torch.randn(N_DECODERS, N_TOKENS, WIDTH, generator=random)
    embedding = torch.randn(n_vocabulary, WIDTH, generator=random)
    targets = torch.randint(n_vocabulary, (N_TOKENS,), generator=random)
    return mean + shift, embedding, targets


def exact(hidden: Tensor, embedding: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    log_probs = (hidden @ embedding.T).log_softmax(-1)
    index = targets.expand(len(hidden), -1)[..., None]
    return log_probs.gather(-1, index).squeeze(-1), log_probs.amax(-1)


def in_half_precision(hidden: Tensor, embedding: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return joint_token_log_probs(hidden, embedding, targets)


def rms(error: Tensor) -> float:
    return float(error.square().mean().sqrt())


def test_is_no_less_precise_than_products_in_half_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = exact(*inputs())
    sampled = in_half_precision(*inputs())
    monkeypatch.setattr(joint_logprobs, "MIN_DECODERS", N_DECODERS + 1)
    products = in_half_precision(*inputs())
    assert not torch.equal(sampled[0], products[0])
    for ours, theirs, true in zip(sampled, products, expected, strict=True):
        assert ours.shape == (N_DECODERS, N_TOKENS)
        assert ours.dtype == torch.float32
        assert rms(ours - true) < 1.1 * rms(theirs - true)


def test_the_error_of_the_sample_alone_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    # With products in float32, all error is the sample's.
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.float32)
    for ours, true in zip(in_half_precision(*inputs()), exact(*inputs()), strict=True):
        assert 0 < rms(ours - true) < 0.005


def test_a_vocabulary_of_likeliest_tokens_needs_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.float32)
    few = inputs(joint_logprobs.N_LIKELIEST)
    for ours, true in zip(in_half_precision(*few), exact(*few), strict=True):
        torch.testing.assert_close(ours, true, atol=1e-5, rtol=1e-5)


def test_a_position_depends_on_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.float32)
    hidden, embedding, targets = inputs()
    together = in_half_precision(hidden, embedding, targets)
    alone = in_half_precision(hidden[:, 7:8], embedding, targets[7:8])
    for one, all_of_them in zip(alone, together, strict=True):
        torch.testing.assert_close(one[:, 0], all_of_them[:, 7], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n_decoders", [1, MIN_DECODERS - 1, N_DECODERS])
def test_is_exact_in_full_precision_and_for_few_decoders(n_decoders: int) -> None:
    hidden, embedding, targets = inputs()
    with torch.inference_mode():
        ours = joint_token_log_probs(hidden[:n_decoders], embedding, targets)
        expected = token_log_probs(
            hidden[:n_decoders].flatten(0, 1), embedding, targets.repeat(n_decoders)
        )
    for each, of_all in zip(ours, expected, strict=True):
        assert torch.equal(each, of_all.view(n_decoders, -1))


def test_gradients_flow_with_all_products() -> None:
    hidden, embedding, targets = inputs()
    hidden.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        joint_token_log_probs(hidden, embedding, targets)[0].sum().backward()
    assert hidden.grad is not None and hidden.grad.abs().sum() > 0


def test_an_empty_batch_gives_empty_results() -> None:
    hidden, embedding, _ = inputs()
    none = torch.empty(0, dtype=torch.int64)
    for each in in_half_precision(hidden[:, :0], embedding, none):
        assert each.shape == (N_DECODERS, 0)
