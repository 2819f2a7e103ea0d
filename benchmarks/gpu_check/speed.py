"""Section `speed`: speed, memory and share of the peak rate, beside the competition's way.

Each family trains and scores clips of noise at the true size of its backbone, with random weights.
The competition's way (`benchmarks.baseline`) does so with a joined comparison on the same backbone.
It is measured after the family, so that each has the device's memory alone.

Operations are those that torch counts in our training and inference (fused attention counts once
more in its backward pass), and for the competition's way those of `benchmarks.flops`, without the
layers that it computes twice. The peak is that of a product of two large matrices, in the same run.
"""

import gc
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import baseline, flops, ours
from benchmarks.backbones import CONFIGS, TINY_CONFIG, WHISPER_PARTS, make_backbone
from benchmarks.clips import Clips
from benchmarks.gpu_check.inputs import find_tokenizer, load_noise
from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.setting import PHONES, Setting
from benchmarks.harness import Side, median_rate, silence, take_turn
from benchmarks.setting import Setting as BenchmarkSetting
from hearback.engine.devices import compute_dtype, default_workers
from hearback.engine.machine import count_processors
from hearback.engine.plan.flops import counted
from hearback.engine.training.trainer import Trainer
from hearback.engine.whisper.backbone import Part
from hearback.engine.whisper.quantize import convert_weights
from hearback.engine.whisper.weights import read_config, read_tensors
from hearback.reading.inference.predict import collect, score_with_words
from hearback.reading.models.base import WhisperScorer
from hearback.reading.recipe import Recipe, find_recipes
from hearback.reading.training import ReadingTask
from hearback.reading.words import count_positions

PEAK_SECONDS = 0.5
N_SHARES = 3  # of the clips: the competition's way trains on one in a turn
LEAST_SECONDS = 10.0  # that a family takes; fewer are not started
GOAL_TIMES, GOAL_SHARE = 10.0, 0.4  # of a joined comparison on whisper-medium


@dataclass(frozen=True)
class Family:
    """A model whose speed is measured: its title, recipe, and the backbone's true sizes."""

    title: str
    recipe: str
    backbone: str


# The most important first: the time may not suffice on a slow GPU. The encoders of distil-medium.en
# and distil-small.en have the sizes of whisper-medium's and whisper-small's.
FAMILIES = (
    Family("joined", "model1m", "whisper-medium"),
    Family("tokens", "modeltok", "whisper-small"),
    Family("aligned", "modelali", "whisper-small"),
    Family("joined", "model2s", "whisper-small"),
    Family("phones", "modelgop", PHONES),
    Family("updates of tokens", "modeltoklow", "whisper-base"),
    Family("segments", "modelseg", "whisper-base"),
    Family("own tokens", "modeltokown", "whisper-small"),
    Family("tokens", "modeltokb", "whisper-base"),
)


@dataclass(frozen=True)
class Speed:
    """Clips a second, operations a second, and the peak of a GPU's memory in GB (10⁹ bytes)."""

    rate: float
    flop_rate: float
    memory_gb: float | None


@dataclass(frozen=True)
class Both:
    """The speed of training and of inference."""

    training: Speed
    inference: Speed


def measure(setting: Setting, record: Record) -> None:
    """Measure all families; see the module."""
    clips = load_noise(setting)
    with setting.on_device():
        peaks = Peaks(setting)
        theirs: dict[str, Both] = {}
        longest = 0.0 if setting.small else LEAST_SECONDS
        for family in FAMILIES:
            name = f"{family.title}, {family.recipe}"
            if record.seconds_left < longest:
                record.check(name, False, "no time left", "measured")
                continue
            started = time.monotonic()
            with record.guarded(name):
                measure_family(setting, record, family, clips=clips, peaks=peaks, theirs=theirs)
            longest = max(longest, time.monotonic() - started)


class Peaks:
    """The rates of matrix products, in operations a second, by precision."""

    def __init__(self, setting: Setting) -> None:
        self._device = setting.torch_device
        self._seconds = 0.0 if setting.small else PEAK_SECONDS
        self._found: dict[torch.dtype, float] = {}

    def of(self, dtype: torch.dtype) -> float:
        """Return the rate in a precision, measured at the first call."""
        if dtype not in self._found:
            product = flops.matrix_product(self._device, dtype)
            side = Side(str(dtype), product.run, self._seconds, product.flops)
            take_turn(side, time.perf_counter)
            self._found[dtype] = take_turn(side, time.perf_counter).flop_rate
        return self._found[dtype]


def measure_family(
    setting: Setting,
    record: Record,
    family: Family,
    *,
    clips: Clips,
    peaks: Peaks,
    theirs: dict[str, Both],
) -> None:
    """Add the rows of a family; `theirs` keeps the competition's speeds by backbone."""
    recipe = find_recipes()[family.recipe]
    our_speed = measure_ours(setting, family, recipe, clips)
    release()
    # The competition had no recogniser of phones: its smallest models stand beside that.
    backbone = "whisper-small" if recipe.pair == "phones" else family.backbone
    if backbone not in theirs:
        theirs[backbone] = measure_theirs(setting, backbone, clips)
        release()
    device = setting.torch_device
    dtype = torch.float32 if recipe.pair == "phones" else compute_dtype(device)
    their_dtype = baseline.compute_dtype(device)
    for what in ("training", "inference"):
        one, other = getattr(our_speed, what), getattr(theirs[backbone], what)
        record.row(
            family=family.title,
            model=family.recipe,
            backbone=family.backbone,
            of=what,
            clips_per_s=round(one.rate, 1),
            competition=round(other.rate, 1),
            times=round(one.rate / other.rate, 2),
            gb=one.memory_gb,
            competition_gb=other.memory_gb,
            precision=str(dtype).removeprefix("torch."),
            share_of_peak=round(one.flop_rate / peaks.of(dtype), 3),
            competition_share=round(other.flop_rate / peaks.of(their_dtype), 3),
        )
        valid = math.isfinite(one.flop_rate) and 0 < one.rate < math.inf
        name = f"{family.title}, {family.recipe}: {what}"
        record.check(name, valid, f"{one.rate:.1f} clips/s", "a rate")
    if family is FAMILIES[0]:
        show_goals(record)


def show_goals(record: Record) -> None:
    """Add a sentence on the goals for whisper-medium, from the first two rows."""
    training, inference = record.rows[-2:]
    record.note(
        f"Goals for whisper-medium: {GOAL_TIMES:g} times the competition's way in training "
        f"({training['times']:g} times) and inference ({inference['times']:g} times), and "
        f"{GOAL_SHARE:.0%} of the peak in training ({training['share_of_peak']:.0%})."
    )


def make_speed_backbone(setting: Setting, name: str) -> Path:
    """Return the directory of a backbone of true size with random weights; written if missing."""
    config: dict[str, Any] = TINY_CONFIG if setting.small else CONFIGS[name]
    # Only joined comparisons use whisper-medium, and its decoder takes a gigabyte.
    parts: Sequence[Part] = ("encoder",) if name == "whisper-medium" else WHISPER_PARTS
    folder = setting.assets / f"random-{name}"
    return make_backbone(folder, config, parts, tokenizer=find_tokenizer(setting))


def measure_ours(setting: Setting, family: Family, recipe: Recipe, clips: Clips) -> Both:
    """Measure training and inference of a family."""
    trainer = make_trainer(setting, family, recipe, clips)
    device, dtype = setting.torch_device, trainer.run.dtype
    training = time_epochs(setting, trainer)
    model: Any = trainer.eval_model
    del trainer  # what only training needs must not count at inference
    model.zero_grad(set_to_none=True)
    release()
    if isinstance(model, WhisperScorer):  # as infer.py does; others compute in float32
        convert_weights(model, dtype)
    rows = np.arange(len(clips))
    score = score_with_words(count_positions(clips.data.source.texts[row] for row in rows))

    def infer() -> float:
        collect(
            model,
            clips.data.source,
            rows,
            score,
            device=device,
            dtype=dtype,
            n_workers=default_workers(device),
        )
        return float(len(clips))

    return Both(training, time_ours(setting, infer))


def make_trainer(setting: Setting, family: Family, recipe: Recipe, clips: Clips) -> Trainer:
    """Return a trainer of a family on all clips, without callbacks; nothing is initialised."""
    changes: dict[str, Any] = {"n_augmented": min(recipe.n_augmented, 1)}
    if recipe.pair != "phones":
        changes["backbone"] = str(make_speed_backbone(setting, family.backbone))
    if setting.small and recipe.encoder_layers is not None:
        changes["encoder_layers"] = TINY_CONFIG["encoder_layers"]
    if recipe.hears_reference:
        changes["hard_negatives"] = 0.0  # they are rendered by a voice
    own = BenchmarkSetting(
        data=clips.folder,
        tts_data=clips.tts_data,
        store=clips.store,
        backbone=setting.assets,
        work=setting.work,
    )
    run = ours.make_run(own, clips, replace(recipe, **changes), setting.torch_device)
    return Trainer(ReadingTask(run), run, [])


def time_epochs(setting: Setting, trainer: Trainer) -> Speed:
    """Time epochs of a training."""
    with closing(epochs(trainer, 2 + setting.sizes.n_rounds)) as turns:
        return time_ours(setting, turns.__next__)


def epochs(trainer: Trainer, n_epochs: int) -> Generator[float, None, None]:
    """Train an epoch per iteration, without validation; yield the number of its examples."""
    for n_examples, batches in trainer.task.epoch_batches(trainer.model, range(n_epochs)):
        trainer.train_epoch(n_examples, batches)
        trainer.state.end_epoch()
        yield float(n_examples)


def time_ours(setting: Setting, run: Callable[[], float]) -> Speed:
    """Time turns of a function that returns its number of clips, after two that are not timed.

    In the second, torch counts the operations: not in the first, in which processes that load
    clips are started, and would count, too.
    """
    reset_memory(setting)
    with silence():
        run()
        with counted() as counter:
            n_clips = run()
    turns = [take_turn(Side("", run), time.perf_counter) for _ in range(setting.sizes.n_rounds)]
    rate = median_rate(turns)
    return Speed(rate, rate * counter.get_total_flops() / n_clips, peak_memory_gb(setting))


def measure_theirs(setting: Setting, backbone: str, clips: Clips) -> Both:
    """Measure training and inference of the competition's way with a backbone."""
    directory = make_speed_backbone(setting, backbone)
    recipe = find_recipes()["model1m" if backbone == "whisper-medium" else "model2s"]
    device = setting.torch_device
    n_workers = min(8, count_processors()) if setting.is_gpu else 0
    training = baseline.Training(
        clips,
        recipe,
        read_config(directory),
        read_tensors(directory, "encoder"),
        device=device,
        n_workers=n_workers,
        n_shares=1 if setting.small else N_SHARES,
    )
    of_training = time_theirs(setting, training.run_share)
    model, batch_size = training.model, recipe.batch_size
    del training
    model.zero_grad(set_to_none=True)
    release()

    def infer() -> float:
        baseline.predict_with(
            model, clips, batch_size=batch_size, device=device, n_workers=n_workers
        )
        return float(len(clips))

    return Both(of_training, time_theirs(setting, infer))


def time_theirs(setting: Setting, run: Callable[[], float]) -> Speed:
    """Time turns of the competition's way, after one that is not timed."""
    reset_memory(setting)
    side = Side("", run)
    take_turn(side, time.perf_counter)
    turns = [take_turn(side, time.perf_counter) for _ in range(setting.sizes.n_rounds)]
    flop_rate = float(np.median([turn.flop_rate for turn in turns]))
    return Speed(median_rate(turns), flop_rate, peak_memory_gb(setting))


def release() -> None:
    """Free what nothing refers to, also on the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def reset_memory(setting: Setting) -> None:
    """Start to measure the peak of the GPU's memory."""
    if setting.is_gpu:
        torch.cuda.reset_peak_memory_stats(setting.torch_device)


def peak_memory_gb(setting: Setting) -> float | None:
    """Return the peak of the GPU's memory in GB; None on a CPU, where no peak can be reset."""
    if not setting.is_gpu:
        return None
    return round(torch.cuda.max_memory_allocated(setting.torch_device) / 1e9, 2)
