"""From an encoder's frames to one logit: pooling over the pair's true length, then a classifier."""

from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["mean", "attention", "attention+mean"]


class MeanPooling(nn.Module):
    """The mean of a pair's frames."""

    def forward(self, frames: Tensor, heard: Tensor) -> Tensor:
        """Pool (batch, frames, width) where `heard`, (batch, frames) bool, to (batch, width)."""
        weights = heard.to(frames.dtype) / heard.sum(1, keepdim=True)
        return torch.einsum("bf,bfw->bw", weights, frames)


class AttentionPooling(nn.Module):
    """A weighted mean of a pair's frames, the weights from a small network on each frame.

    Yang et al., "Hierarchical Attention Networks for Document Classification", NAACL 2016, eq. 5-7.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, frames: Tensor, heard: Tensor) -> Tensor:
        """Pool (batch, frames, width) where `heard`, (batch, frames) bool, to (batch, width)."""
        scores = self.score(frames).squeeze(-1).float().masked_fill(~heard, float("-inf"))
        weights = scores.softmax(dim=1).to(frames.dtype)
        return torch.einsum("bf,bfw->bw", weights, frames)


class Head(nn.Module):
    """Pooling, then a linear layer (or one hidden layer) on the pooled vector and the context."""

    def __init__(
        self,
        width: int,
        n_context: int,
        *,
        pooling: Pooling,
        hidden: int | None,
        dropout: float,
        dropout_on: Literal["frames", "pooled"],
    ) -> None:
        super().__init__()
        poolings: dict[Pooling, list[nn.Module]] = {
            "mean": [MeanPooling()],
            "attention": [AttentionPooling(width)],
            "attention+mean": [AttentionPooling(width), MeanPooling()],
        }
        self.poolings = nn.ModuleList(poolings[pooling])
        self.frame_dropout = nn.Dropout(dropout if dropout_on == "frames" else 0.0)
        self.pooled_dropout = nn.Dropout(dropout if dropout_on == "pooled" else 0.0)
        n_inputs = width * len(self.poolings) + n_context
        self.classifier = (
            nn.Linear(n_inputs, 1)
            if hidden is None
            else nn.Sequential(nn.Linear(n_inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        )

    def forward(self, frames: Tensor, heard: Tensor, context: Tensor) -> Tensor:
        """Map (batch, frames, width), (batch, frames) and (batch, n_context) to (batch,) logits."""
        frames = self.frame_dropout(frames)
        pooled = torch.cat([pool(frames, heard) for pool in self.poolings], dim=-1)
        pooled = self.pooled_dropout(pooled)
        return self.classifier(torch.cat([pooled, context.to(pooled.dtype)], dim=-1)).squeeze(-1)
