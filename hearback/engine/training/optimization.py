"""Gradient steps: clipping, fp16 loss scaling and the running average of the weights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hearback.engine.errors import HearbackError
from hearback.engine.training.checkpoint import (
    load_optimizer_tensors,
    optimizer_tensors,
    with_prefix,
    without_prefix,
)
from hearback.engine.training.recipe import FoldRecipe

LOWEST_FACTOR_THAT_MOVES = 0.01  # of the peak learning rate; below, an update may round to zero


@dataclass(frozen=True)
class Update:
    """The outcome of a gradient step, still on the device: () each, as in `stall_detector.Step`.

    `applied` and `moved` are bool; `moved` is None where the learning rate is too low to expect it.
    """

    gradient_norm: Tensor
    applied: Tensor
    moved: Tensor | None


class Optimization:
    """A model with its optimizer, gradient scaler and averaged weights.

    Raises HearbackError if a parameter group has no `peak_lr`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: FoldRecipe,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        if any("peak_lr" not in group for group in optimizer.param_groups):
            raise HearbackError(f"{recipe.name}: a parameter group of its optimizer has no peak_lr")
        self.model, self.optimizer = model, optimizer
        self.max_gradient_norm = recipe.max_gradient_norm
        self.average = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.average_decay))
            if recipe.average_decay
            else None
        )
        # bf16 has float32's range and needs no loss scaling.
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self._one = torch.ones((), device=device)
        # One element per parameter: a cheap test of whether any has changed.
        self._watched = [
            parameter.detach()[tuple(size // 2 for size in parameter.shape)].view(1)
            for parameter in model.parameters()
            if parameter.requires_grad
        ]

    @property
    def eval_model(self) -> nn.Module:
        """The model to evaluate and save: the averaged weights, if the recipe averages them."""
        return self.model if self.average is None else self.average.module

    def reset_average(self) -> None:
        """Restart the running average at the model's current weights."""
        if self.average is not None:
            self.average.module.load_state_dict(self.model.state_dict())

    def step(self, losses: Iterable[Tensor], factor: float) -> Update:
        """Take one step at `factor` times the peak learning rates, on the sum of the losses.

        A loss's gradients are computed before the next loss.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        # Tensors, not numbers: reading any would wait for the device.
        scale, before = self.scaler.scale(self._one), torch.cat(self._watched)
        self.optimizer.zero_grad(set_to_none=True)
        for loss in losses:
            self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.max_gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._update_average()
        can_move = factor >= LOWEST_FACTOR_THAT_MOVES
        return Update(
            gradient_norm=norm,
            # The scaler lowers its scale if it skips the step.
            applied=self.scaler.scale(self._one) >= scale,
            moved=(before != torch.cat(self._watched)).any() if can_move else None,
        )

    @torch.no_grad()
    def _update_average(self) -> None:
        """Include the model's weights in the running average.

        As `AveragedModel.update_parameters`, which waits for the device at every step, to move its
        count there.
        """
        if self.average is None:
            return
        average: list[Tensor] = list(self.average.module.parameters())
        current: list[Tensor] = list(self.model.parameters())
        if self.average.n_averaged == 0:
            for mean, parameter in zip(average, current, strict=True):
                mean.copy_(parameter)
        else:
            assert self.average.multi_avg_fn is not None
            self.average.multi_avg_fn(average, current, self.average.n_averaged)
        # Buffers are not averaged.
        for ours, theirs in zip(self.average.module.buffers(), self.model.buffers(), strict=True):
            ours.copy_(theirs)
        self.average.n_averaged += 1

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights and the optimizer's state, for a checkpoint."""
        average = {} if self.average is None else self.average.state_dict()
        return {
            **with_prefix("model", self.model.state_dict()),
            **with_prefix("optimizer", optimizer_tensors(self.optimizer)),
            **with_prefix("average", average),
        }

    def load(self, tensors: Mapping[str, Tensor], scaler: dict[str, Any]) -> None:
        """Load the result of `tensors`, and the state of the scaler."""
        self.model.load_state_dict(without_prefix("model", tensors))
        load_optimizer_tensors(self.optimizer, without_prefix("optimizer", tensors))
        if self.average is not None:
            self.average.load_state_dict(without_prefix("average", tensors))
        self.scaler.load_state_dict(scaler)
