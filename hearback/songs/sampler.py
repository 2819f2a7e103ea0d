"""Sampling of an epoch's snippets, and class weights for the loss."""

import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from hearback.engine.errors import HearbackError


def sample_epoch(
    rows: np.ndarray, labels: np.ndarray, balanced: bool, rng: np.random.Generator
) -> np.ndarray:
    """Return an epoch's rows, as many as `rows`, in random order.

    By default each row occurs once. If `balanced`, rows are drawn with replacement and all classes
    are equally likely, as with torch's WeightedRandomSampler and inverse class sizes as weights.
    `labels` are the classes of `rows`, (rows,) int. Raises ValueError if lengths differ.
    """
    if labels.shape != rows.shape:
        raise ValueError(f"{len(labels)} labels for {len(rows)} rows")
    if not balanced:
        return rng.permutation(rows)
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    weights = 1 / sizes[classes]
    return rng.choice(rows, size=len(rows), p=weights / weights.sum())


def class_weights(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the weight of each class in the loss, (n_classes,) float32.

    Inversely proportional to the class's size, with a mean of 1 over the snippets (scikit-learn's
    "balanced"; King and Zeng, 2001). Raises HearbackError for a class without snippets.
    """
    classes = np.arange(n_classes)
    if missing := sorted(set(classes.tolist()) - set(labels.tolist())):
        raise HearbackError(
            f"no training snippet is of class {', '.join(map(str, missing))}, so its weight is "
            "undefined; use fewer folds or more snippets"
        )
    return compute_class_weight("balanced", classes=classes, y=labels).astype(np.float32)
