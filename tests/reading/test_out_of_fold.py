"""docs/out_of_fold: published predictions are complete, of one split, and name no local paths."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hearback.engine.evaluation.logistic import PROBABILITY_MARGIN
from hearback.engine.evaluation.oof import OutOfFold, read_tables
from hearback.engine.project import ROOT
from hearback.engine.training.fold_archive import NAME, read_archive
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading.evaluation import ReadingOutOfFold
from hearback.reading.recipe import Recipe
from hearback.reading.words import read_fold
from hearback.songs.evaluation import ClassOutOfFold
from hearback.songs.recipe import SongRecipe

PUBLISHED = ROOT / "docs" / "out_of_fold"
FOLDERS = sorted(path for path in PUBLISHED.iterdir() if path.is_dir())
MAX_BYTES = 1_750_000
# Their recordings were decoded by a newer store; the page says so.
NEWER = ("labels", "labels_tiny")


def is_of_songs(folder: Path) -> bool:
    return folder.name.startswith("songs")


def line_of(folder: Path) -> str:
    """Return the folder's line of the page's table."""
    lines = (PUBLISHED / "README.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"| `{folder.name}/` |"))
    return line


def loss_beyond_margin(table: ClassOutOfFold) -> pd.Series:
    """Return the mean loss by fold beyond that of a probability of `PROBABILITY_MARGIN`.

    Until 2026-11-28 the songs' training did not clip probabilities, and the tables did.
    """
    given = table.probabilities[np.arange(len(table.rows)), table.rows["label"]]
    excess = np.log(PROBABILITY_MARGIN / given.clip(max=PROBABILITY_MARGIN))
    return pd.Series(excess, index=table.rows.index).groupby(table.rows["fold"]).mean()


def test_there_are_published_folds() -> None:
    assert FOLDERS


def test_published_folds_stay_small() -> None:
    files = [path for path in PUBLISHED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    assert {path.name for path in files} == {"README.md", NAME}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_published_folds_can_be_read(folder: Path) -> None:
    assert line_of(folder)
    kind: type[OutOfFold] = ClassOutOfFold if is_of_songs(folder) else ReadingOutOfFold
    for table in read_tables(kind, folder):
        if missing := ", ".join(map(str, table.missing_folds)):
            assert f"without folds {missing}" in line_of(folder)
        assert table.rows["filename"].is_unique
        recorded = {fold: metadata["log_loss"] for fold, metadata in table.metadata_by_fold.items()}
        losses = table.fold_log_losses()
        if isinstance(table, ClassOutOfFold):
            losses = losses + loss_beyond_margin(table)
        np.testing.assert_allclose(losses, [recorded[fold] for fold in sorted(recorded)])
        for fold, metadata in table.metadata_by_fold.items():
            if "words" in metadata["sha256"]:
                read_fold(FoldFiles(folder, table.model, fold), metadata)


def splits_of(folders: list[Path]) -> set[tuple[int, str]]:
    """Return the numbers of folds and the fingerprints of the data of all folds in some folders."""
    return {
        (metadata["n_folds"], metadata["data_fingerprint"])
        for folder in folders
        for name, content in read_archive(folder).items()
        if name.endswith(".json")
        for metadata in [json.loads(content)]
    }


@pytest.mark.parametrize("songs", [False, True], ids=["reading", "songs"])
def test_all_folds_of_a_competition_are_of_one_split(songs: bool) -> None:
    folders = [each for each in FOLDERS if is_of_songs(each) == songs and each.name not in NEWER]
    assert len(splits_of(folders)) == 1


def test_newer_folds_hold_out_the_same_recordings() -> None:
    newer, older = [PUBLISHED / name for name in NEWER], PUBLISHED / "recipes"
    assert len(splits_of(newer)) == 1
    by_folder = [
        {
            table.model: table.rows.set_index("filename")["fold"].sort_index()
            for table in read_tables(ReadingOutOfFold, folder)
        }["modeltok"]
        for folder in (*newer, older)
    ]
    assert all(each.equals(by_folder[-1]) for each in by_folder)


def test_published_recipes_have_the_fields_of_today() -> None:
    for folder in FOLDERS:
        kind = SongRecipe if is_of_songs(folder) else Recipe
        for name, content in read_archive(folder).items():
            if name.endswith(".json"):
                metadata = json.loads(content)
                recipe = kind.from_dict(metadata["recipe"])
                assert recipe.fingerprint == metadata["recipe_fingerprint"], (folder.name, name)


def test_no_local_path_is_published() -> None:
    for folder in FOLDERS:
        for name, content in read_archive(folder).items():
            if name.endswith(".json"):
                text = content.decode()
                assert not [word for word in text.split('"') if word.startswith("/")], name
                assert " /" not in text, name
