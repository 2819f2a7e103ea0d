"""Does every recipe work at its true size, and how much memory and disk does it take?

    python -m benchmarks.check_sizes                 # or: make check-sizes
    python -m benchmarks.check_sizes --recipes model2ds modeltok --micro_batch 2

For each recipe, on a backbone with random weights of the recipe's true sizes: a training step, the
validation, saving the fold; then, in another process, loading it, a batch of inference, and
packing it for a submission. Each process's peak memory is its own. The recordings are noise. The
table goes to standard output and, with --out, the figures to a JSON file.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.backbones import (
    CONFIGS,
    TINY_CONFIG,
    WHISPER_PARTS,
    build_part,
    make_backbone,
)
from benchmarks.clips import FOLDERS, ROOT, make_noise
from benchmarks.harness import machine, silence
from hearback.engine import cli
from hearback.engine.devices import compute_dtype, peak_memory_gb
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.io import write_json
from hearback.engine.machine import free_memory
from hearback.engine.submission.archive import Faults, find_folds, write_submission
from hearback.engine.training.command import save_fold
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata, shared_files
from hearback.engine.training.task import FoldRun
from hearback.engine.training.trainer import Trainer
from hearback.engine.whisper.backbone import Part
from hearback.engine.whisper.encoder import WhisperEncoder
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.predict import predict
from hearback.reading.models.load import load_scorer
from hearback.reading.options import TrainingOptions
from hearback.reading.recipe import Recipe, find_recipes
from hearback.reading.references import References
from hearback.reading.submission.pack import files_to_pack
from hearback.reading.tables import TASKS
from hearback.reading.training import ReadingTask

TOKENIZER = ROOT / "assets" / "whisper-tiny.en" / "tokenizer.json"  # its tokens are in all sizes
PHONES = ROOT / "assets" / "hama-phones"
N_CLIPS = 6  # of two folds
# Of a training, fitted to the table in docs/results/sizes.md, within 0.6 GB of it. Each parameter:
# its weight and copies to be saved; one that is trained: also its gradient and Adam's moments.
BASE_GB, BYTES_PER_PARAMETER, BYTES_PER_TRAINED = 1.0, 12, 12
BYTES_OF_SHARING = 4  # for each parameter of a model that shares files with other folds
BYTES_OF_INITIALIZED = 2  # for each parameter of a model whose weights are kept before epoch 1
Figures = dict[str, Any]


def main() -> int:
    """Run the recipes one after another, print a row of the table for each; 1 if one failed."""
    arguments = parse()
    recipes = choose_recipes(arguments.recipes)
    print(f"{machine()}\n{describe(arguments)}\n\n{HEADER}", flush=True)
    figures, faults = {}, []
    for recipe in recipes:
        try:
            with tempfile.TemporaryDirectory(dir=arguments.folder) as work:
                figures[recipe.name] = check(recipe, Path(work), arguments)
        except HearbackError as error:
            faults.append(str(error))
            continue
        print(row(recipe, figures[recipe.name]), flush=True)
        if arguments.out:
            write_json(arguments.out, figures)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def parse(flags: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--recipes", nargs="+", help="default: all recipes")
    add("--examples", type=cli.int_of_at_least(1), default=2, help="of the training step")
    add("--micro_batch", type=cli.int_of_at_least(1), default=1, help="computed at once")
    add("--gradient_checkpointing", action="store_true", help="as in the training scripts")
    add("--seconds", type=float, default=16.0, help="of each pair or recording")
    add("--precision", default="float32", help="of the training and the inference")
    add("--small", action="store_true", help="with a tiny backbone: a test of this script")
    add("--folder", type=Path, help="for temporary files, up to 6 GB (default: the system's)")
    add("--out", type=Path, help="JSON file of the figures")
    return parser.parse_args(flags)


def choose_recipes(names: Sequence[str] | None) -> list[Recipe]:
    """Return the recipes of these names, or all; HearbackError for an unknown one."""
    recipes = find_recipes(ROOT)
    if unknown := sorted(set(names or ()) - recipes.keys()):
        raise HearbackError(f"no recipe {', '.join(unknown)}; there are {', '.join(recipes)}")
    return [recipes[name] for name in names or recipes]


def check_memory(recipe: Recipe, arguments: argparse.Namespace) -> None:
    """Raise HearbackError if the machine has less free memory than the recipe needs, about."""
    if recipe.pair == "phones" or arguments.small:
        return
    needed = needed_gb(recipe)
    if needed > (free := available_gb()):
        raise HearbackError(
            f"{recipe.name}: it needs about {needed:.0f} GB of memory, and {free:.0f} GB are free: "
            "end other programs, or choose others with --recipes"
        )


def needed_gb(recipe: Recipe) -> float:
    """Return about the memory that a training with a Whisper needs, in GB."""
    config = CONFIGS[recipe.backbone.rpartition("/")[2]]
    used: Sequence[Part] = WHISPER_PARTS if recipe.pair == "tokens" else ("encoder",)
    shares = recipe.pair == "tokens" or recipe.frozen_share > 0
    of_all = BYTES_PER_PARAMETER + BYTES_OF_SHARING * shares
    of_all += BYTES_OF_INITIALIZED * recipe.has_pretrained_init
    n_bytes = 0
    for name in used:
        with torch.device("meta"):
            part = build_part(name, config)
        if isinstance(part, WhisperEncoder):
            part.freeze_below(round(recipe.frozen_share * len(part.layers)))
        elif recipe.adapter_rank:  # its updates are few
            part.requires_grad_(False)
        for each in part.parameters():
            is_trained = each.requires_grad and recipe.epochs > 0
            n_bytes += (of_all + BYTES_PER_TRAINED * is_trained) * each.numel()
    return BASE_GB + n_bytes / 1e9


def available_gb() -> float:
    """Return the memory that processes can still get, in GB; infinity where it is unknown."""
    free = free_memory()
    return math.inf if free is None else free / 1e9


def check(recipe: Recipe, work: Path, arguments: argparse.Namespace) -> Figures:
    """Run the stages of a recipe in processes of their own; return their figures together.

    The processes are forks of this one, which must have computed nothing, as in the command: then
    their peak memory is what they need themselves. A fork of a process that has computed with torch
    lacks its threads, and may wait for them without end.

    Raises HearbackError if a stage fails, and before all if too little memory is free.
    """
    check_memory(recipe, arguments)
    figures: Figures = {}
    for stage in (prepare, train, infer):
        process = get_context("fork").Process(target=_run, args=(stage, recipe, work, arguments))
        process.start()
        process.join()
        path = work / f"{stage.__name__}.json"
        if process.exitcode or not path.exists():
            raise HearbackError(
                f"{recipe.name}, {stage.__name__}: its process ended with {process.exitcode} "
                "(-9: the system ended it, for lack of memory)"
            )
        result = json.loads(path.read_text())
        if "error" in result:
            raise HearbackError(f"{recipe.name}, {stage.__name__}: {result['error']}")
        figures |= result
    return figures


def _run(
    stage: Callable[[Recipe, Path, argparse.Namespace], Figures],
    recipe: Recipe,
    work: Path,
    arguments: argparse.Namespace,
) -> None:
    """Run a stage without output, and write its figures or its error to `work`."""
    try:
        with silence():
            result = stage(recipe, work, arguments)
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    write_json(work / f"{stage.__name__}.json", result)


def prepare(recipe: Recipe, work: Path, arguments: argparse.Namespace) -> Figures:
    """Write recordings of noise with references, and the recipe's backbone, into `work`."""
    # A pair is a reference and a recording in one window, or a recording alone.
    with_reference = recipe.pair == "joined"
    seconds = arguments.seconds / 2 if with_reference else arguments.seconds
    make_noise(work, N_CLIPS, seconds)
    if recipe.pair in ("phones", "segments"):  # a recogniser of 2 million parameters, as it is
        shutil.copytree(PHONES, work / "assets" / PHONES.name)
    if recipe.pair != "phones":
        name = recipe.backbone.rpartition("/")[2]
        make_backbone(
            work / "backbone",
            TINY_CONFIG if arguments.small else CONFIGS[name],
            dtype=torch.float16 if name.startswith("distil") else torch.float32,  # as published
            tokenizer=TOKENIZER,
        )
    return {}


def training_options(recipe: Recipe, work: Path, arguments: argparse.Namespace) -> TrainingOptions:
    """Return the options of the training script, with its files in `work`."""
    parser = cli.parser(None)
    TrainingOptions.declare(parser)
    names = (*FOLDERS, "assets", "runs")
    flags = [part for name in names for part in (f"--{name}", str(work / name))]
    flags += ["--n_folds", "2", "--group_by", "none", "--device", "cpu", "--workers", "0"]
    flags += ["--precision", arguments.precision, "--micro_batch", str(arguments.micro_batch)]
    flags += ["--set", f"batch_size={arguments.examples}"]
    if recipe.hears_reference:  # no rendered hard negatives
        flags += ["--set", "hard_negatives=0.0"]
    if recipe.pair != "phones":
        flags += ["--backbone", str(work / "backbone")]
    if arguments.gradient_checkpointing:
        flags += ["--gradient_checkpointing"]
    return TrainingOptions.gather(parser.parse_args(flags))


def train(recipe: Recipe, work: Path, arguments: argparse.Namespace) -> Figures:
    """Take a training step, validate and save the fold; return the figures."""
    options = training_options(recipe, work, arguments)
    adapted = options.adapt(recipe)
    run: Any = FoldRun(adapted, 0, options, options.load_data([adapted]))
    trainer = Trainer(ReadingTask(run), run, [])
    figures: Figures = {"built_gb": peak_memory_gb(run.device)}
    trainer.start()
    if adapted.epochs:
        n_examples, batches = next(trainer.task.epoch_batches(trainer.model, range(1)))
        with timed(figures, "step_seconds"):
            trainer.train_epoch(n_examples, islice(batches, 1))
        figures["trained_gb"] = peak_memory_gb(run.device)
        trainer.evaluate_epoch()
    metadata = save_fold(trainer, (f"train_{recipe.name}.py",))
    shared = [options.assets / file.name for file in shared_files(metadata).values()]
    parameters = list(trainer.model.parameters())
    return {
        **figures,
        "training_peak_gb": peak_memory_gb(run.device),
        "n_parameters": sum(each.numel() for each in parameters),
        "n_trained": sum(each.numel() for each in parameters if each.requires_grad),
        "fold_mb": run.files.weights.stat().st_size / 1e6,
        "shared_mb": sum(path.stat().st_size for path in shared) / 1e6,
    }


def infer(recipe: Recipe, work: Path, arguments: argparse.Namespace) -> Figures:
    """Load the fold, score a batch and pack the fold; return the figures."""
    options, device = training_options(recipe, work, arguments), torch.device("cpu")
    data = options.load_data([options.adapt(recipe)])
    files = FoldFiles(options.assets, recipe.name, 0)
    figures: Figures = {}
    with timed(figures, "load_seconds"):
        model = load_scorer(files, read_fold_metadata(files))
    dtype, rows = compute_dtype(device, arguments.precision), range(arguments.examples)
    with timed(figures, "batch_seconds"):
        scores = predict(model, data.source, rows, device=device, dtype=dtype).clips
    if not all(0 <= score <= 1 for score in scores):
        raise HearbackError(f"{recipe.name}: a score is no probability: {scores}")
    figures["inference_peak_gb"] = peak_memory_gb(device)
    return {**figures, "zip_mb": pack_fold(recipe, work)}


def pack_fold(recipe: Recipe, work: Path) -> float:
    """Pack what a submission needs of the fold, without code; return the zip's size in MB."""
    voice = References(work / "tts_data").voice if recipe.hears_reference else None
    models = (ModelConfig(recipe.name, (0,), 1.0),)
    rates = dict.fromkeys(("all", *TASKS), 0.5)
    config = EnsembleConfig(models, voice, rates, {"cross_fitted": 0.5}, n_rows=N_CLIPS)
    faults, path = Faults(), work / "submission.zip"
    entries = find_folds(
        models, work / "assets", lambda files: files_to_pack(files, config), faults
    )
    faults.raise_if_any()
    write_submission(entries, path, None, "")
    return path.stat().st_size / 1e6


@contextmanager
def timed(figures: Figures, name: str) -> Iterator[None]:
    """Put the seconds of the block into `figures`."""
    started = time.perf_counter()
    yield
    figures[name] = time.perf_counter() - started


HEADER = """\
| Model | Backbone | Parameters, M (trained) | Built, GB | Step, GB | Training, GB | Fold, MB \
| Shared, MB | Inference, GB | In a submission, MB |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def describe(arguments: argparse.Namespace) -> str:
    """Return the setting of the figures."""
    recomputed = ", --gradient_checkpointing" if arguments.gradient_checkpointing else ""
    return (
        f"a step of {arguments.examples} examples of {arguments.seconds:g} s, --micro_batch "
        f"{arguments.micro_batch}{recomputed}, --precision {arguments.precision}"
    )


def row(recipe: Recipe, figures: Figures) -> str:
    """Return a recipe's row of the table; one that takes no step has none to show."""
    millions = [figures[name] / 1e6 for name in ("n_parameters", "n_trained")]
    cells = [
        recipe.name,
        recipe.backbone.rpartition("/")[2],
        f"{millions[0]:.1f} ({millions[1]:.1f})",
        f"{figures['built_gb']:.1f}",
        f"{figures['trained_gb']:.1f}" if "trained_gb" in figures else "–",
        f"{figures['training_peak_gb']:.1f}",
        f"{figures['fold_mb']:.1f}",
        f"{figures['shared_mb']:.1f}",
        f"{figures['inference_peak_gb']:.1f}",
        f"{figures['zip_mb']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    cli.run(main)
