"""Log-probabilities of target tokens over a large vocabulary, computed in chunks.

The output layer is the expensive part of scoring a text: the 51,864 logits of tiny.en take 200 kB
per token in float32, and the backward pass of a softmax needs several times that. Here the tokens
pass through the output layer in chunks, and the forward pass already computes what the backward
pass needs: the gradient of a log-normaliser is the expected embedding, which is only as wide as the
decoder. (The same idea as cut cross-entropy, Wijmans et al. 2024, arXiv 2411.09009, and Liger's
fused linear loss.)
"""

from typing import Any

import torch
from torch import Tensor

# Tokens per chunk: on a CPU the logits should fit into its caches; a GPU needs large products.
CHUNK_SIZE = {"cpu": 128, "cuda": 2048}


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
        target, best, normaliser = torch.empty(3, len(hidden), device=hidden.device).unbind()
        likeliest = torch.empty_like(targets)
        needs_gradient = ctx.needs_input_grad[0]
        expected = torch.empty_like(hidden, dtype=torch.float32) if needs_gradient else None
        chunk_size = CHUNK_SIZE[hidden.device.type]
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(hidden), chunk_size):
                chunk = slice(start, start + chunk_size)
                logits = hidden[chunk].to(embedding.dtype) @ embedding.T
                target[chunk] = logits.gather(1, targets[chunk, None]).squeeze(1)
                best[chunk], likeliest[chunk] = logits.max(-1)
                exp = (logits.float() - best[chunk, None]).exp_()  # relative to the largest logit
                total = exp.sum(-1)
                normaliser[chunk] = best[chunk] + total.log()
                if expected is not None:
                    mean = exp.to(embedding.dtype) @ embedding
                    expected[chunk] = mean.float() / total[:, None]
        if expected is not None:
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
