"""A plan as text."""

from collections.abc import Iterator, Sequence

import pandas as pd
import torch

from hearback.engine.devices import device_name
from hearback.engine.machine import count_processors, free_memory
from hearback.engine.plan.estimate import ModelPlan
from hearback.engine.plan.gpus import ASSUMED_SHARE, computed_seconds

GB = 1e9


def show(plans: Sequence[ModelPlan], n_jobs: int) -> str:
    """Return a table with a row for each model, and what it means in all; `n_jobs` run at once."""
    device = plans[0].device
    rows = [_row(plan) for plan in plans]
    table = pd.DataFrame(rows).set_index("model").to_string()
    lines = [
        f"Plan, measured on {device_name(device)}; nothing was trained or written",
        "",
        table,
        "",
        *_totals(plans, n_jobs),
        *_beside_each_other(plans, device),
        *_mapped(plans),
        *_other_gpus(plans),
    ]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a duration with its unit: seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return f"{seconds / 60:.1f} min"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(n_bytes: float) -> str:
    """Return a number of bytes in MB or GB."""
    return f"{n_bytes / 1e6:.3g} MB" if n_bytes < GB else f"{n_bytes / GB:.3g} GB"


def _row(plan: ModelPlan) -> dict[str, str]:
    files = plan.files
    return {
        "model": plan.name,
        "trained": f"{files.n_trained / 1e6:.3g} of {files.n_parameters / 1e6:.3g} M",
        "memory": size(plan.device_bytes),
        "mapped": size(plan.mapped_bytes),
        "weights": size(files.weights),
        "checkpoint": size(files.checkpoint),
        "FLOPs a fold": f"{plan.fold_flops:.2g}",
        "FLOP/s": f"{plan.speed.flops_per_second:.2g}",
        "a fold": duration(plan.fold_seconds),
        "folds": str(plan.n_folds),
        "all": duration(plan.seconds),
        "measured": "itself" if plan.measured_as is None else f"as {plan.measured_as}",
    }


def _totals(plans: Sequence[ModelPlan], n_jobs: int) -> Iterator[str]:
    seconds = sum(plan.seconds for plan in plans)
    n_folds = sum(plan.n_folds for plan in plans)
    folds = "1 fold" if n_folds == 1 else f"{n_folds} folds one after the other"
    yield f"Time: {duration(seconds)} for {folds}"
    if n_jobs > 1:
        yield (
            f"  {duration(seconds / n_jobs)} with --jobs {n_jobs}, if each is as fast then as one "
            "alone was now"
        )
    for plan in plans:
        if (start := plan.start_seconds) > 0.1 * plan.fold_seconds:
            yield f"  of a fold of {plan.name}, {duration(start)} are for reading data and model"
        for each in plan.passes:
            if each.shared:
                yield (
                    f"  of {plan.name}, {duration(each.seconds)} are its {each.name}, which the "
                    "store lacks: once for all folds"
                )
    shared = dict.fromkeys(each.name for plan in plans for each in plan.passes if each.shared)
    yield (
        f"Operations: {sum(plan.flops for plan in plans):.2g} floating point operations of "
        + ("all folds" if n_folds > 1 else "the fold")
        + (f", with the {' and the '.join(shared)}" if shared else "")
    )
    weights = sum(plan.n_folds * plan.files.weights + plan.shared_bytes for plan in plans)
    files = {name: n for plan in plans for name, n in plan.files.parts.items()}
    parts = sum(files.values())
    checkpoints = 2 * n_jobs * max(plan.files.checkpoint for plan in plans)
    yield (
        f"Disk: {size(weights + parts)} to keep (of that {size(parts)} of unchanged backbones), "
        f"and up to {size(checkpoints)} for checkpoints meanwhile"
    )


def _beside_each_other(plans: Sequence[ModelPlan], device: torch.device) -> Iterator[str]:
    """Yield what fits side by side in the device's memory, by the model that needs most."""
    largest = max(plans, key=lambda plan: plan.device_bytes)
    free = largest.free
    if free is None:
        return
    n_fitting = int(free / largest.device_bytes)
    where = "the GPU" if device.type == "cuda" else "this machine's memory"
    line = (
        f"Memory: {size(largest.device_bytes)} for a fold of {largest.name}, of {size(free)} that "
        f"are free in {where}: "
    )
    if not n_fitting:
        line += "it does not fit. Use --micro_batch or --gradient_checkpointing"
    elif device.type == "cpu":
        n_processors = count_processors()
        processors = "1 processor" if n_processors == 1 else f"{n_processors} processors"
        line += f"{n_fitting} side by side, and {processors}: --jobs {min(n_fitting, n_processors)}"
    else:
        line += f"{n_fitting} side by side (--jobs {n_fitting}), which share its speed"
    yield line


def _mapped(plans: Sequence[ModelPlan]) -> Iterator[str]:
    """Yield what mapped files mean for the main memory, by the model that reads most of them."""
    largest = max(plans, key=lambda plan: plan.mapped_bytes)
    if not largest.mapped_bytes:
        return
    on_cpu = largest.device.type == "cpu"
    own, free = (largest.device_bytes, largest.free) if on_cpu else (0.0, free_memory())
    fits = free is None or own + largest.mapped_bytes <= free
    kept = "the system takes it back where memory is short"
    yield (
        f"Mapped files: {size(largest.mapped_bytes)}, read by a fold of {largest.name}, and part "
        "of a training's peak memory; one copy for all folds; "
        + (kept if fits else "it does not fit, so the system reads parts of it again")
    )


def _other_gpus(plans: Sequence[ModelPlan]) -> Iterator[str]:
    flops = sum(plan.flops for plan in plans)
    computed = ", ".join(
        f"{name} {'under 1 min' if each < 60 else duration(each)}"
        for name, each in computed_seconds(flops).items()
    )
    yield (
        f"Computed, not measured, from the operations at {ASSUMED_SHARE:.0%} of the peak rate in "
        f"bf16, without loading: {computed}. Small models take far longer: they are many small "
        "operations"
    )
