"""Plots of confusion matrices. Matplotlib is optional and imported on use."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write
from hearback.songs.tables import CLASSES, N_CLASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DARK = 0.55  # share of the true class from which text is white
_PER_LINE = 3  # matrices side by side


def draw_confusions(matrices: Mapping[str, np.ndarray], path: Path) -> None:
    """Draw confusion matrices, (true classes, predicted classes), into one picture.

    `matrices` maps titles to matrices. A cell shows its number of rows and their share of the true
    class, which also sets its colour. The suffix of `path` selects the format. Raises HearbackError
    if Matplotlib is not installed or does not support the format.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (an optional package)
    except ImportError:
        raise HearbackError(
            "--picture needs Matplotlib, which is not installed: pip install matplotlib"
        ) from None
    n_columns = min(len(matrices), _PER_LINE)
    n_lines = math.ceil(len(matrices) / n_columns)
    figure = Figure(figsize=(4.6 * n_columns, 4.5 * n_lines), layout="constrained")
    if path.suffix[1:].lower() not in figure.canvas.get_supported_filetypes():
        known = ", ".join(figure.canvas.get_supported_filetypes())
        raise HearbackError(f"{path}: unknown picture format; use one of {known}")
    panels = figure.subplots(n_lines, n_columns, squeeze=False).ravel()
    for axes in panels[len(matrices) :]:
        axes.set_axis_off()
    for axes, (title, matrix) in zip(panels, matrices.items(), strict=False):
        _draw_confusion(axes, title, matrix)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _draw_confusion(axes: "Axes", title: str, matrix: np.ndarray) -> None:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(N_CLASSES):
        for column in range(N_CLASSES):
            share = shares[row, column]
            axes.text(
                column,
                row,
                f"{matrix[row, column]}\n{share:.0%}",
                ha="center",
                va="center",
                fontsize=10,
                color="white" if share > _DARK else "black",
            )
    correct = np.trace(matrix) / max(matrix.sum(), 1)
    axes.set_title(f"{title}\n{matrix.sum()} snippets, accuracy {correct:.1%}", fontsize=10)
    axes.set_xticks(range(N_CLASSES), CLASSES)
    axes.set_yticks(range(N_CLASSES), CLASSES)
    axes.set_xlabel("predicted (%: of the true class)")
    axes.set_ylabel("true")
