"""Fabricated folds of the reading competition, for the tests of what reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import log_loss

from hearback.engine.training.fold_files import FoldFiles, save_fold
from hearback.reading.tables import GRADES, TASKS

N_ROWS, N_FOLDS = 96, 3
VOICE = {"backend": "tones", "speed": 0.7}
BASE_RATE = 0.6


def make_metadata() -> pd.DataFrame:
    """Return a table of 96 rows with their scores; row `i` is held out by fold `i % 3`."""
    numbers = np.arange(N_ROWS)
    return pd.DataFrame(
        {
            "filename": [f"{number:03}.wav" for number in numbers],
            "task": [TASKS[number // 3 % 4] for number in numbers],
            "expected_text": [f"text {'abcdefghijkl'[number // 3 % 12]}" for number in numbers],
            "grade": [GRADES[number // 24] for number in numbers],
            "speaker": [f"s{number % 24}" for number in numbers],
            "score": (numbers * 7 % 5 < 3).astype(float),
        }
    )


def make_predictions(quality: float, seed: int = 0) -> np.ndarray:
    """Return (96,) probabilities; with quality 0 they are noise."""
    sign = 2 * make_metadata()["score"].to_numpy() - 1
    logits = quality * sign + np.random.default_rng(seed).normal(0, 1, N_ROWS)
    return 1 / (1 + np.exp(-logits))


def write_data(data: Path, table: pd.DataFrame | None = None) -> None:
    """Write the training tables into the folder `data`, without recordings."""
    table = make_metadata() if table is None else table
    data.mkdir(parents=True)
    table.drop(columns="score").to_csv(data / "train_metadata.csv", index=False)
    table[["filename", "score"]][::-1].to_csv(data / "train_labels.csv", index=False)


def write_folds(
    assets: Path,
    model: str,
    predictions: np.ndarray,
    folds: Sequence[int] = range(N_FOLDS),
    words: pd.DataFrame | None = None,
    **changes: Any,
) -> None:
    """Write finished folds of `model`; `changes` replace fields of their metadata.

    `words` is a table of the word scores of all rows (`words.to_table`), if the model has them.
    """
    table = make_metadata()[["filename", "score"]].assign(pred=predictions)
    for fold in folds:
        rows = table[table.index % N_FOLDS == fold]
        fold_metadata = {
            "recipe": {"pair": "joined"},
            "recipe_fingerprint": "recipe",
            "data_fingerprint": "data",
            **{"n_folds": N_FOLDS, "group_by": None, "limit": None},
            **{"base_rate": BASE_RATE, "voice": VOICE, "n_validation": len(rows), "seconds": 30.0},
            "epochs": [{"epoch": 1, "validation_log_loss": log_loss(rows["score"], rows["pred"])}],
            "retrain_command": f"python train_{model}.py --fold {fold} --n_folds 3 --attempt 2",
            **changes,
        }
        further = {}
        if words is not None:
            further["words"] = words[words["filename"].isin(rows["filename"])]
        files = FoldFiles(assets, model, fold)
        save_fold(files, {"weight": torch.zeros(1)}, rows, fold_metadata, further)


def make_causes() -> pd.DataFrame:
    """Return the cause of each score: correct, or alternately omit and substitute."""
    metadata = make_metadata()
    wrong = np.where(np.arange(N_ROWS) % 2, "omit", "substitute")
    why = np.where(metadata["score"] > 0, "correct", wrong)
    return pd.DataFrame({"filename": metadata["filename"], "age": "7", "why": why})
