"""Train a fold: repeat stalled attempts, then write the fold's files."""

import platform
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from tqdm import tqdm

from hearback.engine.devices import device_name, peak_memory_gb
from hearback.engine.errors import HearbackError
from hearback.engine.training import fold_files
from hearback.engine.training.checkpoint import save_checkpoint
from hearback.engine.training.fold_files import FoldMetadata
from hearback.engine.training.options import FoldOptions
from hearback.engine.training.recipe import FoldRecipe
from hearback.engine.training.stall_detector import StallError
from hearback.engine.training.task import FoldData, FoldRun, Task
from hearback.engine.training.trainer import Trainer

MAX_ATTEMPTS = 3  # per fold and command
PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "librosa", "safetensors")

MakeTask = Callable[[FoldRun[Any, Any, Any]], Task]


def train_fold(
    make_task: MakeTask,
    recipe: FoldRecipe,
    fold: int,
    options: FoldOptions,
    data: FoldData,
    *,
    program: Sequence[str],
    attempt: int = 1,
) -> FoldMetadata:
    """Train one fold of `recipe` with `options`, write its files and return its metadata.

    Each attempt has its own random numbers. If one stalls (`stall_detector`), the next follows, up
    to `MAX_ATTEMPTS` from `attempt` on; the metadata records each. A killed training resumes from
    its last checkpoint, in the same attempt. Raises HearbackError if the fold, the backbone or the
    device does not exist, another process trains this fold, or all attempts stalled.
    """
    if options.seed == recipe.seed:  # keep it out of `retrain_command`: it changes nothing
        options = replace(options, seed=None)
    run: FoldRun[Any, Any, Any] = FoldRun(options.adapt(recipe), fold, options, data, attempt)
    with fold_files.lock_fold(run.files):
        in_checkpoint = fold_files.checkpoint_attempts(run.files, run.run_key)
        earlier = in_checkpoint or fold_files.finished_attempts(run.files, run.run_key)
        stalled = {past["attempt"] for past in in_checkpoint if past["outcome"] == "stalled"}
        numbers = range(attempt, attempt + MAX_ATTEMPTS)
        for number in numbers:
            if number in stalled:
                continue  # in a killed process; it would stall again
            past_attempts = tuple(past for past in earlier if past["attempt"] != number)
            run = replace(run, attempt=number, earlier=past_attempts)
            trainer = Trainer(make_task(run), run)
            try:
                trainer.fit()
            except StallError as stall:
                earlier = mark_stalled(trainer, str(stall))
                del trainer  # a GPU may not hold two models
            else:
                return save_fold(trainer, program)
    raise HearbackError(_describe_stalls(run, earlier, numbers))


def mark_stalled(trainer: Trainer, reason: str) -> list[dict[str, Any]]:
    """Replace the attempt's checkpoint by a note that it stalled; return all attempts so far."""
    run, state = trainer.run, trainer.state
    stalled = {**state.describe_attempt(run.attempt, "stalled", reason), **state.all_steps()}
    attempts = [*run.earlier, stalled]
    next_key = {**run.run_key, "attempt": run.attempt + 1}
    save_checkpoint(run.files.checkpoint, {}, {"run_key": next_key, "attempts": attempts})
    tqdm.write(f"{run.title}: attempt {run.attempt} stalled: {reason}")
    return attempts


def _describe_stalls(
    run: FoldRun[Any, Any, Any], attempts: Sequence[dict[str, Any]], numbers: range
) -> str:
    """Return the error message: why each attempt stalled, and advice."""
    reasons = [
        f"  attempt {past['attempt']}: {past['reason']}"
        for past in attempts
        if past["attempt"] in numbers
    ]
    return "\n".join(
        [
            f"{run.title}: {len(reasons)} attempts stalled, the maximum",
            *reasons,
            f"Try other random numbers with --attempt {numbers[-1] + 1}. If the reasons are alike, "
            "first try a lower learning rate (--set learning_rate=…) or --precision float32, and "
            "check the recordings named above.",
            f"{run.files.checkpoint} records these attempts; delete it to repeat them.",
        ]
    )


def save_fold(trainer: Trainer, program: Sequence[str]) -> FoldMetadata:
    """Write the best epoch's weights and predictions, and the metadata; return the metadata."""
    state, task = trainer.state, trainer.task
    metadata = describe_fold(trainer, program)
    tables = dict(task.out_of_fold(state.best_predictions))
    oof = tables.pop("oof")
    files, weights, backbone = trainer.run.files, state.best_weights, task.backbone_tensors()
    return fold_files.save_fold(files, weights, oof, metadata, tables, backbone=backbone)


def describe_fold(trainer: Trainer, program: Sequence[str]) -> FoldMetadata:
    """Return the metadata of a finished fold."""
    run, state = trainer.run, trainer.state
    best = state.best(run.recipe.keep)
    return {
        **run.run_key,
        "model": run.recipe.name,
        "fold": run.fold,
        "attempt": run.attempt,
        "attempts": [*run.earlier, state.describe_attempt(run.attempt, "finished", None)],
        "retrain_command": shlex.join(
            [
                *("python", *program, "--fold", str(run.fold)),
                *run.options.as_flags(),
                *("--attempt", str(run.attempt + 1)),
            ]
        ),
        "epochs": state.history,
        "best_epoch": best["epoch"],
        "log_loss": best["validation_log_loss"],
        "n_train": len(run.train_rows),
        "n_validation": len(run.validation_rows),
        "seconds": round(state.seconds, 2),
        **trainer.task.describe(trainer.model),
        "device": device_name(run.device),
        "peak_memory_gb": round(peak_memory_gb(run.device), 2),
        "precision": str(run.dtype).removeprefix("torch."),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }
