"""What a fold's training computes, as passes over its data that can be measured in parts."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from hearback.engine.training.command import MakeTask
from hearback.engine.training.task import Batch, FoldRun, Model, Task

_SEED = 2029


@dataclass(frozen=True)
class BatchSize:
    """The size of a batch.

    Attributes:
        n_examples: number of examples.
        cost: what its time is proportional to, in any unit that is the same for a whole pass.
        size: what the memory of its activations is proportional to, likewise.
    """

    n_examples: int
    cost: float
    size: float

    def size_at_once(self, micro_batch: int | None) -> float:
        """Return the size of what is computed at once: all of it, or a part with --micro_batch."""
        if micro_batch is None:
            return self.size
        return self.size * min(1.0, micro_batch / self.n_examples)


@dataclass(frozen=True)
class Pass:
    """A pass of a training over data.

    Attributes:
        name: for the reader.
        n_times: how often it is done: by a fold, or if it is `shared`, by all folds together.
        batches: the sizes of all its batches.
        load: loads a batch, or its first examples, given its index and their number; returns what
            is passed to `compute`, and its size.
        compute: computes what was loaded, and waits for the result; None: a training step.
        is_loaded: whether `load` takes the time that the training's own loading takes.
        shared: whether folds have the results of this pass in common.
    """

    name: str
    n_times: int
    batches: Sequence[BatchSize]
    load: Callable[[int, int], tuple[Any, BatchSize]]
    compute: Callable[[Any], None] | None = None
    is_loaded: bool = True
    shared: bool = False

    @property
    def cost(self) -> float:
        """The cost of doing it once."""
        return sum(batch.cost for batch in self.batches)

    @property
    def n_examples(self) -> int:
        """The number of examples."""
        return sum(batch.n_examples for batch in self.batches)


class Workload:
    """What a fold computes.

    This class is for tasks whose examples all take as long as each other. A competition with other
    ones has a subclass.

    Args:
        make_task: the competition's task.
        run: the fold that is measured.
        folds: all folds to train; `shared` passes are for all of them.
    """

    def __init__(
        self, make_task: MakeTask, run: FoldRun[Any, Any, Any], folds: Sequence[int]
    ) -> None:
        self.make_task, self.run, self.folds = make_task, run, folds
        self.task: Task = make_task(run)

    @property
    def kind(self) -> Hashable:
        """What the speed depends on: models of one kind are measured once."""
        return self.run.recipe.name

    def passes(self, model: Model) -> list[Pass]:
        """Return the passes, without what is there already; `model`, of this kind, is untrained."""
        return [self._training(model), self._validation(model)]

    def shared_bytes(self, model: Model) -> int:
        """Return the bytes that will be written for all folds, besides those of the backbone."""
        return 0

    def mapped_bytes(self, model: Model) -> float:
        """Return the bytes that the fold reads from files that it maps into its memory."""
        return 0.0

    def _training(self, model: Model) -> Pass:
        size = self.run.recipe.batch_size
        n_examples, epoch = next(self.task.epoch_batches(model, range(1)))
        batches = chain(epoch, self._batches(model))

        def load(_index: int, n_examples: int) -> tuple[Batch, BatchSize]:
            batch = next(batches)
            if n_examples < len(batch):
                batch = batch.split(n_examples)[0].batch
            return batch, BatchSize(len(batch), len(batch), len(batch))

        sizes = [BatchSize(size, size, size)] * (n_examples // size)
        if last := n_examples % size:
            sizes.append(BatchSize(last, last, last))
        return Pass("training", self.run.recipe.epochs, sizes, load)

    def _batches(self, model: Model) -> Iterator[Batch]:
        """Yield the batches of the first epoch again and again."""
        while True:
            yield from next(self.task.epoch_batches(model, range(1)))[1]

    def _validation(self, model: Model) -> Pass:
        rows = np.random.default_rng(_SEED).permutation(self.run.validation_rows)
        n_rows = len(rows)

        def load(_index: int, n_examples: int) -> tuple[np.ndarray, BatchSize]:
            return rows[:n_examples], BatchSize(n_examples, n_examples, n_examples)

        whole = BatchSize(n_rows, n_rows, n_rows)
        compute = partial(self._evaluate, model)
        return Pass("validation", self.run.recipe.epochs, [whole], load, compute, is_loaded=False)

    def _evaluate(self, model: Model, rows: np.ndarray) -> None:
        sampled = replace(self.run, data=_SomeRows(self.run.data, rows))
        self.make_task(sampled).evaluate(model.eval())


class _SomeRows:
    """Data of which only some rows are validated."""

    def __init__(self, data: Any, rows: np.ndarray) -> None:  # noqa: ANN401  (a competition's)
        self._data, self._rows = data, rows

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._data, name)

    def validation_rows(self, _fold: int) -> np.ndarray:
        """Return these rows."""
        return self._rows


MakeWorkload = Callable[[FoldRun[Any, Any, Any], Sequence[int]], Workload]
