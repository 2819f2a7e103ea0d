"""Compare playback speeds of the recordings for a trained model, by grade.

    python -m benchmarks.speeds --data DATA --models modeltok --speeds 1 0.9 0.8 0.7

Each fold scores its held-out rows at each speed, in place of its recipe's `speed_by_grade`. At
another speed than in training, a model still ranks clips well but is miscalibrated, so the tables
show the log loss both uncalibrated and calibrated by age, cross-fitted by speaker. Choosing the
speeds from these tables is optimistic, since it uses the same rows: train with them to be sure.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hearback.engine import cli
from hearback.engine.devices import choose_device, compute_dtype, default_workers
from hearback.engine.ensemble import stacking
from hearback.engine.errors import HearbackError
from hearback.engine.machine import TRAINING_PRECISIONS
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata
from hearback.reading import FOLDERS, evaluation
from hearback.reading.dataset import TrainingData, load_training_data
from hearback.reading.ensemble_fitting import stacking_data
from hearback.reading.evaluation import ReadingOutOfFold
from hearback.reading.inference.predict import predict
from hearback.reading.models.load import load_scorer
from hearback.reading.recipe import Recipe

CALIBRATION = "platt_by_group"


def main() -> None:
    """Score the folds at each speed, and print the tables."""
    parser = cli.parser(__doc__)
    declare_trained(parser)
    add = parser.add_argument
    add(
        "--speeds",
        nargs="+",
        type=float,
        default=[1.0, 0.9, 0.8, 0.7],
        help="relative playback speeds",
    )
    add("--precision", choices=TRAINING_PRECISIONS, default="auto", help="of the matrix products")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    dtype = compute_dtype(device, arguments.precision)
    tables = evaluation.read_out_of_fold(arguments.assets, arguments.models)
    data = load_data(tables, arguments.data, arguments.tts_data, arguments.store)
    for table in tables:
        predictions = predict_at_speeds(
            table, arguments.assets, data, arguments.speeds, device=device, dtype=dtype
        )
        for title, frame in by_speed(table, predictions, data).items():
            print(f"\n{table.model}: {title}\n{cli.as_text(frame)}")


def declare_trained(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a benchmark on trained folds: folders, models and device."""
    cli.add_folders(parser, FOLDERS)
    add = parser.add_argument
    add("--models", nargs="+", help="default: all trained models")
    add("--device", help="cpu, cuda, … (default: a GPU if available)")


def load_data(
    tables: Sequence[ReadingOutOfFold], data: Path, tts_data: Path, store: Path
) -> TrainingData:
    """Load the folds' training data. Raises HearbackError if it has changed since."""
    first = [next(iter(table.metadata_by_fold.values())) for table in tables]
    hears_references = any(Recipe.from_dict(each["recipe"]).hears_reference for each in first)
    return load_data_of(first[0], data, tts_data if hears_references else None, store)


def load_data_of(
    fold_metadata: FoldMetadata, data: Path, tts_data: Path | None, store: Path
) -> TrainingData:
    """Load the training data of a fold; `tts_data` is None for models that hear no references.

    Raises HearbackError if it has changed since.
    """
    loaded = load_training_data(
        data,
        tts_data,
        store,
        n_folds=fold_metadata["n_folds"],
        group_by=fold_metadata["group_by"],
        limit=fold_metadata["limit"],
    )
    # Folds of earlier versions have the fingerprint with the references.
    known = (loaded.fingerprint, loaded.fingerprint_with_references)
    if fold_metadata["data_fingerprint"] not in known:
        raise HearbackError(
            f"{data}: table, recordings or references differ from those that the folds were "
            "trained on; train them again with python train.py"
        )
    return loaded


def predict_at_speeds(
    table: ReadingOutOfFold,
    assets: Path,
    data: TrainingData,
    speeds: Sequence[float],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[float, pd.Series]:
    """Return the out-of-fold predictions of a model at each speed, by filename."""
    found: dict[float, list[pd.Series]] = {speed: [] for speed in speeds}
    for fold, fold_metadata in table.metadata_by_fold.items():
        files = FoldFiles(assets, table.model, fold)
        model, rows = load_scorer(files, fold_metadata), data.validation_rows(fold)
        names = [data.filenames[row] for row in rows]
        for speed, of_folds in found.items():
            model.recipe = replace(model.recipe, speed_by_grade=(speed, speed, speed, speed))
            predicted = predict(
                model,
                data.source,
                rows,
                device=device,
                dtype=dtype,
                n_workers=default_workers(device),
                progress=f"{table.model} fold {fold} at {speed:g}",
            )
            of_folds.append(pd.Series(predicted.clips, index=names))
    return {speed: pd.concat(of_folds) for speed, of_folds in found.items()}


def by_speed(
    table: ReadingOutOfFold, predictions: Mapping[float, pd.Series], data: TrainingData
) -> dict[str, pd.DataFrame]:
    """Return tables with a row per grade and a column per speed: log loss, calibrated, and AUC."""
    metadata = data.metadata.assign(score=data.labels)
    rows = table.rows_with(metadata)
    uncalibrated: list[ReadingOutOfFold] = []
    calibrated: list[ReadingOutOfFold] = []
    for speed, at_speed in predictions.items():
        played = rows.assign(pred=at_speed[rows["filename"]].to_numpy())
        data_of_speed = stacking_data(played, ["pred"])
        cross_fitted = stacking.cross_fit(data_of_speed, "logits", [CALIBRATION])[CALIBRATION]
        for tables, pred in ((uncalibrated, played["pred"]), (calibrated, cross_fitted)):
            own = played[["filename", "score", "base", "fold"]].assign(pred=np.asarray(pred))
            tables.append(ReadingOutOfFold(f"at {speed:g}", table.n_folds, own, {}))
    return {
        "log loss": evaluation.by_column(uncalibrated, metadata, "grade"),
        "log loss, calibrated by age": evaluation.by_column(calibrated, metadata, "grade"),
        "AUC": evaluation.auc_by_grade(uncalibrated, metadata),
    }


if __name__ == "__main__":
    cli.run(main)
