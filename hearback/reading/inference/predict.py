"""Predictions of one model: probabilities of clips, and log-odds of words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hearback.reading.inference.batch_plan import batch_seconds, plan_batches
from hearback.reading.inference.model_group import ModelGroup, ScoreFn
from hearback.reading.inference.progress import Progress
from hearback.reading.models.base import Scorer
from hearback.reading.pairs import PairSource
from hearback.reading.window_batches import Batch
from hearback.reading.words import count_positions


@dataclass(frozen=True)
class Predictions:
    """Scores of some rows.

    `clips` are the probabilities that the learner said the text, (rows,) float64. `words` are the
    log-odds of the texts' words, (rows, positions, 2), laid out as in `hearback.reading.words`;
    None if the model scores no words.
    """

    clips: np.ndarray
    words: np.ndarray | None


def predict(
    model: Scorer,
    source: PairSource,
    rows: Sequence[int] | np.ndarray,
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
    progress: str | None = None,
) -> Predictions:
    """Return the scores of some rows' clips, and of their words if the model scores words."""
    if not len(rows):
        return Predictions(np.empty(0), None)
    n_positions = count_positions(source.texts[row] for row in rows)
    scores = collect(
        model,
        source,
        rows,
        score_with_words(n_positions),
        device=device,
        dtype=dtype,
        n_workers=n_workers,
        progress=progress,
    )
    clips, words = scores[:, 0], scores[:, 1:]
    return Predictions(clips, words.reshape(len(rows), n_positions, 2) if words.size else None)


def collect(
    model: Scorer,
    source: PairSource,
    rows: Sequence[int] | np.ndarray,
    score_fn: ScoreFn,
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
    progress: str | None = None,
) -> np.ndarray:
    """Return `score_fn` of each row's clip with its own text, (rows, …) float64.

    `score_fn` maps the model and a batch to (batch, …). Every clip has a window of its own length,
    so its values depend neither on its batch nor on its position in the table. The model
    is moved to the device and set to evaluation mode.
    """
    group = ModelGroup(device, dtype)
    group.add(model)
    planned = plan_batches(source, rows, model.recipe, batch_seconds(device))
    cost = sum(batch.cost(model.encoder_sizes) for batch in planned)
    values: dict[int, np.ndarray] = {}
    with Progress(len(rows), cost, progress) as bar:
        for batch in group.run(source, rows, planned, score_fn, n_workers=n_workers):
            values.update(zip(batch.indices, batch.values[0], strict=True))
            bar.advance(len(batch.indices), batch.cost)
    return np.array([values[index] for index in range(len(rows))])


def score_with_words(n_positions: int) -> ScoreFn:
    """Return a function from batches to clip probabilities and, flattened, word log-odds.

    Its values are (batch, 1 + 2 n_positions), or (batch, 1) if the model scores no words.
    """

    def score(model: Scorer, batch: Batch) -> Tensor:
        logits, words = model.forward_with_words(batch)
        clips = logits.sigmoid()[:, None]
        if words is None:
            return clips
        words = F.pad(words, (0, 0, 0, n_positions - words.shape[1]), value=float("nan"))
        return torch.cat([clips, words.flatten(1)], dim=1)

    return score
