"""docs/out_of_fold: what is published is whole, of one split, and names no machine's folders."""

import json
from pathlib import Path

import numpy as np
import pytest

from hearback.evaluation import read_out_of_fold

PUBLISHED = Path(__file__).parent.parent / "docs" / "out_of_fold"
FOLDERS = sorted(path for path in PUBLISHED.iterdir() if path.is_dir())


def test_every_folder_is_in_the_table() -> None:
    page = (PUBLISHED / "README.md").read_text()
    assert FOLDERS and all(f"| `{folder.name}/` |" in page for folder in FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_is_published_can_be_read(folder: Path) -> None:
    for table in read_out_of_fold(folder):  # its digests fit
        assert table.missing_folds == []
        assert table.rows["filename"].is_unique
        told = {fold: story["log_loss"] for fold, story in table.stories.items()}
        np.testing.assert_allclose(table.fold_log_losses(), [told[fold] for fold in sorted(told)])


def test_all_are_of_one_split() -> None:
    stories = [json.loads(path.read_text()) for path in PUBLISHED.glob("*/*.json")]
    assert len({(story["n_folds"], story["data_fingerprint"]) for story in stories}) == 1


def test_no_path_of_a_machine_is_published() -> None:
    for path in PUBLISHED.glob("*/*.json"):
        assert not [word for word in path.read_text().split('"') if word.startswith("/")], path
        assert " /" not in path.read_text(), path
