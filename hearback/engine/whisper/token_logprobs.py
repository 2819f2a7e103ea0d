"""Log-probabilities of target tokens over a large vocabulary, computed in blocks.

The output layer is the expensive part of scoring a text: the 51,864 logits of tiny.en take 200 kB
per token in float32, and the backward pass of a softmax needs several times that. Here the tokens
pass through the output layer in blocks of the vocabulary, and the forward pass already computes
what the backward pass needs: the gradient of a log-normaliser is the expected embedding, which is
only as wide as the decoder. (The same idea as cut cross-entropy, Wijmans et al. 2024, arXiv
2411.09009, and Liger's fused linear loss.)
"""

import math
from typing import Any

import torch
from torch import Tensor

# Tokens and vocabulary entries per block: a CPU's caches should hold a block's logits (in one block
# of the vocabulary, their exponentials take longer than the products); a GPU needs large products.
BLOCKS = {"cpu": (1024, 2048), "cuda": (2048, 65536)}
LOG2_E = 1 / math.log(2)


def token_log_probs(hidden: Tensor, embedding: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Compute log-probabilities of target tokens and of the most likely tokens.

    Matrix products use autocast's type where it is enabled. Gradients flow to `hidden` only.

    Args:
        hidden: (tokens, width), the decoder's last hidden states.
        embedding: (vocabulary, width), the frozen weights of the output layer.
        targets: (tokens,) int64 ids.

    Returns:
        The log-probability of each target and of the most likely token at the same position,
        (tokens,) float32 each, in nats.

    Raises:
        ValueError: `embedding` requires a gradient.
    """
    if embedding.requires_grad:
        raise ValueError("the embedding must be frozen: it would get no gradient")
    device = hidden.device.type
    dtype = hidden.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    log_probs, best = _TokenLogProbs.apply(hidden, embedding.to(dtype), targets)
    return log_probs, best


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, embedding: Tensor, targets: Tensor) -> Any:  # noqa: ANN401
        n_rows, n_entries = BLOCKS.get(hidden.device.type, BLOCKS["cuda"])
        parts = []
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, max(1, len(hidden)), n_rows):
                chunk = slice(start, start + n_rows)
                rows = hidden[chunk].to(embedding.dtype)
                parts.append(
                    _sum_blocks(rows, embedding, targets[chunk], n_entries, ctx.needs_input_grad[0])
                )
        target, best, normaliser, likeliest, expected = map(torch.cat, zip(*parts, strict=True))
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(embedding[targets], embedding[likeliest], expected)
            ctx.hidden_dtype = hidden.dtype
        return target - normaliser, best - normaliser

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # noqa: ANN401
        grad_target, grad_best = (gradient[:, None] for gradient in gradients)
        target, likeliest, expected = ctx.saved_tensors
        total = grad_target + grad_best
        gradient = grad_target * target + grad_best * likeliest - total * expected
        return gradient.to(ctx.hidden_dtype), None, None


def _sum_blocks(
    hidden: Tensor, embedding: Tensor, targets: Tensor, n_entries: int, needs_gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return statistics of the tokens' logits, summed over blocks of the vocabulary.

    Returns:
        The target's logit, the largest logit and the log-normaliser, (tokens,) float32 each; and,
        for the gradient, the most likely token and the expected embedding, (tokens, width) float32.
    """
    n_tokens, device = len(hidden), hidden.device
    target = torch.zeros(n_tokens, device=device)
    best = torch.full_like(target, float("-inf"))
    total = torch.zeros_like(target)  # of exponentials relative to the largest logit so far
    likeliest = torch.zeros_like(targets)
    expected = torch.zeros(hidden.shape if needs_gradient else (n_tokens, 0), device=device)
    for start in range(0, len(embedding), n_entries):
        entries = embedding[start : start + n_entries]
        logits = (hidden @ entries.T).float()
        # Not by a list of the tokens inside: a GPU would wait to know its length.
        inside = (targets >= start) & (targets < start + len(entries))
        own = logits.gather(1, (targets - start).clamp(0, len(entries) - 1)[:, None]).squeeze(1)
        target = torch.where(inside, own, target)
        largest, index = logits.max(-1) if needs_gradient else (logits.amax(-1), likeliest)
        likeliest = torch.where(largest > best, start + index, likeliest)
        before, best = best, torch.maximum(best, largest)
        rescale = (before - best).exp()
        exp = _exponentials(logits, best[:, None])
        total = total * rescale + exp.sum(-1)
        if needs_gradient:
            expected = expected * rescale[:, None] + (exp.to(entries.dtype) @ entries).float()
    return target, best, best + total.log(), likeliest, expected / total[:, None]


def _exponentials(logits: Tensor, largest: Tensor) -> Tensor:
    """Return exp(logits - largest), (tokens, entries) float32; the logits are overwritten."""
    shifted = logits.sub_(largest)
    if shifted.device.type != "cpu":
        return shifted.exp_()
    return shifted.mul_(LOG2_E).exp2_()  # torch's exp takes twice as long (AMD EPYC, torch 2.13)
