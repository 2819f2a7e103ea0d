"""The benchmarks: the work of each side, and the details printed beside the ratio."""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import baseline
from benchmarks.backbones import CONFIGS, make_backbone
from benchmarks.clips import Clips, load, make_noise, select
from benchmarks.harness import (
    CLOCKS,
    Side,
    compare,
    silence,
    take_turns,
    warm_up,
)
from benchmarks.ours import (
    Loading,
    counting,
    flops_per_clip,
    make_trainer,
    predict_ours,
    run_epochs,
    save_ensemble,
)
from benchmarks.setting import (
    Outcome,
    Setting,
    profile_lines,
    threads,
    time_sides,
    with_best_workers,
)
from hearback.engine.devices import compute_dtype
from hearback.engine.ensemble import stacking
from hearback.engine.ensemble.stacking import mean_log_loss
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles
from hearback.engine.whisper.weights import read_config, read_tensors
from hearback.reading.recipe import Recipe
from train_model1m import RECIPE as MEDIUM_RECIPE
from train_model2ds import RECIPE as SMALL_RECIPE

MEDIUM = CONFIGS["whisper-medium"]
SEARCH_SECONDS = 0.2  # of our weight search per turn
NOT_WORSE = 1e-6  # nats of log loss: tolerance between two searches


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
        make_backbone(backbone, MEDIUM, ["encoder"])
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
