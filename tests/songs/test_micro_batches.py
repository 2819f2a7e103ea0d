"""--micro_batch for the songs: the same trainer; batch normalisation excludes it."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from hearback.engine.errors import HearbackError
from hearback.engine.training.task import FoldRun
from hearback.engine.training.trainer import Trainer
from hearback.songs.options import SongOptions
from hearback.songs.recipes.whisper import RECIPE as WHISPER
from hearback.songs.training import SongTask
from tests.songs.quick_recipes import QUICK


def test_batch_normalisation_is_refused(song_options: SongOptions) -> None:
    options = replace(song_options, micro_batch=2)
    run = FoldRun(QUICK, 0, options, options.load_data())
    with pytest.raises(HearbackError, match="cnn4: its batch normalisation looks at the whole"):
        Trainer(SongTask(run), run, [])


def test_parts_teach_what_the_whole_batch_teaches(
    song_options: SongOptions, backbone: Path
) -> None:
    recipe = replace(
        WHISPER, batch_size=4, mixtures=0.0, speed=0.0, dropout=0.3, max_gradient_norm=1e9
    )
    options = replace(song_options, backbone=str(backbone), precision="float32")
    data, found = options.load_data(), []
    in_parts = replace(options, micro_batch=3, gradient_checkpointing=True)
    for changed in (options, in_parts):
        run = FoldRun(changed.adapt(recipe), 0, changed, data)
        trainer = Trainer(SongTask(run), run, [])
        n_snippets, batches = next(trainer.task.epoch_batches(trainer.model, range(1)))
        trainer.train_epoch(n_snippets, islice(batches, 1))
        parameters = trainer.model.named_parameters()
        gradients = {name: p.grad for name, p in parameters if p.grad is not None}
        found.append((gradients, trainer.state.progress))
    (whole, progress), (parts, progress_of_parts) = found
    assert progress_of_parts.losses == pytest.approx(progress.losses, rel=1e-5)
    tolerance = 1e-6 * progress.gradient_norms[0]
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=tolerance)
