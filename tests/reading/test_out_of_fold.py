"""docs/out_of_fold: what is published is whole, of one split, and names no machine's folders."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hearback.engine.evaluation.logistic import PROBABILITY_MARGIN
from hearback.engine.evaluation.oof import OutOfFold, read_tables
from hearback.engine.project import ROOT
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading.words import read_fold
from hearback.songs.evaluation import ClassOutOfFold

PUBLISHED = ROOT / "docs" / "out_of_fold"
FOLDERS = sorted(path for path in PUBLISHED.iterdir() if path.is_dir())


def is_of_songs(folder: Path) -> bool:
    return folder.name.startswith("songs")


def line_of(folder: Path) -> str:
    """Return the line of the page's table that tells of a folder."""
    lines = (PUBLISHED / "README.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"| `{folder.name}/` |"))
    return line


def beyond_certainty(table: ClassOutOfFold) -> pd.Series:
    """Return by fold what was counted above the loss of the surest of mistakes.

    The songs' training took the logarithm of what a model says until 2026-11-28, and the tables
    take it of nothing below that.
    """
    given = table.probabilities[np.arange(len(table.rows)), table.rows["label"]]
    excess = np.log(PROBABILITY_MARGIN / given.clip(max=PROBABILITY_MARGIN))
    return pd.Series(excess, index=table.rows.index).groupby(table.rows["fold"]).mean()


def test_there_are_published_folds() -> None:
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_is_published_can_be_read(folder: Path) -> None:
    assert line_of(folder)
    for table in read_tables(ClassOutOfFold if is_of_songs(folder) else OutOfFold, folder):
        if missing := ", ".join(map(str, table.missing_folds)):
            assert f"without folds {missing}" in line_of(folder)
        assert table.rows["filename"].is_unique
        told = {
            fold: fold_metadata["log_loss"]
            for fold, fold_metadata in table.metadata_by_fold.items()
        }
        losses = table.fold_log_losses()
        if isinstance(table, ClassOutOfFold):
            losses = losses + beyond_certainty(table)
        np.testing.assert_allclose(losses, [told[fold] for fold in sorted(told)])
        for fold, fold_metadata in table.metadata_by_fold.items():
            if "words" in fold_metadata["sha256"]:
                read_fold(FoldFiles(folder, table.model, fold), fold_metadata)


@pytest.mark.parametrize("songs", [False, True], ids=["reading", "songs"])
def test_all_of_a_competition_are_of_one_split(songs: bool) -> None:
    folders = [folder for folder in FOLDERS if is_of_songs(folder) == songs]
    metadata_by_fold = [
        json.loads(path.read_text()) for at in folders for path in at.glob("*.json")
    ]
    splits = {
        (fold_metadata["n_folds"], fold_metadata["data_fingerprint"])
        for fold_metadata in metadata_by_fold
    }
    assert len(splits) == bool(folders)


def test_no_path_of_a_machine_is_published() -> None:
    for path in PUBLISHED.glob("*/*.json"):
        assert not [word for word in path.read_text().split('"') if word.startswith("/")], path
        assert " /" not in path.read_text(), path
