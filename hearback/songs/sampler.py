"""Which snippets an epoch hears, and how much each class counts."""

import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from hearback.engine.errors import HearbackError


def draw_epoch(
    rows: np.ndarray, labels: np.ndarray, balanced: bool, rng: np.random.Generator
) -> np.ndarray:
    """Return an epoch's row numbers, as many as `rows`, in random order.

    Each of `rows` once; or `balanced`: with replacement, every class as likely as any other, as
    torch's WeightedRandomSampler draws with the inverse class sizes. `labels`, (rows,) int, belong
    to `rows`, one each; raises ValueError where there are more or fewer.
    """
    if labels.shape != rows.shape:
        raise ValueError(f"{len(labels)} labels for {len(rows)} rows")
    if not balanced:
        return rng.permutation(rows)
    _, kinds, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    weights = 1 / sizes[kinds]
    return rng.choice(rows, size=len(rows), p=weights / weights.sum())


def class_weights(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Return what a snippet of each class counts in the loss, (n_classes,) float32.

    Inverse to the class's size, 1 on the average over snippets: scikit-learn's "balanced", King and
    Zeng (2001). Raises HearbackError where a class has no snippet.
    """
    classes = np.arange(n_classes)
    if missing := sorted(set(classes.tolist()) - set(labels.tolist())):
        raise HearbackError(
            f"no training snippet is of class {', '.join(map(str, missing))}, so it can have no "
            "weight; use fewer folds or more snippets"
        )
    return compute_class_weight("balanced", classes=classes, y=labels).astype(np.float32)
