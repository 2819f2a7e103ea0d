"""How likely tokens are among a whole vocabulary, without ever holding all of its logits.

The output layer is what costs in reading a text: tiny.en's 51,864 logits for every token are 200 kB
in float32, and a softmax's backward pass needs several times that. Here a few tokens at a time go
through it, and what backward needs is worked out on the way forward: the gradient of a
log-normaliser is the expected embedding, which is no wider than the decoder. (The idea is that of
cut cross-entropy, Wijmans et al. 2024, arXiv 2411.09009, and of Liger's fused linear loss.)
"""

from typing import Any

import torch
from torch import Tensor

# Tokens at a time: on a CPU their logits should stay in its caches, on a GPU fill it.
N_AT_ONCE = {"cpu": 128, "cuda": 2048}


def token_likelihoods(hidden: Tensor, embedding: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of the targets and of the likeliest tokens, (tokens,) each.

    `hidden` is (tokens, width), `embedding` (vocabulary, width), the output layer's frozen weights,
    `targets` (tokens,) of ids. Both are float32, in nats; matrix products are in autocast's type,
    where that is on. Gradients reach `hidden` alone; raises ValueError where the embedding wants
    one.
    """
    if embedding.requires_grad:
        raise ValueError("the embedding is not frozen, and would get no gradient")
    device = hidden.device.type
    dtype = hidden.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    log_probabilities, best = _TokenLikelihoods.apply(hidden, embedding.to(dtype), targets)
    return log_probabilities, best


class _TokenLikelihoods(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, embedding: Tensor, targets: Tensor) -> Any:  # noqa: ANN401
        target, best, normaliser = torch.empty(3, len(hidden), device=hidden.device).unbind()
        likeliest = torch.empty_like(targets)
        wants_gradient = ctx.needs_input_grad[0]
        expected = torch.empty_like(hidden, dtype=torch.float32) if wants_gradient else None
        n_at_once = N_AT_ONCE[hidden.device.type]
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(hidden), n_at_once):
                part = slice(start, start + n_at_once)
                logits = hidden[part].to(embedding.dtype) @ embedding.T
                target[part] = logits.gather(1, targets[part, None]).squeeze(1)
                best[part], likeliest[part] = logits.max(-1)
                odds = (logits.float() - best[part, None]).exp_()  # to the likeliest token's
                total = odds.sum(-1)
                normaliser[part] = best[part] + total.log()
                if expected is not None:
                    mean = odds.to(embedding.dtype) @ embedding
                    expected[part] = mean.float() / total[:, None]
        if expected is not None:
            ctx.save_for_backward(embedding[targets], embedding[likeliest], expected)
            ctx.hidden_dtype = hidden.dtype
        return target - normaliser, best - normaliser

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # noqa: ANN401
        of_target, of_best = (gradient[:, None] for gradient in gradients)
        target, likeliest, expected = ctx.saved_tensors
        gradient = of_target * target + of_best * likeliest - (of_target + of_best) * expected
        return gradient.to(ctx.hidden_dtype), None, None
