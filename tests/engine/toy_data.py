"""Points of the toy competition, and options of trainings on them."""

from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine import cli
from tests.engine.toy_competition import ToyOptions


def write_points(path: Path, n_rows: int, seed: int) -> np.ndarray:
    """Write a table of random points of the square; return whether each is in the circle."""
    xy = np.random.default_rng(seed).uniform(-1, 1, (n_rows, 2))
    inside = np.hypot(*xy.T) < 0.8
    filenames = [f"{path.stem}{row}.txt" for row in range(n_rows)]
    table = pd.DataFrame({"filename": filenames, "x": xy[:, 0], "y": xy[:, 1], "label": inside})
    path.parent.mkdir(exist_ok=True)
    table.astype({"label": int}).to_csv(path, index=False)
    return inside


def write_toy_data(folder: Path, n_folds: int) -> ToyOptions:
    """Write 60 points into `folder`; return options of a training on them."""
    write_points(folder / "data" / "train.csv", 60, seed=0)
    parser = cli.parser(None)
    ToyOptions.declare(parser)
    names = ("data", "store", "assets", "runs")
    flags = [part for name in names for part in (f"--{name}", str(folder / name))]
    flags += ["--n_folds", str(n_folds), "--device", "cpu"]
    return ToyOptions.gather(parser.parse_args(flags))
