"""The learning rate over a training, as the published systems had it.

A function of what is known already, so that a training that goes on needs no scheduler's state.
"""

import math
from collections.abc import Sequence

from songs.recipe import SongRecipe

# torch's defaults, of MultiStepLR and ReduceLROnPlateau: the systems' own are not published.
DROP = 0.1
LEAST_GAIN = 1e-4  # relative: a loss that is lower by less is no improvement


def learning_rate_factor(
    recipe: SongRecipe, epochs_done: float, validation_losses: Sequence[float]
) -> float:
    """Return the share of the recipe's learning rate after `epochs_done` epochs.

    `validation_losses` are those of the finished epochs; only "plateau" looks at them. The cosines
    move with every step, the others after whole epochs.

    - "cosine": half a period over all epochs, to zero (torch's CosineAnnealingLR).
    - "cosine restarts": such a half `periods` times, equally long. Loshchilov and Hutter, "SGDR",
      2017, eq. 5, with T_mult 1 (torch's CosineAnnealingWarmRestarts).
    - "multistep": a tenth from each milestone epoch on (torch's MultiStepLR).
    - "plateau": a tenth after more than `patience_epochs` without a lower loss (torch's
      ReduceLROnPlateau). It listens to the fold that is then reported, as published: keep that in
      mind when reading its scores.
    """
    if recipe.schedule == "cosine":
        return _cosine(epochs_done / recipe.epochs)
    if recipe.schedule == "cosine restarts":
        return _cosine(epochs_done * recipe.periods / recipe.epochs % 1)
    if recipe.schedule == "multistep":
        return DROP ** sum(milestone <= epochs_done for milestone in recipe.milestones)
    return DROP ** _plateaus(validation_losses, recipe.patience_epochs)


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _plateaus(losses: Sequence[float], patience_epochs: int) -> int:
    """Count how often there was no improvement for more than `patience_epochs` in a row."""
    best, n_bad, n_plateaus = math.inf, 0, 0
    for loss in losses:
        if loss < best * (1 - LEAST_GAIN):
            best, n_bad = loss, 0
        else:
            n_bad += 1
        if n_bad > patience_epochs:
            n_bad, n_plateaus = 0, n_plateaus + 1
    return n_plateaus
