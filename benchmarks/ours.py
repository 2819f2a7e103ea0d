"""Our side of the benchmarks: training, an ensemble's inference, and data loading."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import flops
from benchmarks.clips import Clips, select
from benchmarks.setting import Setting
from hearback.engine import cli
from hearback.engine.audio.log_mel import log_mel
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.training import fold_files
from hearback.engine.training.callbacks import ProgressBar, StallDetection, TensorBoard
from hearback.engine.training.fold_files import FoldFiles
from hearback.engine.training.task import FoldRun
from hearback.engine.training.trainer import Trainer
from hearback.engine.whisper.encoder import SAMPLES_PER_FRAME, EncoderConfig
from hearback.engine.whisper.weights import read_config, read_tensors
from hearback.reading.dataset import TrainingData
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.ensemble_run import predict_ensemble
from hearback.reading.inference.folds import read_folds
from hearback.reading.models.scorers import build
from hearback.reading.options import TrainingOptions
from hearback.reading.pairs import Example, PairDataset
from hearback.reading.recipe import Recipe
from hearback.reading.training import ReadingTask
from hearback.reading.window_batches import batch_by_window, window_samples

N_MODELS = 3  # of the ensemble in infer_cpu and infer_gpu
TRAINED_NOISE = 0.01  # relative to a tensor's standard deviation: simulates training


def make_trainer(setting: Setting, clips: Clips, recipe: Recipe, device: torch.device) -> Trainer:
    """Return our started training on all of the clips."""
    run = make_run(setting, clips, recipe, device)
    callbacks = (StallDetection(), ProgressBar(), TensorBoard(setting.work / "scalars"))
    trainer = Trainer(ReadingTask(run), run, callbacks)
    trainer.start()
    return trainer


def make_run(
    setting: Setting, clips: Clips, recipe: Recipe, device: torch.device
) -> FoldRun[Recipe, TrainingOptions, TrainingData]:
    """Return a training on all of the clips.

    Each epoch ends with a validation, which should not affect the timing: the held-out fold is only
    a copy of the shortest clip.
    """
    data = select(clips.data, [*range(len(clips)), int(np.argmin(clips.pair_seconds))])
    data.folds[-1] = 0
    options = training_options(setting, clips, device)
    return FoldRun(recipe.with_epochs(100), 0, options, data)  # more epochs than are measured


def run_epochs(trainer: Trainer) -> Iterator[None]:
    """Train and validate an epoch per iteration, without checkpoints."""
    epochs = range(trainer.run.recipe.epochs)
    for n_examples, batches in trainer.task.epoch_batches(trainer.model, epochs):
        trainer.train_epoch(n_examples, batches)
        trainer.evaluate_epoch()
        yield


def training_options(setting: Setting, clips: Clips, device: torch.device) -> TrainingOptions:
    """Return the options of a train_model*.py command."""
    parser = cli.parser(None)
    TrainingOptions.declare(parser)
    flags = {
        "data": clips.folder,
        "tts_data": clips.tts_data,
        "store": clips.store,
        "assets": setting.work / "assets",
        "runs": setting.work / "runs",
        "device": device,
        "precision": setting.precision,
    }
    given = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    return TrainingOptions.gather(parser.parse_args(given))


def predict_ours(
    config: EnsembleConfig, clips: Clips, assets: Path, device: torch.device, dtype: torch.dtype
) -> np.ndarray:
    """Return our ensemble's probabilities, (clips,)."""
    grades = clips.data.metadata["grade"].to_numpy(dtype=str)
    source = clips.data.source
    folds = read_folds(config, assets)
    run = predict_ensemble(config, source, grades, folds, device=device, dtype=dtype)
    return run.predictions.clips


def flops_per_clip(clips: Clips, recipe: Recipe, backbone: Path) -> float:
    """Return the mean operations per clip of all our models' encoders."""
    shape = EncoderConfig.from_config(read_config(backbone))
    source = clips.data.source
    windows = [
        window_samples(
            source.n_samples(row, recipe.pair), recipe.window, recipe.window_step_seconds
        )
        for row in range(len(clips))
    ]
    each = [flops.encoder_flops(shape, window // SAMPLES_PER_FRAME) for window in windows]
    return N_MODELS * float(np.mean(each))


def save_ensemble(assets: Path, recipe: Recipe, backbone: Path, clips: Clips) -> EnsembleConfig:
    """Save one fold of each of three models and return their ensemble.

    Heads are random, and the backbones' weights have noise added: like fully trained models, they
    have no identical layers (`SharedLayers`).
    """
    voice = clips.data.source.references.voice
    tensors = read_tensors(backbone, "encoder")
    oof = pd.DataFrame({"filename": [], "score": [], "pred": []})
    models = []
    for number in range(N_MODELS):
        named = replace(recipe, name=f"model{number}")
        torch.manual_seed(number)
        scorer = build(named, read_config(backbone))
        scorer.load_pretrained({"encoder": tensors})
        with torch.no_grad():
            for tensor in scorer.encoder.state_dict().values():
                tensor.add_(TRAINED_NOISE * tensor.std() * torch.randn_like(tensor))
        fold_metadata = {
            "recipe": named.as_dict(),
            "shape": scorer.backbone_config(),
            "tokenizer": None,
            "voice": voice,
        }
        files = FoldFiles(assets, named.name, 0)
        fold_files.save_fold(files, scorer.state_dict(), oof, fold_metadata)
        models.append(ModelConfig(named.name, (0,), 1 / N_MODELS))
    return EnsembleConfig(tuple(models), voice, {"all": 0.5}, {}, n_rows=0)


class Loading:
    """Our data loading: features of augmented pairs in batches, with a new seed in every turn."""

    def __init__(self, clips: Clips, recipe: Recipe, n_mels: int) -> None:
        self.clips, self.recipe, self.n_mels = clips, recipe, n_mels
        self.turn = 0

    def run(self) -> list[int]:
        """Return the rows of all batches."""
        recipe, source = self.recipe, self.clips.data.source
        self.turn += 1
        order = np.random.default_rng((recipe.data_seed, self.turn)).permutation(len(source))
        pairs = PairDataset(
            source,
            [Example(int(row), source.texts[row]) for row in order],
            recipe.pair,
            augmentations=(recipe.augment_reference, recipe.augment_learner),
            seeds=(recipe.data_seed, self.turn),
        )
        rows: list[int] = []
        each = (pairs[index] for index in range(len(pairs)))
        for batch in batch_by_window(
            each, recipe.batch_size, recipe.window, recipe.window_step_seconds, fill=True
        ):
            log_mel(batch.waveforms, self.n_mels)
            rows += batch.rows.tolist()
        return rows


def counting(n_clips: int, run: Callable[[], list[int]]) -> Callable[[], float]:
    """Return a function that runs a turn and checks that every clip was loaded once."""

    def turn() -> float:
        rows = run()
        if sorted(rows) != list(range(n_clips)):
            raise HearbackError(f"loaded {len(rows)} rows instead of all {n_clips} once")
        return float(n_clips)

    return turn
