"""How fast recordings should be played to a trained model, by grade.

    python -m benchmarks.speeds --data DATA --models modeltok --speeds 1 0.9 0.8 0.7

Each fold hears the rows that it held out again, all of them at each speed in place of those of its
recipe (`speed_by_grade`). A model that was trained at another speed orders clips well and is too
strict or too mild, so beside the log loss as it is there is that of log-odds calibrated by age,
without the speakers that they are scored on. Whoever picks a speed for each grade from these tables
picks on the rows that they show, which flatters a little: train with it to know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hearback.engine import cli
from hearback.engine.devices import (
    TRAINING_PRECISIONS,
    choose_device,
    compute_dtype,
    default_workers,
)
from hearback.engine.ensemble import stacking
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import oof
from hearback.engine.evaluation.oof import OutOfFold
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading import evaluation
from hearback.reading.dataset import TrainingData, load_training_data
from hearback.reading.inference.predict import predict
from hearback.reading.models.load import load_scorer
from hearback.reading.steps.get_config import evidence_of

CALIBRATION = "platt_by_group"


def main() -> None:
    """Hear what the command line asks for, and print the tables."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"), help="tables and recordings")
    add("--tts_data", type=Path, default=Path("tts_data"), help="the reference speech")
    add("--store", type=Path, default=Path("store"), help="decoded recordings")
    add("--assets", type=Path, default=Path("assets"), help="trained folds")
    add("--models", nargs="+", help="only these (default: all that are trained)")
    add("--speeds", nargs="+", type=float, default=[1.0, 0.9, 0.8, 0.7], help="times as fast")
    add("--device", help="cpu, cuda, … (default: a GPU where there is one)")
    add("--precision", choices=TRAINING_PRECISIONS, default="auto", help="of the matrix products")
    asked = parser.parse_args()
    device = choose_device(asked.device)
    dtype = compute_dtype(device, asked.precision)
    tables = evaluation.read_out_of_fold(asked.assets, asked.models)
    data = load_data(tables, asked.data, asked.tts_data, asked.store)
    for table in tables:
        heard = hear(table, asked.assets, data, asked.speeds, device=device, dtype=dtype)
        for title, frame in by_speed(table, heard, data).items():
            print(f"\n{table.model}: {title}\n{cli.as_text(frame)}")


def load_data(tables: Sequence[OutOfFold], data: Path, tts_data: Path, store: Path) -> TrainingData:
    """Load what the folds were trained on; HearbackError where it is something else by now."""
    fold_metadata = next(iter(tables[0].metadata_by_fold.values()))
    loaded = load_training_data(
        data,
        tts_data,
        store,
        n_folds=fold_metadata["n_folds"],
        group_by=fold_metadata["group_by"],
        limit=fold_metadata["limit"],
    )
    if loaded.fingerprint != fold_metadata["data_fingerprint"]:
        raise HearbackError(
            f"{data}: table, recordings or references are not those that the folds were trained "
            "on; train them again with python train.py"
        )
    return loaded


def hear(
    table: OutOfFold,
    assets: Path,
    data: TrainingData,
    speeds: Sequence[float],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[float, pd.Series]:
    """Return the predictions of a model's trained folds at each speed, by filename."""
    found: dict[float, list[pd.Series]] = {speed: [] for speed in speeds}
    for fold, fold_metadata in table.metadata_by_fold.items():
        files = FoldFiles(assets, table.model, fold)
        model, rows = load_scorer(files, fold_metadata), data.validation_rows(fold)
        names = [data.filenames[row] for row in rows]
        for speed, predictions in found.items():
            model.recipe = replace(model.recipe, speed_by_grade=(speed, speed, speed, speed))
            heard = predict(
                model,
                data.source,
                rows,
                device=device,
                dtype=dtype,
                n_workers=default_workers(device),
                progress=f"{table.model} fold {fold} at {speed:g}",
            )
            predictions.append(pd.Series(heard.clips, index=names))
    return {speed: pd.concat(of_folds) for speed, of_folds in found.items()}


def by_speed(
    table: OutOfFold, heard: Mapping[float, pd.Series], data: TrainingData
) -> dict[str, pd.DataFrame]:
    """Return tables of a row per grade and a column per speed: log loss, calibrated, and AUC."""
    metadata = data.metadata.assign(score=data.labels)
    rows = oof.with_metadata(table.rows, metadata)
    as_it_is: list[OutOfFold] = []
    calibrated: list[OutOfFold] = []
    for speed, predictions in heard.items():
        played = rows.assign(pred=predictions[rows["filename"]].to_numpy())
        evidence = evidence_of(played, ["pred"])
        cross_fitted = stacking.cross_fit(evidence, "logits", [CALIBRATION])[CALIBRATION]
        for kept, pred in ((as_it_is, played["pred"]), (calibrated, cross_fitted)):
            own = played[["filename", "score", "base", "fold"]].assign(pred=np.asarray(pred))
            kept.append(OutOfFold(f"at {speed:g}", table.n_folds, own, {}))
    return {
        "log loss": evaluation.by_column(as_it_is, metadata, "grade"),
        "log loss, calibrated by age": evaluation.by_column(calibrated, metadata, "grade"),
        "AUC": evaluation.areas_by_grade(as_it_is, metadata),
    }


if __name__ == "__main__":
    cli.run(main)
