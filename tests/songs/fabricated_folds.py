"""Fabricated folds of the songs competition, for the tests of what reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import log_loss

from hearback.engine.training.fold_files import FoldFiles, save_fold
from hearback.songs.evaluation import PROBABILITIES, ModelName

N_ROWS, N_FOLDS, N_SINGERS = 192, 3, 12
SHARES = [0.25, 0.25, 0.25, 0.25]


def make_snippets() -> pd.DataFrame:
    """Return 192 snippets of 4 classes; the fold is the number of the first singer modulo 3.

    In half of the snippets of several singers the second singer is of another fold (the first one's
    number plus 2), in the other half of the same fold (plus 3).
    """
    numbers = np.arange(N_ROWS)
    labels, first = numbers % 4, numbers // 4 % N_SINGERS
    second = (first + np.where(numbers // 48 % 2, 2, 3)) % N_SINGERS
    singers = np.select(
        [labels == 0, labels == 3],
        ["", [f"s{a};s{b}" for a, b in zip(first, second, strict=True)]],
        default=[f"s{a}" for a in first],
    )
    return pd.DataFrame(
        {
            "filename": [f"train/train_{number:04}.ogg" for number in numbers],
            "label": labels,
            "singers": singers,
            "music": [f"band {a}" for a in first],
            "fold": first % N_FOLDS,
        }
    )


def make_probabilities(quality: float, seed: int = 0) -> np.ndarray:
    """Return (192, 4) probabilities; with quality 0 they are noise."""
    logits = np.random.default_rng(seed).normal(0, 1, (N_ROWS, 4))
    logits[np.arange(N_ROWS), make_snippets()["label"]] += quality
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def write_data(data: Path) -> None:
    """Write the labels and the manifest into the folder `data`, without recordings."""
    snippets = make_snippets()
    names = snippets["filename"].str.removeprefix("train/")
    (data / "train").mkdir(parents=True)
    lines = (f"{name},{label}\n" for name, label in zip(names, snippets["label"], strict=True))
    (data / "train_label.txt").write_text("".join(lines))
    snippets[["singers", "music"]].assign(file=names).to_csv(data / "manifest.csv", index=False)


def write_folds(
    assets: Path,
    model: str,
    probabilities: np.ndarray,
    folds: Sequence[int] = range(N_FOLDS),
    **changes: Any,
) -> None:
    """Write finished folds of `model`; `changes` replace fields of their metadata."""
    snippets = make_snippets()
    table = snippets[["filename", "label"]].assign(
        **dict(zip(PROBABILITIES, probabilities.T, strict=True))
    )
    name = ModelName.parse(model)
    for fold in folds:
        rows = table[snippets["fold"] == fold]
        loss = log_loss(rows["label"], rows[PROBABILITIES], labels=range(4))
        module = f"hearback.songs.recipes.{name.recipe}"
        flags = f"--fold {fold} --n_folds 3 --seed {name.seed} --separate {name.separation}"
        fold_metadata = {
            "recipe": {"name": model},
            "recipe_fingerprint": "recipe",
            "data_fingerprint": "data",
            **{"n_folds": N_FOLDS, "group_by": None, "limit": None},
            **{"base_rate": SHARES, "n_validation": len(rows), "seconds": 30.0},
            "epochs": [{"epoch": 1, "validation_log_loss": loss}],
            "retrain_command": f"python -m {module} {flags} --attempt 2",
            **changes,
        }
        save_fold(FoldFiles(assets, model, fold), {"weight": torch.zeros(1)}, rows, fold_metadata)
