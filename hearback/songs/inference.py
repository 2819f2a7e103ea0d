"""Inference: from `model_configs.json` to `submission.csv`, with the runtime's packages only."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from hearback.engine.audio.store_folder import StoreFolder
from hearback.engine.data.problems import Report
from hearback.engine.data.tables import write_problems, write_table
from hearback.engine.devices import (
    choose_device,
    compute_dtype,
    mixed_precision,
    to_device,
    to_host,
)
from hearback.engine.ensemble.prior import prior_on_failure, report_no_models
from hearback.engine.errors import HearbackError
from hearback.engine.io import check_writable
from hearback.engine.training.fold_archive import check_in_folder
from hearback.engine.training.fold_files import (
    FoldFiles,
    FoldMetadata,
    TrainedFold,
    build_and_load,
    check_version,
    read_fold_metadata,
)
from hearback.songs.ensemble import COMMAND, SongEnsemble, salvage_class_shares
from hearback.songs.evaluation import PROBABILITIES, ClassOutOfFold
from hearback.songs.models.classifiers import SongModel, build
from hearback.songs.recipe import SongRecipe
from hearback.songs.separation.methods import open_separation
from hearback.songs.store import FeatureStore, build_features
from hearback.songs.tables import (
    CLASSES,
    N_CLASSES,
    list_folder,
    list_snippets,
    probabilities_path,
)

BATCH_SIZE = 32
STORE = "infer"  # name of the stores; scoring another folder overwrites them


@dataclass(frozen=True)
class InferenceOptions:
    """Options of the step infer; `separations` are the options of each separation by its name."""

    data: Path
    store: Path
    assets: Path
    config: Path
    submission: Path
    device: str | None
    precision: str
    separations: Mapping[str, Mapping[str, Any]]


class EnsembleFold(TrainedFold):
    """A trained fold of an ensemble; `model` is the index of its model."""

    @property
    def recipe(self) -> SongRecipe:
        """The recipe that the fold was trained with."""
        return SongRecipe.from_dict(self.metadata["recipe"])


class FeatureSource(Protocol):
    """Source of features by filename, such as a store."""

    def get(self, filename: str) -> np.ndarray:
        """Return the features of a snippet, float32, in the shape of their kind."""


@torch.inference_mode()
def predict(
    model: SongModel,
    store: FeatureSource,
    filenames: Sequence[str],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> np.ndarray:
    """Return class probabilities, (snippets, classes) float64.

    The model is moved to the device and set to evaluation mode.
    """
    model.to(device).eval()
    probabilities = np.empty((len(filenames), N_CLASSES))
    for start in range(0, len(filenames), BATCH_SIZE):
        names = filenames[start : start + BATCH_SIZE]
        stacked = torch.from_numpy(np.stack([store.get(name) for name in names]))
        features = to_device(stacked, device)
        with mixed_precision(device, dtype):
            logits = model(features)
        (on_host,) = to_host(logits)
        probabilities[start : start + len(names)] = on_host.double().softmax(dim=1).numpy()
    return probabilities


def read_folds(config: SongEnsemble, assets: Path) -> list[EnsembleFold]:
    """Return all folds that the ensemble runs; HearbackError if one of them cannot run."""
    folds = []
    for number, model in enumerate(config.models_to_run):
        for fold in model.folds:
            files = FoldFiles(assets, model.name, fold)
            folds.append(EnsembleFold(number, files, read_runnable_metadata(files)))
    return folds


def read_runnable_metadata(files: FoldFiles) -> FoldMetadata:
    """Read the metadata of a fold to run; HearbackError if it is missing or cannot run."""
    check_in_folder(
        files.metadata,
        f"train it with {ClassOutOfFold.TRAIN_COMMAND}, or choose other models with python -m "
        "hearback.songs get_config",
    )
    fold_metadata = read_fold_metadata(files)
    check_version(files, fold_metadata)
    return fold_metadata


def load_model(fold: EnsembleFold) -> SongModel:
    """Load a fold's trained model on the CPU, in float32 and evaluation mode."""
    return build_and_load(
        fold.files, fold.metadata, lambda: build(fold.recipe, fold.metadata["shape"])
    )


def write_submission(options: InferenceOptions) -> None:
    """Classify the snippets of a folder and write the submission, with a row for every snippet.

    Writes filename and label to the submission, and beside it the class probabilities and the
    problems of snippets, if any. A snippet that cannot be scored gets the training shares of the
    classes.

    Raises HearbackError for problems of all snippets: an empty folder, a missing configuration or
    weights, or another separation. If it is not the folder's, and no submission is there, one of
    the class shares is written first: those of the configuration, or equal ones if it has none. A
    configuration without a model that has a weight gives class shares, too.
    """
    check_writable(options.submission)
    device = choose_device(options.device)
    dtype = compute_dtype(device, options.precision)
    report = Report()
    snippets = list_snippets(options.data)
    if skipped := list_folder(options.data).describe_skipped():
        print(skipped)
    filenames = snippets["filename"].tolist()
    is_scored = np.zeros(len(filenames), bool)
    with prior_on_failure(options.submission, lambda: _write_prior(options, filenames)):
        config = SongEnsemble.load(options.config)
        probabilities = np.tile(np.array(config.class_shares), (len(filenames), 1))
        if config.models_to_run:
            scored, is_scored = _score(
                options, config, snippets, report, device=device, dtype=dtype
            )
        else:
            scored = probabilities[is_scored]
            rows = "every snippet has the class shares"
            report.add(report_no_models(options.config, rows, "the class shares", COMMAND))
        probabilities[is_scored] = scored
        write_classes(filenames, probabilities, options.submission)
    print(f"{len(filenames)} snippets, {np.count_nonzero(~is_scored)} of them at the class shares")
    write_problems(report, options.submission)


def _write_prior(options: InferenceOptions, filenames: Sequence[str]) -> str:
    """Write a submission of class shares; return what the rows have.

    The configuration may be missing or damaged.
    """
    shares = salvage_class_shares(options.config)
    row = np.array(shares) if shares else np.full(N_CLASSES, 1 / N_CLASSES)
    write_classes(filenames, np.tile(row, (len(filenames), 1)), options.submission)
    unknown = f"equal class shares, because none are in {options.config}"
    return "the class shares of the training" if shares else unknown


def _score(
    options: InferenceOptions,
    config: SongEnsemble,
    snippets: pd.DataFrame,
    report: Report,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ensemble's (scored, classes) probabilities, and the mask of scored snippets."""
    folds = read_folds(config, options.assets)
    filenames = snippets["filename"].tolist()
    predictions = np.zeros((len(config.models_to_run), len(filenames), N_CLASSES))
    is_scored = np.zeros(len(filenames), bool)
    with tqdm(total=len(folds), desc="inference", unit="fold") as progress:
        for store, store_folds in build_feature_stores(folds, snippets, options, report):
            is_scored = np.array([filename in store for filename in filenames])
            names = [filename for filename in filenames if filename in store]
            for fold in store_folds:
                n_folds = len(config.models_to_run[fold.model].folds)
                scores = predict(load_model(fold), store, names, device=device, dtype=dtype)
                predictions[fold.model, is_scored] += scores / n_folds
                progress.update()
    return config.predict(predictions[:, is_scored]), is_scored


def build_feature_stores(
    folds: Sequence[EnsembleFold],
    snippets: pd.DataFrame,
    options: InferenceOptions,
    report: Report,
) -> Iterator[tuple[FeatureStore, list[EnsembleFold]]]:
    """Yield each feature store that the folds need, with the folds that use it.

    Raises HearbackError if a separation differs from that of the training.
    """
    groups: dict[str, dict[str, list[EnsembleFold]]] = {}
    for fold in folds:
        by_features = groups.setdefault(fold.recipe.separate, {})
        by_features.setdefault(fold.recipe.features, []).append(fold)
    with StoreFolder(options.store) as stores:
        for name, by_features in groups.items():
            with closing(open_separation(name, **options.separations.get(name, {}))) as separation:
                for features, feature_folds in by_features.items():
                    for fold in feature_folds:
                        _check_separation(fold, separation.describe())
                    build = partial(
                        build_features,
                        *(snippets, options.data),
                        name=STORE,
                        features=features,
                        separation=separation,
                        report=report,
                    )
                    yield stores.build(build), feature_folds


def _check_separation(fold: EnsembleFold, current: Mapping[str, Any]) -> None:
    """Raise HearbackError if a fold was trained on another separation."""
    if (trained := fold.metadata.get("separation")) != current:
        raise HearbackError(
            f"{fold.files.metadata}: trained on voices separated by {trained}, but inference uses "
            f"{current}; use the same separation, or train again"
        )


def write_classes(filenames: Sequence[str], probabilities: np.ndarray, submission: Path) -> None:
    """Write the most likely class of each snippet, and the class probabilities beside it."""
    predicted = probabilities.argmax(axis=1)
    write_table(pd.DataFrame({"filename": filenames, "label": predicted}), submission)
    table = pd.DataFrame(probabilities, columns=PROBABILITIES)
    table.insert(0, "filename", filenames)
    path = probabilities_path(submission)
    write_table(table, path)
    counts = np.bincount(predicted, minlength=N_CLASSES)
    found = ", ".join(f"{n} {name}" for n, name in zip(counts, CLASSES, strict=True))
    print(f"wrote {submission} and {path}: {found}")
