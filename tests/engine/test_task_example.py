"""The example in the docstring of `engine.training.task` works as written."""

import argparse
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine import cli
from hearback.engine.data.batching import Tensors
from hearback.engine.data.folds import FoldSplit
from hearback.engine.training import task as task_module
from hearback.engine.training.command import train_fold
from hearback.engine.training.options import FoldOptions, declare_common
from hearback.engine.training.recipe import FoldRecipe
from hearback.engine.training.task import Evaluation, FoldRun, Task

NAMES = {
    **{"dataclass": dataclass, "math": math, "np": np, "pd": pd, "torch": torch, "F": F, "nn": nn},
    **{"Evaluation": Evaluation, "FoldRun": FoldRun, "Task": Task},
    **{"Tensor": Tensor, "Tensors": Tensors},
}


class Digits(FoldSplit):
    """A noisy image for each digit's row, brightest in the digit's own pixel."""

    fingerprint = "0" * 16

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(120) % 10
        self.images = torch.rand(120, 64, generator=generator)
        self.images[torch.arange(120), self.labels] += 5
        self.filenames = [f"{row}.png" for row in range(120)]
        self.folds = np.arange(120) % 3


@dataclass(frozen=True, kw_only=True)
class DigitsRecipe(FoldRecipe):
    name: str = "digits"
    learning_rate: float = 0.1
    epochs: int = 4
    batch_size: int = 16
    max_gradient_norm: float = 5.0
    average_decay: float = 0.0
    seed: int = 1
    data_seed: int = 1


class DigitsOptions(FoldOptions):
    @classmethod
    def declare(cls, parser: argparse.ArgumentParser) -> None:
        declare_common(parser, group_by=("filename",))

    def load_data(self, recipes: object = None) -> Digits:
        return Digits()


def test_the_example_trains(tmp_path: Path) -> None:
    lines = (task_module.__doc__ or "").splitlines()
    example = "\n".join(line for line in lines if line.startswith("    ") or not line)
    names: dict[str, Any] = {"__name__": __name__, **NAMES}
    exec(textwrap.dedent(example), names)

    parser = cli.parser(None)
    DigitsOptions.declare(parser)
    folders = ["--assets", str(tmp_path / "assets"), "--runs", str(tmp_path / "runs")]
    options = DigitsOptions.gather(
        parser.parse_args([*folders, "--n_folds", "3", "--device", "cpu"])
    )
    metadata = train_fold(
        names["DigitsTask"], DigitsRecipe(), 0, options, options.load_data(), program=("digits.py",)
    )
    assert metadata["log_loss"] < 1 < metadata["base_rate_log_loss"]
    table = pd.read_csv(tmp_path / "assets" / "digits_0.oof.csv")
    np.testing.assert_allclose(table.filter(regex="^p").sum(axis=1), 1, atol=1e-5)
