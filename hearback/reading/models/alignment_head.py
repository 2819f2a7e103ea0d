"""A head on the alignment of learner and reference: one logit that they say the same.

Both are encoded by the same encoder, so that similar sounds have similar frames. Dynamic time
warping aligns the frames (`hearback.reading.models.alignment`); the costs along the path are pooled
into features for a linear classifier.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine.devices import to_device, to_host
from hearback.engine.whisper.heads import LogisticInitLinear
from hearback.reading.models.alignment import PATH_FEATURES, AlignmentPath, dtw, path_features

SEGMENT_FRAMES = (5, 10, 25)  # 0.1, 0.2, 0.5 s: the worst sound, syllable, word
HIGH_QUANTILE = 0.9
TEMPERATURE = 0.1  # of the softmax over frames in the "surprise" features
# A dimension with a smaller standard deviation counts as constant; Whisper's are about 0.1 to 3.
SMALLEST_STD = 1e-3

SERIES = tuple(
    f"{side}_{what}"
    for what in ("cost", "best", "excess", "surprise")
    for side in ("reference", "learner")
)
POOLED = ("mean", "high", *(f"worst_{frames}" for frames in SEGMENT_FRAMES))
FEATURES = (*(f"{series}_{how}" for series in SERIES for how in POOLED), *PATH_FEATURES)


class AlignmentHead(nn.Module):
    """Scores whether learner and reference say the same: one logit.

    Frames are projected (initially by the identity), z-scored per dimension over the clip (which
    removes voice and room), compared by cosine distance and aligned. `FEATURES` of the path and its
    costs are the inputs of a linear layer, which can be initialised as a logistic regression.
    Gradients flow through the costs, not through the choice of the path.

    Args:
        width: width of the frames.
        n_context: width of the context vector.
        hidden: width of a `Correction` network on aligned frames, whose output is added to the
            logit (0: no network).
    """

    def __init__(self, width: int, *, n_context: int = 0, hidden: int = 0) -> None:
        super().__init__()
        self.projection = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.projection.weight)
        self.classifier = LogisticInitLinear(len(FEATURES) + n_context)
        self.correction = Correction(width, hidden) if hidden else None

    def forward(
        self,
        learner: Tensor,
        reference: Tensor,
        n_learner: Tensor,
        n_reference: Tensor,
        context: Tensor | None = None,
    ) -> Tensor:
        """Compute (batch,) float32 logits.

        Args:
            learner: (batch, frames, width).
            reference: (batch, frames, width).
            n_learner: (batch,), number of valid frames of each learner.
            n_reference: (batch,), number of valid frames of each reference.
            context: (batch, n_context).
        """
        alignment = self._align(learner, reference, n_learner, n_reference)
        logits = self.classifier(_with_context(alignment.features(), context))
        if self.correction is not None:
            logits = logits + self.correction(alignment)
        return logits

    def features(
        self,
        learner: Tensor,
        reference: Tensor,
        n_learner: Tensor,
        n_reference: Tensor,
        context: Tensor | None = None,
    ) -> Tensor:
        """Return the linear layer's inputs, (batch, len(FEATURES) + n_context) float32.

        Arguments are those of `forward`.
        """
        alignment = self._align(learner, reference, n_learner, n_reference)
        return _with_context(alignment.features(), context)

    @torch.no_grad()
    def alignment_path(self, learner: Tensor, reference: Tensor) -> AlignmentPath:
        """Align one learner with its reference, (frames, width) each, without padding."""
        lengths = [torch.tensor([len(frames)]) for frames in (learner, reference)]
        alignment = self._align(learner[None], reference[None], *lengths)
        (costs,) = to_host(alignment.along_path(alignment.costs)[0])
        return AlignmentPath(*alignment.paths[0], costs.numpy())

    def _align(
        self, learner: Tensor, reference: Tensor, n_learner: Tensor, n_reference: Tensor
    ) -> "Alignment":
        learner, reference = self.projection(learner), self.projection(reference)
        with torch.autocast(learner.device.type, enabled=False):
            return Alignment(learner.float(), reference.float(), n_learner, n_reference)


def _with_context(features: Tensor, context: Tensor | None) -> Tensor:
    return features if context is None else torch.cat([features, context.float()], dim=1)


class Alignment:
    """A batch of learners aligned with their references.

    Arguments are the projected frames and their numbers, as in `AlignmentHead.forward`.

    Attributes:
        n_frames: number of valid frames by side, (batch,) each; sides are "reference", "learner".
        mask: valid frames by side, (batch, frames) bool each.
        learner: (batch, frames, width), z-scored.
        reference: (batch, frames, width), z-scored.
        costs: (batch, reference frames, learner frames), cosine distances.
        rows: (batch, steps), frames of the reference along the path.
        columns: (batch, steps), frames of the learner along the path.
        on_path: (batch, steps) bool, False in the padding.
        paths: each path, without padding: its frames of the reference and of the learner, int64.
    """

    def __init__(
        self, learner: Tensor, reference: Tensor, n_learner: Tensor, n_reference: Tensor
    ) -> None:
        device = learner.device
        n_learner, n_reference = n_learner.to(device), n_reference.to(device)
        self.n_frames = {"reference": n_reference, "learner": n_learner}
        self.mask = {
            "reference": torch.arange(reference.shape[1], device=device) < n_reference[:, None],
            "learner": torch.arange(learner.shape[1], device=device) < n_learner[:, None],
        }
        self.learner = standardise(learner, self.mask["learner"])
        self.reference = standardise(reference, self.mask["reference"])
        self.costs = 1 - F.normalize(self.reference, dim=-1) @ F.normalize(
            self.learner, dim=-1
        ).transpose(1, 2)
        # The only wait of a step: the paths are found by the CPU.
        on_host = to_host(n_reference, n_learner, self.costs.detach())
        counts = [tensor.numpy() for tensor in on_host]
        rows, columns, lengths = dtw(counts[2], counts[0], counts[1])
        longest = lengths.max()
        self.paths = [
            (row[:n], column[:n]) for row, column, n in zip(rows, columns, lengths, strict=True)
        ]
        self.rows = to_device(torch.from_numpy(rows[:, :longest]), device)
        self.columns = to_device(torch.from_numpy(columns[:, :longest]), device)
        on_path = torch.arange(longest) < torch.from_numpy(lengths)[:, None]
        self.on_path = to_device(on_path, device)

    def along_path(self, cells: Tensor) -> Tensor:
        """Gather (batch, reference frames, learner frames) along the path: (batch, steps)."""
        flat = self.rows * cells.shape[2] + self.columns
        return cells.flatten(1).gather(1, flat)

    def per_frame(self, along_path: Tensor, side: str) -> Tensor:
        """Average (batch, steps[, width]) over the steps of each frame of `side`.

        Returns:
            (batch, frames[, width]).
        """
        index = self.rows if side == "reference" else self.columns
        weights = self.on_path.to(along_path.dtype)
        shape: tuple[int, ...] = (len(index), self.mask[side].shape[1])
        counts = torch.zeros(shape, device=index.device).scatter_add(1, index, weights)
        if along_path.ndim == 3:
            index = index[..., None].expand(-1, -1, along_path.shape[2])
            weights, counts = weights[..., None], counts[..., None]
            shape = (*shape, along_path.shape[2])
        sums = along_path.new_zeros(shape).scatter_add(1, index, along_path * weights)
        return sums / counts.clamp(min=1)

    def features(self) -> Tensor:
        """Return (batch, len(FEATURES)): each series pooled over its frames, and path features."""
        inside = self.mask["reference"][:, :, None] & self.mask["learner"][:, None, :]
        apart = self.costs.masked_fill(~inside, torch.inf)
        similarity = -apart / TEMPERATURE
        on_path = self.along_path(self.costs)
        series: dict[str, Tensor] = {}
        for side, other in (("reference", 2), ("learner", 1)):
            cost = self.per_frame(on_path, side)
            best = apart.amin(other).masked_fill(~self.mask[side], 0)
            # surprise = -log softmax of the aligned frame over all frames of the other side.
            normaliser = similarity.logsumexp(other).masked_fill(~self.mask[side], 0)
            series[f"{side}_cost"] = cost
            series[f"{side}_best"] = best
            series[f"{side}_excess"] = cost - best
            series[f"{side}_surprise"] = cost / TEMPERATURE + normaliser
        pooled = [pool(series[name], self.n_frames[name.split("_")[0]]) for name in SERIES]
        shape = torch.tensor([path_features(*path) for path in self.paths])
        return torch.cat([*pooled, to_device(shape, self.costs.device)], dim=1)


class Correction(nn.Module):
    """A small network on aligned frames, pooled to one logit; zero at initialisation.

    Its inputs for each frame of the reference are that frame, the mean of the learner's frames
    aligned with it, the absolute difference and the product of both, and their costs.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(width, hidden)
        self.score = nn.Sequential(
            nn.Linear(4 * hidden + 2, hidden), nn.GELU(), nn.Linear(hidden, 1)
        )
        self.weigh = nn.Linear(2 * len(POOLED), 1)
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)

    def forward(self, alignment: Alignment) -> Tensor:
        """Compute (batch,) float32, to be added to the logit."""
        index = alignment.columns[..., None].expand(-1, -1, alignment.learner.shape[2])
        aligned = alignment.per_frame(alignment.learner.gather(1, index), "reference")
        mask = alignment.mask["reference"]
        cost = alignment.per_frame(alignment.along_path(alignment.costs), "reference")
        best = alignment.costs.masked_fill(~alignment.mask["learner"][:, None], torch.inf)
        learner, reference = self.reduce(aligned), self.reduce(alignment.reference)
        inputs = [reference, learner, (reference - learner).abs(), reference * learner]
        inputs += [cost[..., None].to(learner.dtype), best.amin(2)[..., None].to(learner.dtype)]
        scores = self.score(torch.cat(inputs, dim=-1)).squeeze(-1).float()
        scores = scores.masked_fill(~mask, 0)
        n_frames = alignment.n_frames["reference"]
        with torch.autocast(scores.device.type, enabled=False):
            pooled = torch.cat([pool(scores, n_frames), pool(-scores, n_frames)], dim=1)
            return self.weigh(pooled).squeeze(1)


def standardise(frames: Tensor, mask: Tensor) -> Tensor:
    """Z-score each dimension of (batch, frames, width) over a clip; zeros in the padding.

    Args:
        frames: (batch, frames, width).
        mask: (batch, frames) bool, True for valid frames.
    """
    weights = mask[..., None].to(frames.dtype) / mask.sum(1)[:, None, None]
    centred = frames - (frames * weights).sum(1, keepdim=True)
    variance = (centred.square() * weights).sum(1, keepdim=True)
    return centred / (variance + SMALLEST_STD**2).sqrt() * mask[..., None]


def pool(series: Tensor, n_frames: Tensor) -> Tensor:
    """Pool a series over its valid frames.

    Args:
        series: (batch, frames).
        n_frames: (batch,), number of valid frames.

    Returns:
        (batch, len(POOLED)): the mean, a high quantile, and the highest mean over a segment, for
        each of `SEGMENT_FRAMES` (the mean if the clip is shorter than the segment).
    """
    positions = torch.arange(series.shape[1], device=series.device)
    mask = positions < n_frames[:, None]
    series = series.masked_fill(~mask, 0)
    mean = series.sum(1) / n_frames
    ranked = series.masked_fill(~mask, -torch.inf).sort(dim=1, descending=True).values
    rank = ((1 - HIGH_QUANTILE) * (n_frames - 1)).round().long()
    high = ranked.gather(1, rank[:, None]).squeeze(1)
    pooled = [mean, high]
    for length in SEGMENT_FRAMES:
        if series.shape[1] < length:
            pooled.append(mean)
            continue
        segments = F.avg_pool1d(series[:, None], length, stride=1).squeeze(1)
        inside = positions[: segments.shape[1]] + length <= n_frames[:, None]
        worst = segments.masked_fill(~inside, -torch.inf).amax(1)
        pooled.append(torch.where(n_frames < length, mean, worst))
    return torch.stack(pooled, dim=1)
