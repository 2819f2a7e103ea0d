"""Fold metadata of version 0.2 and earlier, brought up to date.

In those versions every model's data fingerprint included the references, even for models that hear
none. Now it does not: models that hear references have the former value in
`references_fingerprint`.
"""

from collections.abc import Sequence
from pathlib import Path

from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.oof import trained_folds
from hearback.engine.io import write_json
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata
from hearback.reading.dataset import TrainingData
from hearback.reading.pairings import WITHOUT_REFERENCE

FIELD = "references_fingerprint"


def find_outdated(assets: Path) -> list[FoldFiles]:
    """Return the finished folds in `assets` whose metadata is of an earlier version."""
    outdated = []
    for model, folds in trained_folds(assets).items():
        for files in (FoldFiles(assets, model, fold) for fold in folds):
            try:
                fold_metadata = read_fold_metadata(files)
            except HearbackError:
                continue  # damaged: it is trained again
            # Folds in an archive are not trained again. Baselines hear no references.
            if files.metadata.exists() and FIELD not in fold_metadata:
                outdated.append(files)
    return outdated


def upgrade(outdated: Sequence[FoldFiles], data: TrainingData) -> None:
    """Rewrite the metadata of the `outdated` folds that were trained on `data`."""
    n_upgraded = 0
    for files in outdated:
        fold_metadata = read_fold_metadata(files)
        former = fold_metadata.get("data_fingerprint")
        if former is None or former != data.fingerprint_with_references:
            continue
        pair = (fold_metadata.get("recipe") or {}).get("pair")
        hears = pair is not None and pair not in WITHOUT_REFERENCE
        changed = {"data_fingerprint": data.fingerprint, FIELD: former if hears else None}
        write_json(files.metadata, {**fold_metadata, **changed})
        n_upgraded += 1
    if n_upgraded:
        print(f"brought the metadata of {n_upgraded} folds of an earlier version up to date")
