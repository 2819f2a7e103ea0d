"""A third competition on the engine, in one file: which points lie inside a circle?

`python -m tests.engine.toy_competition STEP [flags]`, where STEP is train, check_models, get_config
or infer; docs/guide/new_competition.md explains it part by part.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine import cli
from hearback.engine.data.batching import Tensors
from hearback.engine.data.folds import FoldSplit, assign_folds
from hearback.engine.data.problems import Report
from hearback.engine.data.tables import read_table, write_table
from hearback.engine.ensemble.config import ModelConfig, load_config
from hearback.engine.ensemble.fitting import fit, model_configs
from hearback.engine.ensemble.stacking import Groups, StackingData, combine_predictions
from hearback.engine.evaluation import check_models
from hearback.engine.evaluation.fold_tables import log_loss_by_fold
from hearback.engine.evaluation.oof import BinaryOutOfFold, common_rows, read_tables
from hearback.engine.evaluation.outliers import Outlier
from hearback.engine.io import sha256_of, write_json
from hearback.engine.launch import command as launch
from hearback.engine.training import script
from hearback.engine.training.fold_files import FoldFiles, build_and_load, read_fold_metadata
from hearback.engine.training.options import FoldOptions, declare_common
from hearback.engine.training.recipe import FoldRecipe
from hearback.engine.training.task import Evaluation, FoldRun, Task

PROGRAM = "python -m tests.engine.toy_competition"


@dataclass(frozen=True)
class Points(FoldSplit):
    """The table: `filenames` and `folds`, (rows,), `xy`, (rows, 2), and `labels`, (rows,)."""

    filenames: list[str]
    xy: Tensor
    labels: Tensor
    folds: np.ndarray
    fingerprint: str

    @classmethod
    def read(cls, path: Path, n_folds: int = 2) -> "Points":
        """Read and check a CSV of filename, x, y, label; all problems in one error."""
        report = Report()
        table = read_table(path, ["filename", "x", "y", "label"], report).frame
        report.raise_if_errors()
        labels = table["label"].to_numpy(np.float32)
        xy = torch.from_numpy(table[["x", "y"]].to_numpy(np.float32))
        folds = assign_folds(table, labels, n_folds)
        return cls(
            table["filename"].tolist(), xy, torch.from_numpy(labels), folds, sha256_of(path)[:16]
        )


@dataclass(frozen=True)
class PointBatch(Tensors):
    """`xy`, (batch, 2), `labels` and `rows`, (batch,)."""

    xy: Tensor
    labels: Tensor
    rows: Tensor

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.rows)


@dataclass(frozen=True, kw_only=True)
class ToyRecipe(FoldRecipe):
    """A perceptron with one hidden layer of `hidden` units."""

    name: str
    hidden: int
    learning_rate: float = 0.05
    epochs: int = 12
    batch_size: int = 16
    max_gradient_norm: float = 5.0
    average_decay: float = 0.0
    seed: int = 1
    data_seed: int = 1


RECIPES = {name: ToyRecipe(name=name, hidden=n) for name, n in (("small", 8), ("large", 32))}


class ToyOptions(FoldOptions):
    """The engine's flags, and no others."""

    @classmethod
    def declare(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags."""
        declare_common(parser, group_by=("filename",))

    def load_data(self, recipes: object = None) -> Points:
        """Read the training table."""
        return Points.read(self.data / "train.csv", self.n_folds)


def build_model(recipe: ToyRecipe) -> nn.Module:
    """Return the untrained model: (batch, 2) to (batch, 1) logits."""
    return nn.Sequential(nn.Linear(2, recipe.hidden), nn.Tanh(), nn.Linear(recipe.hidden, 1))


class ToyTask(Task):
    """Models, batches, loss and metrics of one fold."""

    def __init__(self, run: FoldRun[ToyRecipe, ToyOptions, Points]) -> None:
        self.run, self.data = run, run.data

    def build_model(self) -> nn.Module:
        return build_model(self.run.recipe)

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        rate = self.run.recipe.learning_rate
        return torch.optim.Adam([{"params": list(model.parameters()), "peak_lr": rate}], lr=rate)

    def epoch_batches(
        self, model: nn.Module, epochs: range
    ) -> Iterator[tuple[int, Iterator[PointBatch]]]:
        size = self.run.recipe.batch_size
        for epoch in epochs:
            rng = np.random.default_rng(self.run.seeds(epoch))
            rows = torch.from_numpy(rng.permutation(self.run.train_rows))
            parts = rows.split(size)
            yield len(rows), (PointBatch(self.data.xy[p], self.data.labels[p], p) for p in parts)

    def compute_logits(self, model: nn.Module, batch: PointBatch) -> tuple[Tensor, Tensor]:
        return model(batch.xy).squeeze(1).float(), torch.zeros(())

    def compute_loss(self, logits: Tensor, batch: PointBatch) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="sum")

    @torch.inference_mode()
    def evaluate(self, model: nn.Module) -> Evaluation:
        rows = self.run.validation_rows
        preds = model.eval()(self.data.xy[rows]).squeeze(1).double().sigmoid()
        loss = F.binary_cross_entropy(preds, self.data.labels[rows].double()).item()
        return Evaluation({"validation_log_loss": loss}, {"preds": preds})

    def out_of_fold(self, predictions: Mapping[str, Tensor]) -> dict[str, pd.DataFrame]:
        rows = self.run.validation_rows
        columns = {
            "filename": [self.data.filenames[row] for row in rows],
            "label": self.data.labels[rows].numpy(),
            "pred": predictions["preds"].numpy(),
        }
        return {"oof": pd.DataFrame(columns)}

    def describe(self, model: nn.Module) -> dict[str, Any]:
        rate = self.data.labels[self.run.train_rows].double().mean()
        labels = self.data.labels[self.run.validation_rows].double()
        loss = F.binary_cross_entropy(rate.expand(len(labels)), labels).item()
        return {"shape": {}, "base_rate": rate.item(), "base_rate_log_loss": loss}


class ToyOutOfFold(BinaryOutOfFold):
    """`rows` has filename, label, pred, fold and base."""

    LABEL_COLUMN = "label"
    TRAIN_COMMAND = f"{PROGRAM} train"


def show(tables: Sequence[ToyOutOfFold], assets: Path) -> list[Outlier]:
    """Print the models' scores and return the folds that stand out."""
    check_models.print_sections({"Log loss per fold": log_loss_by_fold(tables)}, assets, tables)
    return check_models.print_outliers(tables)


def read_command(model: str, words: Sequence[str]) -> tuple[list[str], argparse.Namespace]:
    """Return the arguments of a fold's retrain command, without "python", and its flags."""
    flags = check_models.read_training_flags(words[4:], ToyOptions.declare)
    return [*PROGRAM.split()[1:], "fold", model, *words[5:]], flags


def step_train() -> int:
    """Train all folds that are missing."""
    program = (*PROGRAM.split()[1:], "fold")

    def show_all(options: ToyOptions, models: list[str]) -> None:
        show(read_tables(ToyOutOfFold, options.assets, models), options.assets)

    return launch.main(
        launch.Competition("train", RECIPES, ToyOptions, lambda name: (*program, name), show_all)
    )


def step_fold() -> None:
    """Train one fold of the recipe that the first argument names."""
    recipe = RECIPES[sys.argv.pop(1)]
    program = (*PROGRAM.split()[1:], "fold", recipe.name)
    script.main(lambda: ToyTask, ToyOptions, recipe, program)


def step_check_models() -> int:
    """Print the scores; return 1 if a fold stands out."""
    parser = cli.parser("check_models")
    check_models.add_flags(parser)
    flags = parser.parse_args()

    def read() -> list[ToyOutOfFold]:
        return read_tables(ToyOutOfFold, flags.assets, flags.models)

    status, _ = check_models.check(
        flags, read(), read, lambda tables: show(tables, flags.assets), read_command
    )
    return status


def step_get_config() -> None:
    """Fit the ensemble and write model_configs.json into the assets."""
    parser = cli.parser("get_config")
    check_models.add_folder_flags(parser)
    flags = parser.parse_args()
    tables = read_tables(ToyOutOfFold, flags.assets, flags.models)
    rows = common_rows(tables, pd.read_csv(flags.data / "train.csv", dtype={"filename": str}))
    data = StackingData(
        predictions=np.stack([of_model["pred"].to_numpy() for of_model in rows]),
        labels=rows[0]["label"].to_numpy(),
        groups=Groups.from_names(rows[0]["filename"].to_numpy(dtype=str)),
        calibration_groups=np.full(len(rows[0]), ""),
    )
    scores = fit(data, [table.model for table in tables], "logits", "none")
    models = [vars(model) for model in model_configs(tables, scores)]
    write_json(flags.assets / "model_configs.json", models)
    print(f"weighted ensemble: log loss {scores.cross_fitted:.4f}")


def step_infer() -> None:
    """Score test.csv and write submission.csv beside it."""
    parser = cli.parser("infer")
    check_models.add_folder_flags(parser)
    flags = parser.parse_args()
    path = flags.assets / "model_configs.json"
    models = load_config(
        path, lambda values: [*map(ModelConfig.from_dict, values)], lambda _: None, "get_config"
    )
    points = Points.read(flags.data / "test.csv")
    predictions = np.array([predict(flags.assets, model, points.xy) for model in models])
    weights = np.array([model.weight for model in models])
    columns = {
        "filename": points.filenames,
        "pred": combine_predictions("logits", weights, predictions),
    }
    write_table(pd.DataFrame(columns), flags.data / "submission.csv")


@torch.inference_mode()
def predict(assets: Path, config: ModelConfig, xy: Tensor) -> np.ndarray:
    """Return a model's probabilities, (rows,): the mean over its folds."""
    preds = []
    for fold in config.folds:
        files = FoldFiles(assets, config.name, fold)
        metadata = read_fold_metadata(files)
        model = build_and_load(
            files, metadata, partial(build_model, ToyRecipe.from_dict(metadata["recipe"]))
        )
        preds.append(model(xy).squeeze(1).double().sigmoid().numpy())
    return np.mean(preds, axis=0)


if __name__ == "__main__":
    cli.run(globals()[f"step_{sys.argv.pop(1)}"])
