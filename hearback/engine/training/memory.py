"""Less memory for a training step: recompute activations; and what fits if it was not enough."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hearback.engine import failures
from hearback.engine.errors import HearbackError
from hearback.engine.training.micro_batches import (
    MicroBatches,
    SplitBatch,
    has_batch_norm,
    refuse_batch_norm,
)

if TYPE_CHECKING:
    from hearback.engine.training.task import Batch
    from hearback.engine.training.trainer import Trainer

MICRO_BATCH, RECOMPUTE = "--micro_batch", "--gradient_checkpointing"


def recompute_layers(model: nn.Module, name: str) -> None:
    """Let a model's repeated layers keep their inputs only, and compute the rest twice.

    They are the modules of its `nn.ModuleList`s (Chen et al., "Training Deep Nets with Sublinear
    Memory Cost", 2016). Raises HearbackError if there are none, or they normalise over the batch;
    `name` is the model's.
    """
    refuse_batch_norm(model, name, RECOMPUTE)
    layers = _repeated_layers(model)
    if not layers:
        raise HearbackError(
            f"{name}: it has no repeated layers to compute again; leave {RECOMPUTE} out"
        )
    for layer in layers:
        if not _is_recomputed(layer):
            layer.forward = partial(_recomputed, layer.forward)  # type: ignore[method-assign]


def _repeated_layers(model: nn.Module) -> list[nn.Module]:
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return [layer for layers in lists for layer in layers]


def _recomputed(forward: Any, *inputs: Any) -> Any:  # noqa: ANN401  (of any layer)
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False)


def _is_recomputed(layer: nn.Module) -> bool:
    return isinstance(layer.forward, partial) and layer.forward.func is _recomputed


def describe_shortage(trainer: "Trainer", batch: "Batch | SplitBatch") -> str:
    """Return the error message after a step on `batch` ran out of memory: the flags that fit it.

    They are tried out, forward and backward, as the memory of other settings can only be guessed.
    The trainer can take no step any more.
    """
    run = trainer.run
    size = min(run.options.micro_batch or len(batch), len(batch))
    where = "the GPU's memory" if run.device.type == "cuda" else "memory"
    start = f"{run.title}: out of {where} in a step of {len(batch)} examples, {size} at once"
    if has_batch_norm(trainer.model):
        return (
            f"{start}, and batch normalisation excludes {MICRO_BATCH} and {RECOMPUTE}; use "
            "--set batch_size=N (it changes what the model learns), or another --device"
        )
    found = _find_flags(trainer, batch, size)
    if not found:
        return (
            f"{start}, and not even {MICRO_BATCH} 1 {RECOMPUTE} fits; use a smaller --backbone or "
            "another --device, or end other programs that use the memory"
        )
    return (
        f"{start}: {', or '.join(found)} fits this batch (longer recordings need more), and the "
        "model learns the same; run it again with that: it resumes from its last checkpoint"
    )


def _find_flags(trainer: "Trainer", batch: "Batch | SplitBatch", size: int) -> list[str]:
    """Return the flags that fit a batch of which `size` examples at once did not."""
    gc.collect()  # of the step that failed
    whole = batch.whole if isinstance(batch, SplitBatch) else batch.to(torch.device("cpu"))
    found, largest = [], size - 1
    if not trainer.run.options.gradient_checkpointing:
        if fitting := _find_fitting(trainer, whole, largest):
            found.append(f"{MICRO_BATCH} {fitting}")
        if not _repeated_layers(trainer.model):
            return found
        recompute_layers(trainer.model, trainer.run.title)
        largest = size
    if fitting := _find_fitting(trainer, whole, largest):
        is_whole = fitting >= trainer.run.recipe.batch_size
        found.append(RECOMPUTE if is_whole else f"{MICRO_BATCH} {fitting} {RECOMPUTE}")
    return found


def _find_fitting(trainer: "Trainer", batch: "Batch", largest: int) -> int | None:
    """Return the largest power of two, up to `largest`, that fits as --micro_batch; or None."""
    for size in _halvings(largest):
        if _fits(trainer, batch, size):
            return size
    return None


def _halvings(largest: int) -> Iterator[int]:
    """Yield the powers of two up to `largest`, in descending order."""
    for exponent in reversed(range(largest.bit_length())):
        yield 2**exponent


def _fits(trainer: "Trainer", batch: "Batch", size: int) -> bool:
    """Return whether gradients of a part of `size` can be computed, beside those of another one."""
    try:
        _compute_gradients(trainer, batch, size)
    except Exception as error:
        if not failures.is_out_of_memory(error):
            raise
        return False
    finally:
        trainer.optimizer.zero_grad(set_to_none=True)
    return True


def _compute_gradients(trainer: "Trainer", batch: "Batch", size: int) -> None:
    trainer.optimizer.zero_grad(set_to_none=True)
    if trainer.run.device.type == "cuda":
        torch.cuda.empty_cache()
    reserved = _optimizer_state(trainer)
    micro_batches = MicroBatches(trainer.model, trainer.run.title, size, trainer.run.device)
    split = micro_batches.split(batch)
    for part in micro_batches.each(replace(split, parts=split.parts[:2])):
        trainer.compute_losses(part)[2].backward()
    del reserved


def _optimizer_state(trainer: "Trainer") -> list[Tensor]:
    """Return as much memory as the optimizer will take at its first step, if that is to come."""
    if trainer.optimizer.state:
        return []
    trained = [p.detach() for p in trainer.model.parameters() if p.requires_grad]
    return [torch.zeros_like(parameter) for parameter in trained for _ in range(2)]  # Adam's two
