"""Gradient steps: clipping, fp16 loss scaling and the running average of the weights."""

from collections.abc import Mapping
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
    """The outcome of a gradient step; the fields are those of `stall_detector.Step`."""

    gradient_norm: float
    applied: bool
    moved: bool | None


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

    def step(self, loss: Tensor, factor: float) -> Update:
        """Take one step at `factor` times the peak learning rates."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        scale, before = self.scaler.get_scale(), torch.cat(self._watched)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.max_gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.model)
        can_move = factor >= LOWEST_FACTOR_THAT_MOVES
        return Update(
            gradient_norm=norm.item(),
            applied=self.scaler.get_scale() >= scale,  # the scaler lowers it if it skips the step
            moved=not torch.equal(before, torch.cat(self._watched)) if can_move else None,
        )

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
