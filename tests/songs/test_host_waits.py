"""The inner loops of the songs' models, on a device that counts the host's waits."""

from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
import torch

from hearback.engine.training.task import FoldRun
from hearback.engine.training.trainer import Trainer
from hearback.songs.options import SongOptions
from hearback.songs.training import SongTask
from tests.songs.quick_recipes import RECIPES
from tests.strict_device import STRICT, StrictDevice

STEP = ("number", "engine/training/trainer.py read")
# Torch reads the number of batches for its cumulative average, at the start of a step, when the
# device has nothing to do.
COUNT = ("number", "songs/models/classifiers.py forward")
SKIPS = ("number", "engine/training/optimization.py step")  # torch's scaler, without fused steps


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_step_of_training_waits_for_its_results(song_options: SongOptions, name: str) -> None:
    # Convolutions in fp16 are slow on a CPU: only where the scaler's own wait is expected.
    precision = "float16" if name == "sgd" else "float32"
    options = replace(song_options, device=str(STRICT), precision=precision)
    with StrictDevice() as device:
        run = FoldRun(RECIPES[name], 0, options, options.load_data())
        trainer = Trainer(SongTask(run), run, [])
        n_snippets, batches = next(trainer.task.epoch_batches(trainer.model, range(1)))
        trainer.train_epoch(n_snippets, islice(batches, 2))
        steps = len(trainer.state.progress.losses)
        counts = Counter((wait.kind, wait.place) for wait in device.waits)
        assert steps > 1 and counts.pop(("copy to the host", STEP[1])) == steps
        assert counts.pop(COUNT) == steps
        assert counts.pop(SKIPS, 0) == (steps if name == "sgd" else 0)
        moved = {place for _, place in counts}
        assert moved <= {"engine/training/trainer.py __init__", "songs/training.py __init__"}
        with torch.no_grad(), device.inner_loop() as waits:
            trainer.task.evaluate(trainer.eval_model.eval())
        assert [wait.place for wait in waits] == ["songs/inference.py predict"]
