"""Heads on encoder frames: masked pooling over time, then a classifier with one logit."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from hearback.engine.whisper.poolings import Pooling

INITIAL_SCALE = 5.0  # of the cosine: allows probabilities from 0.7 % to 99.3 %


class MeanPooling(nn.Module):
    """Mean over the valid frames."""

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Pool (batch, frames, width) over the (batch, frames) bool mask to (batch, width)."""
        weights = mask.to(frames.dtype) / mask.sum(1, keepdim=True)
        return torch.einsum("bf,bfw->bw", weights, frames)


class AttentionPooling(nn.Module):
    """Weighted mean over the valid frames, with weights from a small network on each frame.

    Yang et al., "Hierarchical Attention Networks for Document Classification", NAACL 2016, eq. 5-7.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Pool (batch, frames, width) over the (batch, frames) bool mask to (batch, width)."""
        scores = self.score(frames).squeeze(-1).float().masked_fill(~mask, float("-inf"))
        weights = scores.softmax(dim=1).to(frames.dtype)
        return torch.einsum("bf,bfw->bw", weights, frames)


class Pooler(nn.Module):
    """Pools frames into one vector of width `n_pooled`, with dropout before or after pooling."""

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
        """Pool (batch, frames, width) over the (batch, frames) bool mask to (batch, n_pooled)."""
        frames = self.frame_dropout(frames)
        pooled = torch.cat([pool(frames, mask) for pool in self.poolings], dim=-1)
        return self.pooled_dropout(pooled)


def make_classifier(n_inputs: int, hidden: int | None) -> nn.Module:
    """Build a linear layer with one output, or an MLP with one hidden layer of width `hidden`."""
    if hidden is None:
        return nn.Linear(n_inputs, 1)
    return nn.Sequential(nn.Linear(n_inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))


class Head(Pooler):
    """Pooling, then a classifier on the pooled vector and the context."""

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
        """Compute (batch,) logits.

        Args:
            frames: (batch, frames, width).
            mask: (batch, frames) bool, True for valid frames.
            context: (batch, n_context).
        """
        pooled = self.pool(frames, mask)
        return self.classifier(torch.cat([pooled, context.to(pooled.dtype)], dim=-1)).squeeze(-1)


class FeatureStandardiser(nn.Module):
    """Z-scored features: base class of heads with a stored mean and standard deviation.

    The statistics are those of the training clips before the first step (`fit`). They are buffers,
    so they are saved with the weights.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.feature_mean: Tensor
        self.feature_std: Tensor
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("feature_std", torch.ones(n_features))

    def standardise(self, features: Tensor) -> Tensor:
        """Z-score (batch, features); float32."""
        return (features.float() - self.feature_mean) / self.feature_std

    def fit(self, features: np.ndarray) -> np.ndarray:
        """Store mean and standard deviation of (rows, features); return the z-scored features."""
        mean, std = features.mean(0), features.std(0)
        std = np.where(std > 0, std, 1.0)  # a constant feature becomes 0, not NaN
        with torch.no_grad():
            self.feature_mean.copy_(torch.from_numpy(mean))
            self.feature_std.copy_(torch.from_numpy(std))
        return (features - mean) / std


class LogisticInitLinear(FeatureStandardiser):
    """A linear layer on z-scored features, initialised as a logistic regression.

    A few hundred clips suffice for the regression, so the model is useful before its first training
    step.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__(n_features)
        self.linear = nn.Linear(n_features, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Compute (batch,) float32 logits of (batch, features)."""
        with torch.autocast(features.device.type, enabled=False):
            return self.linear(self.standardise(features)).squeeze(1)

    def init_from_pretrained(
        self, features: np.ndarray, labels: np.ndarray, c: float = 0.1
    ) -> None:
        """Initialise as a logistic regression on features of the untrained model.

        Args:
            features: (rows, features).
            labels: (rows,) of 0 and 1.
            c: scikit-learn's `C`, the inverse regularisation strength.

        If all labels are equal, the logits are the base rate's.
        """
        if len(np.unique(labels)) < 2:
            self.fit(features)
            odds = (labels.sum() + 1) / ((1 - labels).sum() + 1)  # smoothed: finite
            nn.init.zeros_(self.linear.weight)
            nn.init.constant_(self.linear.bias, float(np.log(odds)))
            return
        regression = LogisticRegression(C=c, max_iter=5000).fit(self.fit(features), labels)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(regression.coef_))
            self.linear.bias.copy_(torch.from_numpy(regression.intercept_))


class VectorClassifier(FeatureStandardiser):
    """A classifier on two concatenated vectors and the context."""

    def __init__(self, widths: tuple[int, int], n_context: int, hidden: int | None) -> None:
        super().__init__(sum(widths))
        self.classifier = make_classifier(sum(widths) + n_context, hidden)

    def forward(self, vectors: Tensor, context: Tensor) -> Tensor:
        """Compute (batch,) logits of (batch, both widths) and (batch, n_context)."""
        return self.classifier(torch.cat([self.standardise(vectors), context], -1)).squeeze(-1)

    def init_from_pretrained(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Fit the z-scores on (rows, both widths): the vectors may differ in scale."""
        self.fit(features)


class VectorCosine(FeatureStandardiser):
    """Logit = scale · cosine of two projected vectors + a linear function of the context.

    With `same_kind` both vectors use the same projection, so that similar vectors are close from
    the start.
    """

    def __init__(self, widths: tuple[int, int], n_context: int, *, same_kind: bool) -> None:
        super().__init__(sum(widths))
        self.widths = widths
        self.projection = nn.Linear(widths[0], widths[0], bias=False)
        self.other_projection = None if same_kind else nn.Linear(widths[1], widths[0], bias=False)
        self.log_scale = nn.Parameter(torch.tensor(INITIAL_SCALE).log())
        self.offset = nn.Linear(n_context, 1)

    def cosine(self, vectors: Tensor) -> Tensor:
        """Compute (batch,) float32 cosines of (batch, both widths)."""
        with torch.autocast(vectors.device.type, enabled=False):
            first, second = self.standardise(vectors).split(self.widths, dim=-1)
            project = self.projection if self.other_projection is None else self.other_projection
            return F.cosine_similarity(self.projection(first), project(second), dim=-1)

    def forward(self, vectors: Tensor, context: Tensor) -> Tensor:
        """Compute (batch,) logits of (batch, both widths) and (batch, n_context)."""
        return self.log_scale.exp() * self.cosine(vectors) + self.offset(context).squeeze(-1)

    @torch.no_grad()
    def init_from_pretrained(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Fit the z-scores on (rows, both widths); initialise to the base rate of the labels."""
        self.fit(features)
        odds = (labels.sum() + 1) / ((1 - labels).sum() + 1)  # smoothed: finite for any labels
        cosine = self.cosine(torch.from_numpy(features).to(self.feature_mean)).mean()
        nn.init.zeros_(self.offset.weight)
        self.offset.bias.fill_(float(np.log(odds) - self.log_scale.exp() * cosine))
