"""What a fold of a songs model computes, for `--plan`: all snippets take equally long."""

from hearback.engine.plan.workload import Workload
from hearback.engine.training.task import Model
from hearback.songs.training import SongTask


class SongWorkload(Workload):
    """The passes of a fold of a songs model."""

    task: SongTask

    def mapped_bytes(self, model: Model) -> float:
        """Return the bytes of the features that the fold reads."""
        rows = (*self.run.train_rows, *self.run.validation_rows)
        return float(self.task.store.n_bytes(self.task.data.filenames[row] for row in rows))
