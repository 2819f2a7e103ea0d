"""The first trained fold of each token scorer, for benchmarks on its held-out clips."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.speeds import declare_trained, load_data
from hearback.engine import cli
from hearback.engine.devices import choose_device
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading import evaluation
from hearback.reading.dataset import TrainingData
from hearback.reading.models.load import load_scorer
from hearback.reading.models.token_scorer import TokenScorer


@dataclass(frozen=True)
class FirstFold:
    """A trained fold: its name, its model on the device, the data, and the held-out rows."""

    name: str
    model: TokenScorer
    data: TrainingData
    rows: np.ndarray
    device: torch.device


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a benchmark on some held-out clips: those of trained folds, and a seed."""
    declare_trained(parser)
    parser.add_argument("--seed", type=cli.int_of_at_least(0), default=0, help="chooses the clips")


def read_first_folds(arguments: argparse.Namespace) -> Iterator[FirstFold]:
    """Yield the first fold of each model; HearbackError for one that is no token scorer."""
    device = choose_device(arguments.device)
    for table in evaluation.read_out_of_fold(arguments.assets, arguments.models):
        fold, fold_metadata = next(iter(table.metadata_by_fold.items()))
        model = load_scorer(FoldFiles(arguments.assets, table.model, fold), fold_metadata)
        if not isinstance(model, TokenScorer):
            raise HearbackError(f"{table.model} has no decoder: choose a token scorer")
        data = load_data([table], arguments.data, arguments.tts_data, arguments.store)
        name = f"{table.model} fold {fold}"
        yield FirstFold(name, model.to(device).eval(), data, data.validation_rows(fold), device)
