"""The benchmarks: the work of each side, and the details printed beside the ratio."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from benchmarks import baseline, flops, profiles
from benchmarks.clips import MEDIUM, Clips, load, make_backbone, make_noise, select
from benchmarks.harness import (
    CLOCKS,
    Result,
    Side,
    compare,
    fastest,
    median_flop_rate,
    silence,
    take_turns,
    warm_up,
)
from hearback.engine import cli
from hearback.engine.audio.log_mel import log_mel
from hearback.engine.devices import compute_dtype, count_processors
from hearback.engine.ensemble import stacking
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.ensemble.stacking import mean_log_loss
from hearback.engine.errors import HearbackError
from hearback.engine.training import fold_files
from hearback.engine.training.callbacks import ProgressBar, StallDetection, TensorBoard
from hearback.engine.training.fold_files import FoldFiles
from hearback.engine.training.task import FoldRun
from hearback.engine.training.trainer import Trainer
from hearback.engine.whisper.encoder import SAMPLES_PER_FRAME, EncoderConfig
from hearback.engine.whisper.weights import read_config, read_tensors
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.ensemble_run import predict_ensemble
from hearback.reading.models.scorers import build
from hearback.reading.options import TrainingOptions
from hearback.reading.pairs import Example, PairDataset
from hearback.reading.recipe import Recipe
from hearback.reading.training import ReadingTask
from hearback.reading.window_batches import batch_by_window, window_samples
from train_model1m import RECIPE as MEDIUM_RECIPE
from train_model2ds import RECIPE as SMALL_RECIPE

N_MODELS = 3  # of the ensemble in infer_cpu and infer_gpu
PRODUCT_SECONDS = 0.5  # of matrix products per turn
SEARCH_SECONDS = 0.2  # of our weight search per turn
TRAINED_NOISE = 0.01  # relative to a tensor's standard deviation: simulates training
NOT_WORSE = 1e-6  # nats of log loss: tolerance between two searches


@dataclass(frozen=True)
class Sizes:
    """The amount of work per turn; a turn should last seconds, so a GPU takes more clips."""

    n_train: int = 192  # enough for batches of similar lengths
    n_shares: int = 4  # one per turn of the baseline; all take it the same time
    n_infer: int = 64
    n_load: int = 128
    n_both_padded: int = 8  # also scored with 16 s windows on both sides
    n_gpu: int = 512
    n_rows: int = 38_095  # the competition's
    n_weights: int = 10

    def with_clips(self, n_clips: int) -> "Sizes":
        """Return these sizes with `n_clips` in every turn."""
        of_clips = ("n_train", "n_infer", "n_load", "n_gpu")
        few = min(n_clips, self.n_both_padded)
        return replace(self, **dict.fromkeys(of_clips, n_clips), n_both_padded=few)


QUICK = Sizes(
    n_train=12,
    n_shares=2,
    n_infer=12,
    n_load=12,
    n_both_padded=4,
    n_gpu=64,
    n_rows=2000,
    n_weights=4,
)


@dataclass(frozen=True)
class Setting:
    """The options of the command line, and a folder for temporary files."""

    data: Path
    tts_data: Path
    store: Path
    backbone: Path
    work: Path
    n_rounds: int = 5
    n_threads: int = 1
    clock: str = "wall"
    precision: str = "auto"  # of ours
    profile: bool = False
    sizes: Sizes = Sizes()

    @property
    def unit(self) -> str:
        """The unit of a rate of clips."""
        return "clips/s" if self.clock == "wall" else "clips/CPU s"


@dataclass(frozen=True)
class Outcome:
    """A benchmark's result, and lines of details."""

    result: Result
    lines: tuple[str, ...]


def train_cpu(setting: Setting) -> Outcome:
    """Train a joined comparison without frozen layers, with augmentation A."""
    clips = load(setting.data, setting.tts_data, setting.store, setting.sizes.n_train)
    return compare_training(setting, clips, SMALL_RECIPE, setting.backbone, torch.device("cpu"))


def infer_cpu(setting: Setting) -> Outcome:
    """Score clips with an ensemble of three models, starting from the files."""
    clips = load(setting.data, setting.tts_data, setting.store, setting.sizes.n_infer)
    return compare_inference(setting, clips, SMALL_RECIPE, setting.backbone, torch.device("cpu"))


def load_cpu(setting: Setting) -> Outcome:
    """Load clips, augment them and compute features, on one core."""
    clips = load(setting.data, setting.tts_data, setting.store, setting.sizes.n_load)
    n_mels = int(read_config(setting.backbone)["num_mel_bins"])
    sides = [
        Side("ours", counting(len(clips), Loading(clips, SMALL_RECIPE, n_mels).run)),
        Side(
            "baseline",
            counting(len(clips), partial(baseline.features_of, clips, SMALL_RECIPE, n_mels)),
        ),
    ]
    with threads(1):
        warm_up(sides)
        turns = take_turns(sides, setting.n_rounds, CLOCKS[setting.clock])
        lines = [clips.describe(), "ours reads the 16 kHz store, the baseline the files"]
        lines += profile_lines(setting, sides, torch.device("cpu"))
    return Outcome(compare(turns[0], turns[1], f"{setting.unit} per core"), tuple(lines))


def weights_cpu(setting: Setting) -> Outcome:
    """Fit the weights of an ensemble's models."""
    predictions, labels = simulate_predictions(setting.sizes.n_weights, setting.sizes.n_rows)
    searches = {"ours": stacking.fit_probability_weights, "baseline": baseline.search_weights}
    found: dict[str, np.ndarray] = {}

    def search(name: str) -> float:
        found[name] = searches[name](predictions, labels)
        return 1.0

    sides = [
        Side("ours", partial(search, "ours"), least_seconds=SEARCH_SECONDS),
        Side("baseline", partial(search, "baseline")),
    ]
    with threads(setting.n_threads):
        warm_up(sides[:1])  # the grid search takes so long that it needs none
        turns = take_turns(sides, setting.n_rounds, CLOCKS[setting.clock])
    losses = {name: mean_log_loss(labels, found[name] @ predictions) for name in found}
    if losses["ours"] > losses["baseline"] + NOT_WORSE:
        raise HearbackError(f"our weights are worse than the grid's: log losses {losses}")
    alone = [mean_log_loss(labels, of_model) for of_model in predictions]
    lines = (
        f"{len(predictions)} models × {len(labels)} rows, simulated; log loss of single "
        f"models {min(alone):.4f} to {max(alone):.4f}, of their mean "
        f"{mean_log_loss(labels, predictions.mean(axis=0)):.4f}",
        f"weighted: ours {losses['ours']:.6f}, baseline {losses['baseline']:.6f}",
    )
    return Outcome(compare(turns[0], turns[1], "searches/s"), lines)


def train_gpu(setting: Setting) -> Outcome:
    """Train a whisper-medium with random weights, with augmentation A."""
    clips, backbone = medium_inputs(setting)
    return compare_training(setting, clips, MEDIUM_RECIPE, backbone, torch.device("cuda"))


def infer_gpu(setting: Setting) -> Outcome:
    """Score clips with three whisper-mediums with random weights."""
    clips, backbone = medium_inputs(setting)
    return compare_inference(setting, clips, MEDIUM_RECIPE, backbone, torch.device("cuda"))


BENCHMARKS: Mapping[str, Callable[[Setting], Outcome]] = {
    "train_cpu": train_cpu,
    "infer_cpu": infer_cpu,
    "load_cpu": load_cpu,
    "weights_cpu": weights_cpu,
    "train_gpu": train_gpu,
    "infer_gpu": infer_gpu,
}


def medium_inputs(setting: Setting) -> tuple[Clips, Path]:
    """Return clips of noise and a random whisper-medium: a GPU machine may lack real ones."""
    noise = setting.work / "noise"
    backbone = setting.work / "medium"
    if not noise.exists():
        make_noise(noise, setting.sizes.n_gpu)
        make_backbone(backbone, MEDIUM)
    clips = load(noise / "data", noise / "tts_data", noise / "store", setting.sizes.n_gpu)
    return clips, backbone


def compare_training(
    setting: Setting, clips: Clips, recipe: Recipe, backbone: Path, device: torch.device
) -> Outcome:
    """Compare training one model: a turn of ours is an epoch, of the baseline's a share of one."""
    recipe = replace(recipe, backbone=str(backbone))
    ours = make_trainer(setting, clips, recipe, device)
    epochs = run_epochs(ours)
    config = read_config(backbone)
    encoder = read_tensors(backbone, "encoder")

    def baseline_side(n_workers: int) -> Side:
        training = baseline.Training(
            clips,
            recipe,
            config,
            encoder,
            device=device,
            n_workers=n_workers,
            n_shares=setting.sizes.n_shares,
        )
        return Side("baseline", training.run_share)

    with ExitStack() as stack:
        stack.enter_context(threads(setting.n_threads))
        stack.callback(ours.close)

        def run_epoch() -> float:
            next(epochs)
            return float(len(clips))

        sides, workers = with_best_workers(setting, Side("ours", run_epoch), baseline_side, device)
        dtypes = (ours.run.dtype, baseline.compute_dtype(device))
        result, mfu = time_sides(setting, sides, device, dtypes)
        lines = [
            f"{clips.describe()}; {recipe.name}'s recipe on {backbone.name}, batches of "
            f"{recipe.batch_size}",
            f"our turn: all clips, and the validation of one more; the baseline's turn: "
            f"1/{setting.sizes.n_shares} of the clips",
            workers,
            *mfu,
            *profile_lines(setting, [sides[0], baseline_side(0)], device),
        ]
    return Outcome(result, tuple(lines))


def make_trainer(setting: Setting, clips: Clips, recipe: Recipe, device: torch.device) -> Trainer:
    """Return our started training on all of the clips.

    Each epoch ends with a validation, which should not affect the timing: the held-out fold is only
    a copy of the shortest clip.
    """
    data = select(clips.data, [*range(len(clips)), int(np.argmin(clips.pair_seconds))])
    data.folds[-1] = 0
    options = training_options(setting, clips, device)
    run = FoldRun(recipe.with_epochs(100), 0, options, data)  # more epochs than are measured
    callbacks = (StallDetection(), ProgressBar(), TensorBoard(setting.work / "scalars"))
    trainer = Trainer(ReadingTask(run), run, callbacks)
    trainer.start()
    return trainer


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


def compare_inference(
    setting: Setting, clips: Clips, recipe: Recipe, backbone: Path, device: torch.device
) -> Outcome:
    """Compare inference with an ensemble: a turn is a pass over all clips."""
    assets = setting.work / f"assets_{device.type}"
    dtype = compute_dtype(device, setting.precision)
    config = save_ensemble(assets, recipe, backbone, clips)
    padded = save_ensemble(assets / "padded", replace(recipe, window="fixed"), backbone, clips)
    scores: dict[str, np.ndarray] = {}

    def predict() -> float:
        scores["ours"] = predict_ours(config, clips, assets, device, dtype)
        return float(len(clips))

    def predict_baseline(n_workers: int, clips: Clips = clips) -> float:
        scores["baseline"] = baseline.predict(
            clips,
            {FoldFiles(assets, model.name, 0).weights: model.weight for model in config.models},
            read_config(backbone),
            batch_size=recipe.batch_size,
            device=device,
            n_workers=n_workers,
        )
        return float(len(clips))

    def baseline_side(n_workers: int) -> Side:
        return Side("baseline", partial(predict_baseline, n_workers))

    with threads(setting.n_threads):
        ours = Side("ours", predict, flops_per_unit=flops_per_clip(clips, recipe, backbone))
        sides, workers = with_best_workers(setting, ours, baseline_side, device)
        dtypes = (dtype, baseline.compute_dtype(device))
        result, mfu = time_sides(setting, sides, device, dtypes)
        differences = np.abs(scores["ours"] - scores["baseline"])
        few = replace(clips, data=select(clips.data, range(setting.sizes.n_both_padded)))
        with silence():
            predict_baseline(0, few)
            of_few = predict_ours(padded, few, assets / "padded", device, dtype)
        both_padded = np.abs(of_few - scores["baseline"])
        lines = [
            f"{clips.describe()}; {len(config.models)} models of {backbone.name}'s shape, "
            f"batches of {recipe.batch_size}",
            workers,
            *mfu,
            f"scores differ by {differences.mean():.5f} on average, {differences.max():.5f} at "
            f"most; by {both_padded.max():.5f} at most where ours also pads to 16 s "
            f"({len(few)} clips)",
            *profile_lines(setting, [sides[0], baseline_side(0)], device),
        ]
    return Outcome(result, tuple(lines))


def predict_ours(
    config: EnsembleConfig, clips: Clips, assets: Path, device: torch.device, dtype: torch.dtype
) -> np.ndarray:
    """Return our ensemble's probabilities, (clips,)."""
    grades = clips.data.metadata["grade"].to_numpy(dtype=str)
    source = clips.data.source
    run = predict_ensemble(config, source, grades, assets, device=device, dtype=dtype)
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


def simulate_predictions(n_models: int, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return simulated out-of-fold predictions, (models, rows), and labels, (rows,).

    The models observe a normal variable per class with shared and independent noise, and their
    probabilities are calibrated. As in the competition, single models have log losses of about
    0.24, from 0.21 to 0.26, and their mean 0.20.
    """
    base_rate, distance, shared_variance = 0.467, 2.6, 0.8
    rng = np.random.default_rng(0)
    labels = (rng.random(n_rows) < base_rate).astype(np.float64)
    shared = rng.normal(0, np.sqrt(shared_variance), n_rows)
    deviations = np.sqrt(1 - shared_variance) * np.linspace(0.7, 1.3, n_models)
    observed = (
        distance * (labels - 0.5)
        + shared
        + deviations[:, None] * rng.normal(size=(n_models, n_rows))
    )
    variances = shared_variance + deviations**2
    logits = distance * observed / variances[:, None] + np.log(base_rate / (1 - base_rate))
    return 1 / (1 + np.exp(-logits)), labels


def with_best_workers(
    setting: Setting, ours: Side, make: Callable[[int], Side], device: torch.device
) -> tuple[list[Side], str]:
    """Return both sides, warmed up, with the baseline's best number of loading processes."""
    counts = (0, count_processors()) if device.type == "cpu" else (min(8, count_processors()),)
    if setting.clock == "cpu":  # more processes do not save processor seconds
        counts = (0,)
    sides = {str(n): make(n) for n in counts}
    warm_up([ours, sides[str(counts[0])]])
    if len(counts) == 1:
        return [ours, *sides.values()], f"baseline: {counts[0]} loading processes"
    n_workers = fastest(sides, CLOCKS[setting.clock])
    return [ours, sides[n_workers]], f"baseline: {n_workers} loading processes, best of {counts}"


def time_sides(
    setting: Setting, sides: list[Side], device: torch.device, dtypes: tuple[torch.dtype, ...]
) -> tuple[Result, list[str]]:
    """Time both sides and matrix products; return the result, and lines on FLOP/s."""
    products = {}
    for dtype in dict.fromkeys(dtypes):
        product = flops.matrix_product(device, dtype)
        products[dtype] = Side(str(dtype), product.run, PRODUCT_SECONDS, product.flops)
    warm_up(products.values())
    turns = take_turns([*sides, *products.values()], setting.n_rounds, CLOCKS[setting.clock])
    product_turns = dict(zip(products, turns[len(sides) :], strict=True))
    lines = []
    for side, of_side, dtype in zip(sides, turns, dtypes, strict=False):
        reached, peak = median_flop_rate(of_side), median_flop_rate(product_turns[dtype])
        lines.append(
            f"{side.name}: {reached / 1e9:.1f} GFLOP/s, {reached / peak:.1%} of the "
            f"{peak / 1e9:.1f} of matrix products ({str(dtype).removeprefix('torch.')})"
        )
    return compare(turns[0], turns[1], setting.unit), lines


def profile_lines(setting: Setting, sides: list[Side], device: torch.device) -> list[str]:
    """Return the profile of each side, if requested."""
    if not setting.profile:
        return []
    if device.type != "cpu":
        return ["no profile: a GPU runs asynchronously"]
    return [f"{side.name}: {profiles.describe(side.run)}" for side in sides]


@contextmanager
def threads(n_threads: int) -> Iterator[None]:
    """Limit torch and numpy's libraries to `n_threads`."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        with threadpool_limits(n_threads):
            yield
    finally:
        torch.set_num_threads(before)


def run(name: str, setting: Setting) -> Outcome:
    """Run a benchmark in a temporary folder."""
    setting.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=setting.work) as folder:
        return BENCHMARKS[name](replace(setting, work=Path(folder)))


def why_skipped(name: str) -> str | None:
    """Return why a benchmark cannot run on this machine, or None if it can."""
    if name.endswith("_gpu") and not torch.cuda.is_available():
        return "skipped: no CUDA device"
    return None
