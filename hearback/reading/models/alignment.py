"""Reference and learner aligned frame to frame; how well they agree, pooled into one logit.

The two are encoded apart by one encoder, so sounds that are alike have frames that are alike.
Dynamic time warping (Sakoe & Chiba, "Dynamic programming algorithm optimization for spoken word
recognition", IEEE Trans. ASSP 26, 1978) finds which frame of the learner belongs to which of the
reference. A word that was replaced is a stretch of high cost; one left out, a stretch of the
reference that a moment of the learner has to serve for; one put in, the reverse. The features of a
path follow Lee & Glass, "A comparison-based approach to mispronunciation detection", SLT 2012.
"""

from dataclasses import dataclass

import numba
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hearback.engine.whisper.encoder import FRAMES_PER_SECOND, SAMPLES_PER_FRAME
from hearback.engine.whisper.heads import LogisticInitLinear

DIAGONAL_WEIGHT = 2.0  # a step in both directions counts twice (Sakoe & Chiba's symmetric form)
STRETCHES = (5, 10, 25)  # frames, 0.1 to 0.5 s: the worst sound, syllable, word
SPEED_STRETCHES = (8, 15, 30)  # frames, over which local speed is measured
HIGH_QUANTILE = 0.9
TEMPERATURE = 0.1  # of the softmax that asks how surprising an aligned frame is
# Standard deviation below which a dimension is taken for constant. Whisper's are about 0.1 to 3.
SMALLEST_STD = 1e-3
SILENCE_DB = -40.0  # below the reference's loudest frame: no word is said there

SERIES = tuple(
    f"{side}_{what}"
    for what in ("cost", "best", "excess", "surprise")
    for side in ("reference", "learner")
)
POOLED = ("mean", "high", *(f"worst_{frames}" for frames in STRETCHES))
SHAPE = (
    "log_length_ratio",
    "log_reference_length",
    "diagonal_share",
    "reference_only_share",
    "learner_only_share",
    "longest_reference_only",
    "longest_learner_only",
    "largest_detour",
    "mean_detour",
    *(
        f"{side}_{what}_{frames}"
        for side in ("reference", "learner")
        for frames in SPEED_STRETCHES
        for what in ("slowest", "fastest", "uneven")
    ),
)
FEATURES = (*(f"{series}_{how}" for series in SERIES for how in POOLED), *SHAPE)


@dataclass(frozen=True)
class Trace:
    """How one learner follows the reference: a path and what it costs, (steps,) each.

    `reference` and `learner` are frames (`FRAMES_PER_SECOND` of them a second), neither ever goes
    back; `costs` are the cosine distances of the frames, 0 to 2, higher where the two part.
    """

    reference: NDArray[np.int64]
    learner: NDArray[np.int64]
    costs: NDArray[np.float32]

    def cost_between(self, start: float, end: float) -> float:
        """Return the mean cost over `start` to `end`, seconds of the reference (NaN: no frame)."""
        inside = (self.reference >= start * FRAMES_PER_SECOND) & (
            self.reference < end * FRAMES_PER_SECOND
        )
        return float(self.costs[inside].mean()) if inside.any() else float("nan")

    def learner_between(self, start: float, end: float) -> tuple[float, float]:
        """Return where in the learner, in seconds, the reference's `start` to `end` is found."""
        first = np.searchsorted(self.reference, int(start * FRAMES_PER_SECOND))
        last = np.searchsorted(self.reference, int(np.ceil(end * FRAMES_PER_SECOND)))
        frames = self.learner[min(first, len(self.learner) - 1) : max(last, first + 1)]
        return frames[0] / FRAMES_PER_SECOND, (frames[-1] + 1) / FRAMES_PER_SECOND

    def parting(self, seconds: float = 0.3) -> tuple[float, float]:
        """Return the start, in seconds of the reference and of the learner, of the worst stretch.

        It is the stretch of `seconds` of the reference with the highest mean cost.
        """
        counts = np.bincount(self.reference)
        costs = np.bincount(self.reference, self.costs) / counts
        width = min(len(costs), max(1, round(seconds * FRAMES_PER_SECOND)))
        start = int(np.convolve(costs, np.ones(width) / width, "valid").argmax())
        learner = int(self.learner[np.searchsorted(self.reference, start)])
        return start / FRAMES_PER_SECOND, learner / FRAMES_PER_SECOND


@numba.njit(nogil=True)
def warp(
    costs: NDArray[np.float32], n_rows: NDArray[np.int64], n_columns: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Find the cheapest monotonic paths through cost matrices, corner to corner.

    `costs` is (batch, rows, columns); matrix b's first `n_rows[b]` × `n_columns[b]` cells count. A
    path steps down, right or both at once; the last counts `DIAGONAL_WEIGHT` times, so that all
    paths between two corners weigh the same. Returns the paths' rows and columns,
    (batch, rows + columns - 1), the end filled with the last cell, and their lengths, (batch,).
    """
    n_batch, most_rows, most_columns = costs.shape
    rows = np.zeros((n_batch, most_rows + most_columns - 1), np.int64)
    columns = np.zeros_like(rows)
    lengths = np.zeros(n_batch, np.int64)
    total = np.empty((most_rows, most_columns))
    came_from = np.empty((most_rows, most_columns), np.int8)  # 0: both, 1: down, 2: right
    for b in range(n_batch):
        for i in range(n_rows[b]):
            for j in range(n_columns[b]):
                cost = costs[b, i, j]
                if i == 0 and j == 0:
                    total[i, j] = DIAGONAL_WEIGHT * cost
                    continue
                cheapest = np.inf
                step = 0
                if i > 0 and j > 0:
                    cheapest = total[i - 1, j - 1] + DIAGONAL_WEIGHT * cost
                if i > 0 and total[i - 1, j] + cost < cheapest:
                    cheapest = total[i - 1, j] + cost
                    step = 1
                if j > 0 and total[i, j - 1] + cost < cheapest:
                    cheapest = total[i, j - 1] + cost
                    step = 2
                total[i, j] = cheapest
                came_from[i, j] = step
        # From the end back to the start, written from the array's end, then moved to its start.
        place = rows.shape[1] - 1
        i, j = n_rows[b] - 1, n_columns[b] - 1
        rows[b, place], columns[b, place] = i, j
        while i > 0 or j > 0:
            step = came_from[i, j]
            if step != 2:
                i -= 1
            if step != 1:
                j -= 1
            place -= 1
            rows[b, place], columns[b, place] = i, j
        length = rows.shape[1] - place
        for k in range(rows.shape[1]):
            source = min(place + k, rows.shape[1] - 1)
            rows[b, k], columns[b, k] = rows[b, source], columns[b, source]
        lengths[b] = length
    return rows, columns, lengths


def describe_shape(reference: NDArray[np.int64], learner: NDArray[np.int64]) -> list[float]:
    """Describe a path's shape, whatever it costs: the values of `SHAPE`.

    `reference` and `learner` are the frames along it, (steps,).
    """
    n_reference, n_learner = reference[-1] + 1, learner[-1] + 1
    forward, onward = np.diff(reference), np.diff(learner)
    reference_only, learner_only = onward == 0, forward == 0
    where = np.bincount(reference, learner) / np.bincount(reference)  # in the learner
    back = np.bincount(learner, reference) / np.bincount(learner)
    detour = np.abs(where - np.linspace(0, n_learner - 1, n_reference)) / n_learner
    values = [
        np.log(n_learner / n_reference),
        np.log(n_reference),
        1 - (reference_only.sum() + learner_only.sum()) / max(1, len(forward)),
        reference_only.sum() / n_reference,
        learner_only.sum() / n_learner,
        _longest_run(reference_only),
        _longest_run(learner_only),
        detour.max(),
        detour.mean(),
    ]
    for places in (where, back):
        for frames in SPEED_STRETCHES:
            width = min(frames, len(places) - 1)
            speed = np.log((places[width:] - places[: len(places) - width] + 1) / (width + 1))
            usual = np.median(speed)
            values += [speed.min() - usual, speed.max() - usual, speed.std()]
    return [float(value) for value in values]


def _longest_run(flags: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


class AlignmentHead(nn.Module):
    """Two sequences of frames to one logit that they say the same.

    The frames are projected (by the identity at first), each dimension standardised over the clip
    (which takes the voice and the room out), and compared by cosine; `FEATURES` describe the path
    of least cost, and a linear layer weighs them. The path has no gradient; the costs along it do.
    The linear layer can start as a logistic regression on untrained features.

    `hidden` is the width of a small network that looks at each aligned pair of frames as well and
    adds to the logit, at first nothing (0: none).
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
        """Return (batch,) float32 logits.

        `learner` and `reference` are (batch, frames, width), of which the first `n_learner` and
        `n_reference`, (batch,), were heard; `context` is (batch, n_context).
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
        """Return what the linear layer weighs: `FEATURES`, then the context; (batch, …) float32."""
        alignment = self._align(learner, reference, n_learner, n_reference)
        return _with_context(alignment.features(), context)

    @torch.no_grad()
    def trace(self, learner: Tensor, reference: Tensor) -> Trace:
        """Return the path of one clip, (frames, width) each, nothing padded, and its costs."""
        lengths = [torch.tensor([len(frames)]) for frames in (learner, reference)]
        alignment = self._align(learner[None], reference[None], *lengths)
        return Trace(
            reference=alignment.rows[0].cpu().numpy(),
            learner=alignment.columns[0].cpu().numpy(),
            costs=alignment.along_path(alignment.costs)[0].cpu().numpy(),
        )

    def _align(
        self, learner: Tensor, reference: Tensor, n_learner: Tensor, n_reference: Tensor
    ) -> "Alignment":
        learner, reference = self.projection(learner), self.projection(reference)
        with torch.autocast(learner.device.type, enabled=False):
            return Alignment(learner.float(), reference.float(), n_learner, n_reference)


def _with_context(features: Tensor, context: Tensor | None) -> Tensor:
    return features if context is None else torch.cat([features, context.float()], dim=1)


class Alignment:
    """A batch of learners aligned with their references; what is pooled from it is clip by clip.

    `rows` and `columns`, (batch, steps), are frames of reference and learner along the path, of
    which `on_path` are no padding; `costs` is (batch, reference frames, learner frames).
    """

    def __init__(
        self, learner: Tensor, reference: Tensor, n_learner: Tensor, n_reference: Tensor
    ) -> None:
        device = learner.device
        n_learner, n_reference = n_learner.to(device), n_reference.to(device)
        self.n = {"reference": n_reference, "learner": n_learner}
        self.heard = {
            "reference": torch.arange(reference.shape[1], device=device) < n_reference[:, None],
            "learner": torch.arange(learner.shape[1], device=device) < n_learner[:, None],
        }
        self.learner = standardise(learner, self.heard["learner"])
        self.reference = standardise(reference, self.heard["reference"])
        self.costs = 1 - F.normalize(self.reference, dim=-1) @ F.normalize(
            self.learner, dim=-1
        ).transpose(1, 2)
        rows, columns, lengths = warp(
            self.costs.detach().cpu().numpy(),
            n_reference.cpu().numpy(),
            n_learner.cpu().numpy(),
        )
        longest = lengths.max()
        self._paths = [
            (row[:n], column[:n]) for row, column, n in zip(rows, columns, lengths, strict=True)
        ]
        self.rows = torch.from_numpy(rows[:, :longest]).to(device)
        self.columns = torch.from_numpy(columns[:, :longest]).to(device)
        self.on_path = (torch.arange(longest) < torch.from_numpy(lengths)[:, None]).to(device)

    def along_path(self, cells: Tensor) -> Tensor:
        """Gather (batch, reference frames, learner frames) along the path, to (batch, steps)."""
        flat = self.rows * cells.shape[2] + self.columns
        return cells.flatten(1).gather(1, flat)

    def per_frame(self, along_path: Tensor, side: str) -> Tensor:
        """Average (batch, steps[, width]) over the steps that each frame of `side` is on."""
        index = self.rows if side == "reference" else self.columns
        weights = self.on_path.to(along_path.dtype)
        shape: tuple[int, ...] = (len(index), self.heard[side].shape[1])
        counts = torch.zeros(shape, device=index.device).scatter_add(1, index, weights)
        if along_path.ndim == 3:
            index = index[..., None].expand(-1, -1, along_path.shape[2])
            weights, counts = weights[..., None], counts[..., None]
            shape = (*shape, along_path.shape[2])
        sums = along_path.new_zeros(shape).scatter_add(1, index, along_path * weights)
        return sums / counts.clamp(min=1)

    def features(self) -> Tensor:
        """Return (batch, len(FEATURES)): the series of every frame pooled, and the path's shape."""
        inside = self.heard["reference"][:, :, None] & self.heard["learner"][:, None, :]
        apart = self.costs.masked_fill(~inside, torch.inf)
        likeness = -apart / TEMPERATURE
        on_path = self.along_path(self.costs)
        series: dict[str, Tensor] = {}
        for side, other in (("reference", 2), ("learner", 1)):
            cost = self.per_frame(on_path, side)
            best = apart.amin(other).masked_fill(~self.heard[side], 0)
            # How far from certain it is that the aligned frame, of all, is this one's counterpart.
            normaliser = likeness.logsumexp(other).masked_fill(~self.heard[side], 0)
            series[f"{side}_cost"] = cost
            series[f"{side}_best"] = best
            series[f"{side}_excess"] = cost - best
            series[f"{side}_surprise"] = cost / TEMPERATURE + normaliser
        pooled = [pool(series[name], self.n[name.split("_")[0]]) for name in SERIES]
        shape = torch.tensor([describe_shape(*path) for path in self._paths])
        return torch.cat([*pooled, shape.to(self.costs.device)], dim=1)


def word_spans(reference: NDArray[np.float32], text: str) -> list[tuple[float, float]]:
    """Estimate when a reference, (samples,) at 16 kHz, says each word of its text, in seconds.

    No voice tells its timing, so this is a guess: the time that is not silent is shared out by the
    number of letters and digits of a word, plus one (short words take longer than their letters
    say). It is of use for saying roughly where, not for cutting words out.
    """
    words = text.split()
    if not words:
        raise ValueError("a text without a word has no spans")
    n_frames = -(-len(reference) // SAMPLES_PER_FRAME)
    padded = np.pad(reference, (0, n_frames * SAMPLES_PER_FRAME - len(reference)))
    power = np.square(padded, dtype=np.float64).reshape(n_frames, -1).mean(1)
    voiced = power > power.max(initial=0) * 10 ** (SILENCE_DB / 10)
    if not voiced.any():
        raise ValueError("a silent reference says no word")
    said = np.concatenate([[0.0], np.cumsum(voiced)]) / voiced.sum()  # the share said by a frame
    letters = np.array([1 + sum(map(str.isalnum, word)) for word in words])
    shares = np.concatenate([[0.0], np.cumsum(letters) / letters.sum()])
    # Where the share is reached, and where it is left: silence between two words is neither's.
    edges = np.arange(n_frames + 1) / FRAMES_PER_SECOND
    tolerance = 1e-9
    has_pretrained_init = [
        edges[np.searchsorted(said, share + tolerance) - 1] for share in shares[:-1]
    ]
    ends = [edges[np.searchsorted(said, share - tolerance)] for share in shares[1:]]
    return [
        (float(start), float(end)) for start, end in zip(has_pretrained_init, ends, strict=True)
    ]


class Correction(nn.Module):
    """A small network on each aligned pair of frames, pooled to a logit: zero before training.

    It reads the reference's frame, the mean of the learner's frames aligned with it, their
    difference and their product.
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
        """Return (batch,) float32, what is added to the logit."""
        index = alignment.columns[..., None].expand(-1, -1, alignment.learner.shape[2])
        aligned = alignment.per_frame(alignment.learner.gather(1, index), "reference")
        heard = alignment.heard["reference"]
        cost = alignment.per_frame(alignment.along_path(alignment.costs), "reference")
        best = alignment.costs.masked_fill(~alignment.heard["learner"][:, None], torch.inf)
        said, meant = self.reduce(aligned), self.reduce(alignment.reference)
        seen = [meant, said, (meant - said).abs(), meant * said]
        seen += [cost[..., None].to(said.dtype), best.amin(2)[..., None].to(said.dtype)]
        scores = self.score(torch.cat(seen, dim=-1)).squeeze(-1).float()
        scores = scores.masked_fill(~heard, 0)
        n = alignment.n["reference"]
        with torch.autocast(scores.device.type, enabled=False):
            pooled = torch.cat([pool(scores, n), pool(-scores, n)], dim=1)
            return self.weigh(pooled).squeeze(1)


def standardise(frames: Tensor, heard: Tensor) -> Tensor:
    """Give each dimension mean 0 and standard deviation 1 over a clip; silence its padding.

    `frames` is (batch, frames, width) and `heard` (batch, frames) bool.
    """
    weights = heard[..., None].to(frames.dtype) / heard.sum(1)[:, None, None]
    centred = frames - (frames * weights).sum(1, keepdim=True)
    variance = (centred.square() * weights).sum(1, keepdim=True)
    return centred / (variance + SMALLEST_STD**2).sqrt() * heard[..., None]


def pool(series: Tensor, n: Tensor) -> Tensor:
    """Pool (batch, frames), of which the first `n`, (batch,), count, to (batch, len(POOLED)).

    The mean, a high quantile, and the highest mean of a stretch for each of `STRETCHES` (of all
    where a clip is shorter).
    """
    places = torch.arange(series.shape[1], device=series.device)
    heard = places < n[:, None]
    series = series.masked_fill(~heard, 0)
    mean = series.sum(1) / n
    ranked = series.masked_fill(~heard, -torch.inf).sort(dim=1, descending=True).values
    high = ranked.gather(1, ((1 - HIGH_QUANTILE) * (n - 1)).round().long()[:, None]).squeeze(1)
    pooled = [mean, high]
    for frames in STRETCHES:
        if series.shape[1] < frames:
            pooled.append(mean)
            continue
        stretches = F.avg_pool1d(series[:, None], frames, stride=1).squeeze(1)
        whole = places[: stretches.shape[1]] + frames <= n[:, None]
        worst = stretches.masked_fill(~whole, -torch.inf).amax(1)
        pooled.append(torch.where(n < frames, mean, worst))
    return torch.stack(pooled, dim=1)
