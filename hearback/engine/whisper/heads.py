"""From an encoder's frames to one logit: pooling over the pair's true length, then a classifier."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

Pooling = Literal["mean", "attention", "attention+mean"]
INITIAL_SCALE = 5.0  # of a cosine: with it, scores may be as far apart as 0.7 % and 99.3 %


class MeanPooling(nn.Module):
    """The mean of a pair's frames."""

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Pool (batch, frames, width) where `mask`, (batch, frames) bool, to (batch, width)."""
        weights = mask.to(frames.dtype) / mask.sum(1, keepdim=True)
        return torch.einsum("bf,bfw->bw", weights, frames)


class AttentionPooling(nn.Module):
    """A weighted mean of a pair's frames, the weights from a small network on each frame.

    Yang et al., "Hierarchical Attention Networks for Document Classification", NAACL 2016, eq. 5-7.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Pool (batch, frames, width) where `mask`, (batch, frames) bool, to (batch, width)."""
        scores = self.score(frames).squeeze(-1).float().masked_fill(~mask, float("-inf"))
        weights = scores.softmax(dim=1).to(frames.dtype)
        return torch.einsum("bf,bfw->bw", weights, frames)


class Pooler(nn.Module):
    """Frames to one vector of the width `n_pooled`, with dropout on the ones or on the other."""

    def __init__(
        self,
        width: int,
        *,
        pooling: Pooling,
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
        self.n_pooled = width * len(self.poolings)

    def pool(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Pool (batch, frames, width) where `mask`, (batch, frames) bool, to (batch, n_pooled)."""
        frames = self.frame_dropout(frames)
        pooled = torch.cat([pool(frames, mask) for pool in self.poolings], dim=-1)
        return self.pooled_dropout(pooled)


def make_classifier(n_inputs: int, hidden: int | None) -> nn.Module:
    """Return a linear layer to one logit, or one hidden layer and then that."""
    if hidden is None:
        return nn.Linear(n_inputs, 1)
    return nn.Sequential(nn.Linear(n_inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))


class Head(Pooler):
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
        super().__init__(width, pooling=pooling, dropout=dropout, dropout_on=dropout_on)
        self.classifier = make_classifier(self.n_pooled + n_context, hidden)

    def forward(self, frames: Tensor, mask: Tensor, context: Tensor) -> Tensor:
        """Map (batch, frames, width), (batch, frames) and (batch, n_context) to (batch,) logits."""
        pooled = self.pool(frames, mask)
        return self.classifier(torch.cat([pooled, context.to(pooled.dtype)], dim=-1)).squeeze(-1)


class Standardised(nn.Module):
    """Features less their mean, over their deviation, of the clips that a training starts from."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.feature_mean: Tensor
        self.feature_std: Tensor
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("feature_std", torch.ones(n_features))

    def standardise(self, features: Tensor) -> Tensor:
        """Standardise (batch, features) to float32."""
        return (features.float() - self.feature_mean) / self.feature_std

    def fit(self, features: np.ndarray) -> np.ndarray:
        """Keep mean and deviation of (rows, features); return these standardised."""
        mean, std = features.mean(0), features.std(0)
        std = np.where(std > 0, std, 1.0)  # a constant says nothing, and must not become NaN
        with torch.no_grad():
            self.feature_mean.copy_(torch.from_numpy(mean))
            self.feature_std.copy_(torch.from_numpy(std))
        return (features - mean) / std


class LogisticInitLinear(Standardised):
    """A linear layer on standardised features, which starts as a logistic regression.

    A model that has it is good before its first step: what its features are worth untrained is
    known from some hundred clips, and need not be found by gradients.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__(n_features)
        self.linear = nn.Linear(n_features, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, features) to (batch,) float32 logits."""
        with torch.autocast(features.device.type, enabled=False):
            return self.linear(self.standardise(features)).squeeze(1)

    def init_from_pretrained(
        self, features: np.ndarray, labels: np.ndarray, c: float = 0.1
    ) -> None:
        """Start as a logistic regression of (rows,) labels on (rows, features).

        `c` is scikit-learn's `C`, the inverse of the penalty on the weights. Raises ValueError
        where all labels are the same.
        """
        fit = LogisticRegression(C=c, max_iter=5000).fit(self.fit(features), labels)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(fit.coef_))
            self.linear.bias.copy_(torch.from_numpy(fit.intercept_))


class VectorClassifier(Standardised):
    """Two vectors, side by side, and the context to one logit."""

    def __init__(self, widths: tuple[int, int], n_context: int, hidden: int | None) -> None:
        super().__init__(sum(widths))
        self.classifier = make_classifier(sum(widths) + n_context, hidden)

    def forward(self, vectors: Tensor, context: Tensor) -> Tensor:
        """Map (batch, both widths) and (batch, n_context) to (batch,) logits."""
        return self.classifier(torch.cat([self.standardise(vectors), context], -1)).squeeze(-1)

    def init_from_pretrained(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Standardise as (rows, both widths) say: the one vector's numbers may be much smaller."""
        self.fit(features)


class VectorCosine(Standardised):
    """The cosine of two vectors in a common space, times a learned scale, to one logit.

    What is added to it depends on the context. `same_kind` vectors share their projection: what is
    alike is near from the start.
    """

    def __init__(self, widths: tuple[int, int], n_context: int, *, same_kind: bool) -> None:
        super().__init__(sum(widths))
        self.widths = widths
        self.projection = nn.Linear(widths[0], widths[0], bias=False)
        self.other_projection = None if same_kind else nn.Linear(widths[1], widths[0], bias=False)
        self.log_scale = nn.Parameter(torch.tensor(INITIAL_SCALE).log())
        self.offset = nn.Linear(n_context, 1)

    def cosine(self, vectors: Tensor) -> Tensor:
        """Map (batch, both widths) to (batch,) float32 cosines."""
        with torch.autocast(vectors.device.type, enabled=False):
            one, other = self.standardise(vectors).split(self.widths, dim=-1)
            projected = self.projection(one)
            project = self.projection if self.other_projection is None else self.other_projection
            return F.cosine_similarity(projected, project(other), dim=-1)

    def forward(self, vectors: Tensor, context: Tensor) -> Tensor:
        """Map (batch, both widths) and (batch, n_context) to (batch,) logits."""
        return self.log_scale.exp() * self.cosine(vectors) + self.offset(context).squeeze(-1)

    @torch.no_grad()
    def init_from_pretrained(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Standardise as (rows, both widths) say, and start at the base rate of (rows,) labels."""
        self.fit(features)
        odds = (labels.sum() + 1) / ((1 - labels).sum() + 1)  # finite, whatever the labels
        cosine = self.cosine(torch.from_numpy(features).to(self.feature_mean)).mean()
        nn.init.zeros_(self.offset.weight)
        self.offset.bias.fill_(float(np.log(odds) - self.log_scale.exp() * cosine))
