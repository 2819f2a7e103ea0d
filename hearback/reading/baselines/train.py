"""Score the training clips with simple baselines, on the same folds as the models.

    python -m hearback.reading.baselines.train --data data --backbone assets/whisper-tiny.en

base        the mean label of the training rows
text        no audio: logistic regression on n-grams of the expected text and its length
transcript  logistic regression on the edits between Whisper's greedy transcript and the text (an
            improved version of the competition's example)
acoustic    boosted trees on the sound of the recording: MFCC, energy, pitch, spectrum, pace (the
            competition's benchmark, which reached about 0.6)

All but the first also use task and grade, as the models do; none uses the speaker. Hyperparameters
(a penalty, a number of trees) are selected within the training rows, with whole speakers held out.
Each fold has two files in the assets, `model_baseline_<name>_<fold>.oof.csv` and `.json`, which
check_models.py reads. There are no weights, so infer.py cannot run a baseline.
"""

import hashlib
import json
import platform
import shlex
import time
from importlib.metadata import version

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss

from hearback.engine import cli
from hearback.engine.data import corrections
from hearback.engine.data.tables import write_table
from hearback.engine.io import sha256_of, write_json
from hearback.engine.machine import TRAINING_PRECISIONS
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata
from hearback.reading import FOLDERS
from hearback.reading.baselines.acoustic import EarlyStoppedTrees, acoustic_inputs
from hearback.reading.baselines.base import (
    Baseline,
    BaselineOptions,
    BaseRate,
    Inputs,
    no_inputs,
)
from hearback.reading.baselines.text import text_estimator, text_inputs
from hearback.reading.baselines.transcript_edits import transcript_estimator, transcript_inputs
from hearback.reading.dataset import TrainingData, load_training_data
from hearback.reading.evaluation import group_unit

PACKAGES = ("torch", "transformers", "numpy", "pandas", "scikit-learn", "librosa", "rapidfuzz")

BASELINES = {
    "base": Baseline(no_inputs, lambda: BaseRate(strategy="prior")),
    "text": Baseline(text_inputs, text_estimator),
    "transcript": Baseline(transcript_inputs, transcript_estimator),
    "acoustic": Baseline(acoustic_inputs, EarlyStoppedTrees),
}


def main() -> None:
    """Score the requested baselines, and print their log losses."""
    values = vars(make_parser().parse_args())
    options = BaselineOptions(**{**values, "baselines": tuple(values["baselines"])})
    data = load_training_data(
        options.data,
        None,  # no baseline hears reference speech
        options.store,
        n_folds=options.n_folds,
        group_by=options.group_by,
        limit=options.limit,
        corrections_path=options.corrections,
    )
    for name in options.baselines:
        folds = score_baseline(name, data, options)
        loss = np.average(
            [fold["log_loss"] for fold in folds], weights=[fold["n_validation"] for fold in folds]
        )
        seconds = sum(fold["seconds"] for fold in folds)
        print(f"{model_name(name)}: out-of-fold log loss {loss:.4f}, {seconds:.0f} s", flush=True)


def make_parser() -> cli.Parser:
    """Declare the flags of `BaselineOptions`."""
    parser = cli.parser(__doc__)
    cli.add_folders(parser, {**FOLDERS, "assets": "folder to write the folds to"})
    corrections.add_flag(parser)
    add = parser.add_argument
    add(
        "--backbone",
        default="assets/whisper-tiny.en",
        help="Whisper that transcribes the recordings",
    )
    add(
        "--baselines",
        nargs="+",
        choices=tuple(BASELINES),
        default=list(BASELINES),
        help="baselines to score (default: all)",
    )
    add("--n_folds", type=int, default=6, help="number of cross-validation folds")
    add(
        "--group_by",
        choices=("speaker", "expected_text", "none"),
        help="column of rows held out together (default: speaker, if there is such a column)",
    )
    add("--limit", type=cli.int_of_at_least(1), help="use only the first LIMIT rows of the table")
    add("--device", help="cpu, cuda, … (default: a GPU if there is one)")
    add(
        "--precision",
        choices=TRAINING_PRECISIONS,
        default="auto",
        help="of the transcriber; auto: half precision on a GPU, float32 on a CPU",
    )
    return parser


def model_name(name: str) -> str:
    """Return a baseline's name among the models."""
    return f"model_baseline_{name}"


def score_baseline(name: str, data: TrainingData, options: BaselineOptions) -> list[FoldMetadata]:
    """Fit and score a baseline on each fold, write the folds' files, and return their metadata."""
    inputs = BASELINES[name].inputs(data, options)
    groups = data.metadata[inner_group(data.metadata, options)].to_numpy(dtype=str)
    metadata_by_fold = []
    for fold in range(options.n_folds):
        train, held_out = np.flatnonzero(data.folds != fold), np.flatnonzero(data.folds == fold)
        started = time.monotonic()
        estimator = BASELINES[name].estimator()
        estimator.fit(inputs.features.iloc[train], data.labels[train], groups=groups[train])
        predictions = estimator.predict_proba(inputs.features.iloc[held_out])[:, 1]
        input_seconds = inputs.seconds * len(held_out) / len(data.labels)
        seconds = round(time.monotonic() - started + input_seconds, 2)
        fold_metadata = make_metadata(
            name, fold, data, options, inputs=inputs, predictions=predictions, seconds=seconds
        )
        oof = pd.DataFrame(
            {
                "filename": [data.source.filenames[row] for row in held_out],
                "score": data.labels[held_out],
                "pred": predictions,
            }
        )
        files = FoldFiles(options.assets, model_name(name), fold)
        metadata_by_fold.append(save_fold(files, oof, fold_metadata))
    return metadata_by_fold


def inner_group(metadata: pd.DataFrame, options: BaselineOptions) -> str:
    """Return the column of the groups that are not split in inner folds."""
    if options.group_by in (None, "none"):
        return group_unit(metadata)
    return str(options.group_by)


def make_metadata(
    name: str,
    fold: int,
    data: TrainingData,
    options: BaselineOptions,
    *,
    inputs: Inputs,
    predictions: np.ndarray,
    seconds: float,
) -> FoldMetadata:
    """Return a fold's metadata: the fields that the evaluation reads, and all inputs of the fit.

    It has a single epoch, the fit: nothing was selected on the held-out rows. No baseline hears
    reference speech.
    """
    held_out = data.folds == fold
    labels = data.labels[held_out]
    base_rate = float(data.labels[~held_out].mean())
    loss = float(log_loss(labels, predictions, labels=[0, 1]))
    baseline = {
        "name": name,
        "features": list(inputs.features.columns),
        **(inputs.settings or {}),
    }
    return {
        "baseline": baseline,
        "recipe_fingerprint": hashlib.sha256(json.dumps(baseline).encode()).hexdigest()[:16],
        "n_folds": options.n_folds,
        "group_by": options.group_by,
        "limit": options.limit,
        "data_fingerprint": data.fingerprint,
        "corrections": data.corrections.record(),
        "model": model_name(name),
        "fold": fold,
        "base_rate": base_rate,
        "retrain_command": retrain_command(name, options),
        "epochs": [{"epoch": 1, "validation_log_loss": loss}],
        "best_epoch": 1,
        "log_loss": loss,
        "base_rate_log_loss": float(
            log_loss(labels, np.full(len(labels), base_rate), labels=[0, 1])
        ),
        "n_train": int((~held_out).sum()),
        "n_validation": int(held_out.sum()),
        "seconds": seconds,
        "references_fingerprint": None,
        "voice": None,
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }


def save_fold(files: FoldFiles, oof: pd.DataFrame, fold_metadata: FoldMetadata) -> FoldMetadata:
    """Write a fold's predictions, then its metadata with their digest; return the metadata."""
    files.metadata.unlink(missing_ok=True)  # old metadata must not validate new predictions
    write_table(oof, files.oof)
    fold_metadata = {**fold_metadata, "sha256": {"oof": sha256_of(files.oof)}}
    write_json(files.metadata, fold_metadata)
    return fold_metadata


def retrain_command(name: str, options: BaselineOptions) -> str:
    """Return the command that scores this baseline with `options`."""
    parts = ["python", "-m", "hearback.reading.baselines.train", "--baselines", name]
    defaults = vars(make_parser().parse_args([]))
    for option, value in vars(options).items():
        if option != "baselines" and value != defaults[option]:
            parts += [f"--{option}", str(value)]
    return shlex.join(parts)


if __name__ == "__main__":
    cli.run(main)
