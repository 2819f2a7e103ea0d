"""Section `scores`: scores and training steps equal those on the CPU, within tolerances.

Each family scores the same clips on the CPU in float32, and on the device in three precisions, by
the code that infer.py runs. A training step is compared by its loss and its gradient norm.

Differences of scores are in standard deviations: those of the clips' logits on the CPU, or of the
words' log-odds. The tolerances are several times the largest difference that half precision makes
on a CPU (docs/results/performance.md).
"""

import copy
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.setting import Setting
from hearback.engine import cli
from hearback.engine.training.stall_detector import Step
from hearback.engine.training.task import FoldRun
from hearback.engine.training.trainer import Trainer
from hearback.engine.whisper.quantize import convert_weights
from hearback.reading.dataset import TrainingData
from hearback.reading.inference.predict import collect, score_with_words
from hearback.reading.models.base import Scorer, WhisperScorer
from hearback.reading.options import TrainingOptions
from hearback.reading.pairings import SCORES_WORDS
from hearback.reading.recipe import Recipe, find_recipes
from hearback.reading.training import ReadingTask
from hearback.reading.window_batches import Batch
from hearback.reading.words import count_positions

CPU = torch.device("cpu")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Standard deviations of scores, and relative differences of a step's loss and gradient norm.
SCORE_TOLERANCES = {"float32": 0.02, "float16": 0.03, "bfloat16": 0.3}
LOSS_TOLERANCES = {"float32": 0.002, "float16": 0.01, "bfloat16": 0.05}
NORM_TOLERANCES = {"float32": 0.01, "float16": 0.1, "bfloat16": 0.25}
MAX_SKIPPED = 20  # steps that overflow while the scale of losses in fp16 is found
STEP_SIZE = 4  # clips of a training step


def families() -> dict[str, Recipe]:
    """Return a recipe of each family, without what differs by chance or takes long."""
    recipes = find_recipes()
    chosen = {
        "joined, mean": recipes["model1m"],
        "joined, attention": recipes["model3mcp"],
        "vectors": replace(recipes["model2ds"], pair="speech classifier"),
        "cosine": replace(recipes["model2ds"], pair="speech cosine"),
        "aligned": recipes["modelali"],
        "tokens": recipes["modeltok"],
        "own tokens": recipes["modeltokown"],
        "updates of tokens": recipes["modeltoklow"],
        "phones": recipes["modelgop"],
        "segments": replace(recipes["modelseg"], encoder_layers=2),  # of a small backbone
    }
    plain: dict[str, Any] = {"dropout": 0.0, "n_augmented": 0, "warm_start": None}
    return {
        family: replace(
            recipe,
            **plain,
            batch_size=STEP_SIZE,
            # Those of models that score words are made for each batch, the others' rendered.
            hard_negatives=recipe.hard_negatives * (recipe.pair in SCORES_WORDS),
        )
        for family, recipe in chosen.items()
    }


def compare(setting: Setting, record: Record) -> None:
    """Compare all families; see the module."""
    data = training_options(setting).load_data()
    for family, recipe in families().items():
        with record.guarded(f"{family}: scores"), setting.on_device():
            compare_scores(setting, record, family, recipe, data)
        with record.guarded(f"{family}: a training step"), setting.on_device():
            compare_steps(setting, record, family, recipe, data)


def training_options(setting: Setting, device: str = "cpu") -> TrainingOptions:
    """Return the options of a training on the small corpus, in float32 and without processes."""
    parser = cli.parser(None)
    TrainingOptions.declare(parser)
    flags = {
        "data": setting.data,
        "tts_data": setting.tts_data,
        "store": setting.store,
        "assets": setting.assets,
        "runs": setting.work / "runs",
        "backbone": setting.backbone,
        "n_folds": 3,
        "workers": 0,
        "device": device,
        "precision": "float32",
    }
    given = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    return TrainingOptions.gather(parser.parse_args(given))


def compare_scores(
    setting: Setting, record: Record, family: str, recipe: Recipe, data: TrainingData
) -> None:
    """Compare the scores of clips and words with the CPU's, in each precision."""
    model = initialized_model(setting, recipe, data)
    rows = np.arange(min(setting.sizes.n_scored, len(data.labels)))
    expected = logits_of(model, data, rows, CPU, torch.float32)
    for name, dtype in DTYPES.items():
        with record.guarded(f"{family}: scores in {name}"):
            found = logits_of(model, data, rows, setting.torch_device, dtype)
            difference = largest_difference(found, expected)
            record.at_most(f"{family}: scores in {name}", difference, SCORE_TOLERANCES[name], "sd")


def initialized_model(setting: Setting, recipe: Recipe, data: TrainingData) -> Scorer:
    """Return the recipe's untrained model on the CPU, its head fitted if the recipe does that."""
    options = training_options(setting)
    task = ReadingTask(FoldRun(options.adapt(recipe), 0, options, data))
    torch.manual_seed(recipe.seed)
    model = task.build_model()
    task.initialize(model)
    return model.eval()


def logits_of(
    model: Scorer, data: TrainingData, rows: np.ndarray, device: torch.device, dtype: torch.dtype
) -> np.ndarray:
    """Return the logits of clips and words, (rows, 1 + words), as infer.py computes them."""
    n_positions = count_positions(data.source.texts[row] for row in rows)
    with_words = score_with_words(n_positions)

    def logits(model: Scorer, batch: Batch) -> Tensor:
        values = with_words(model, batch)
        clips = values[:, :1].double()
        return torch.cat([clips.logit(eps=1e-12), values[:, 1:]], dim=1)

    model = copy.deepcopy(model)
    if isinstance(model, WhisperScorer):  # others compute in float32
        convert_weights(model, dtype)
    return collect(model, data.source, rows, logits, device=device, dtype=dtype)


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of clips or words, in standard deviations; NaN for a NaN."""
    differences = []
    for columns in (slice(0, 1), slice(1, None)):
        theirs, ours = expected[:, columns], found[:, columns]
        known = np.isfinite(theirs)
        if not known.any():
            continue
        spread = theirs[known].std()
        differences.append(np.abs(ours[known] - theirs[known]).max() / spread)
    return float(np.max(differences))


def compare_steps(
    setting: Setting, record: Record, family: str, recipe: Recipe, data: TrainingData
) -> None:
    """Compare a training step's loss and gradient norm with the CPU's, in each precision."""
    expected = first_step(training_options(setting), recipe, data)
    device = str(setting.torch_device)
    for name in DTYPES:
        with record.guarded(f"{family}: a training step in {name}"):
            options = replace(training_options(setting, device), precision=name)
            found = first_step(options, recipe, data)
            loss, norm = (
                abs(getattr(found, each) / getattr(expected, each) - 1)
                for each in ("loss", "gradient_norm")
            )
            record.at_most(f"{family}: loss in {name}", loss, LOSS_TOLERANCES[name])
            record.at_most(f"{family}: gradient norm in {name}", norm, NORM_TOLERANCES[name])


def first_step(options: TrainingOptions, recipe: Recipe, data: TrainingData) -> Step:
    """Return the first step of an untrained model that does not overflow."""
    run = FoldRun(options.adapt(recipe), 0, options, data)
    trainer = Trainer(ReadingTask(run), run, [])
    trainer.model.train()
    _, batches = next(trainer.task.epoch_batches(trainer.model, range(1)))
    batch = next(batches).to(run.device)
    for n_skipped in count():
        step = trainer.training_step(batch, 1.0).read(data.filenames)
        if step.applied or n_skipped == MAX_SKIPPED:
            return step
    raise AssertionError("unreachable")
