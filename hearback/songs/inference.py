"""From model_configs.json to classes, needing only what a competition runtime has."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from hearback.engine.data.problems import Report
from hearback.engine.data.tables import write_problems, write_table
from hearback.engine.devices import choose_device, compute_dtype, mixed_precision
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import (
    FoldFiles,
    FoldMetadata,
    TrainedFold,
    build_and_load,
    check_version,
    read_fold_metadata,
)
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.evaluation import PROBABILITIES, ClassOutOfFold
from hearback.songs.models.classifiers import SongModel, build
from hearback.songs.recipe import SongRecipe
from hearback.songs.separation.methods import open_separation
from hearback.songs.store import FeatureStore, build_features
from hearback.songs.tables import CLASSES, N_CLASSES, list_snippets

BATCH_SIZE = 32
STORE = "infer"  # the stores' name: they hold the folder that was scored last


@dataclass(frozen=True)
class InferenceOptions:
    """What `hearback.songs.steps.infer`'s command line says; `separations` are options of each, by its name."""

    data: Path
    store: Path
    assets: Path
    config: Path
    submission: Path
    device: str | None
    precision: str
    separations: Mapping[str, Mapping[str, Any]]


class Member(TrainedFold):
    """A fold of one of the ensemble's models."""

    @property
    def recipe(self) -> SongRecipe:
        """Its recipe."""
        return SongRecipe.from_dict(self.metadata["recipe"])


class Features(Protocol):
    """What has the features of snippets: a store, for one."""

    def get(self, filename: str) -> np.ndarray:
        """Return the features of a snippet, float32, of their kind's shape."""


@torch.inference_mode()
def predict(
    model: SongModel,
    store: Features,
    filenames: Sequence[str],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> np.ndarray:
    """Return the classes' probabilities, (snippets, classes) float64.

    The model is moved to the device and to evaluation mode.
    """
    model.to(device).eval()
    probabilities = np.empty((len(filenames), N_CLASSES))
    for at in range(0, len(filenames), BATCH_SIZE):
        names = filenames[at : at + BATCH_SIZE]
        features = torch.from_numpy(np.stack([store.get(name) for name in names])).to(device)
        with mixed_precision(device, dtype):
            logits = model(features)
        probabilities[at : at + len(names)] = logits.double().softmax(dim=1).cpu().numpy()
    return probabilities


def read_members(config: SongEnsemble, assets: Path) -> list[Member]:
    """Return all folds that the ensemble runs; HearbackError for what cannot be run."""
    members = []
    for number, model in enumerate(config.models_to_run):
        for fold in model.folds:
            files = FoldFiles(assets, model.name, fold)
            members.append(Member(number, files, read_runnable_metadata(files)))
    return members


def read_runnable_metadata(files: FoldFiles) -> FoldMetadata:
    """Read the metadata of a fold that is to be run; HearbackError where it cannot be."""
    if not files.metadata.exists():
        raise HearbackError(
            f"{files.metadata}: not there; train it with {ClassOutOfFold.TRAIN}, or choose other "
            "models with python -m hearback.songs.steps.get_config"
        )
    fold_metadata = read_fold_metadata(files)
    check_version(files, fold_metadata)
    return fold_metadata


def load_model(member: Member) -> SongModel:
    """Load a finished fold's model on the CPU, in float32 and in evaluation mode."""
    return build_and_load(
        member.files, member.metadata, lambda: build(member.recipe, member.metadata["shape"])
    )


def write_submission(options: InferenceOptions) -> None:
    """Classify the snippets of a folder, and write a row for each of them.

    Beside the submission (filename, label) are written the classes' probabilities, and the problems
    of the snippets, if there are any: one that cannot be heard gets the shares of the training
    snippets' classes. What concerns all is a HearbackError: no snippets, no configuration, no
    weights, another separation.
    """
    config = SongEnsemble.load(options.config)
    members = read_members(config, options.assets)
    device = choose_device(options.device)
    dtype = compute_dtype(device, options.precision)
    report = Report()
    snippets = list_snippets(options.data)
    filenames = snippets["filename"].tolist()

    predictions = np.zeros((len(config.models_to_run), len(filenames), N_CLASSES))
    heard = np.zeros(len(filenames), bool)
    with tqdm(total=len(members), desc="inference", unit="fold") as progress:
        for store, of_store in features_of(members, snippets, options, report):
            heard = np.array([filename in store for filename in filenames])
            names = [filename for filename in filenames if filename in store]
            for member in of_store:
                n_folds = len(config.models_to_run[member.model].folds)
                of_fold = predict(load_model(member), store, names, device=device, dtype=dtype)
                predictions[member.model, heard] += of_fold / n_folds
                progress.update()
    probabilities = np.tile(np.array(config.class_shares), (len(filenames), 1))
    if heard.any():
        probabilities[heard] = config.predict(predictions[:, heard])
    write_classes(filenames, probabilities, options.submission)
    print(f"{len(filenames)} snippets, {np.count_nonzero(~heard)} of them at the class shares")
    write_problems(report, options.submission)


def features_of(
    members: Sequence[Member], snippets: pd.DataFrame, options: InferenceOptions, report: Report
) -> Iterator[tuple[FeatureStore, list[Member]]]:
    """Give the features that members take in, each with those members.

    Raises HearbackError where voices are separated in another way here than in training.
    """
    groups: dict[str, dict[str, list[Member]]] = {}
    for member in members:
        of_separation = groups.setdefault(member.recipe.separate, {})
        of_separation.setdefault(member.recipe.features, []).append(member)
    for name, by_features in groups.items():
        with closing(open_separation(name, **options.separations.get(name, {}))) as separation:
            here = separation.describe()
            for features, of_features in by_features.items():
                for member in of_features:
                    if (trained := member.metadata.get("separation")) != here:
                        raise HearbackError(
                            f"{member.files.metadata}: trained on voices separated by {trained}, and "
                            f"here they are by {here}; separate likewise, or train again"
                        )
                store = build_features(
                    snippets,
                    options.data,
                    options.store,
                    STORE,
                    features,
                    separation=separation,
                    report=report,
                )
                yield store, of_features


def write_classes(filenames: Sequence[str], probabilities: np.ndarray, submission: Path) -> None:
    """Write each snippet's likeliest class, and the probabilities of all beside it."""
    likeliest = probabilities.argmax(axis=1)
    write_table(pd.DataFrame({"filename": filenames, "label": likeliest}), submission)
    table = pd.DataFrame(probabilities, columns=PROBABILITIES)
    table.insert(0, "filename", filenames)
    probabilities_path = beside(submission)
    write_table(table, probabilities_path)
    counts = np.bincount(likeliest, minlength=N_CLASSES)
    found = ", ".join(f"{n} {name}" for n, name in zip(counts, CLASSES, strict=True))
    print(f"wrote {submission} and {probabilities_path}: {found}")


def beside(submission: Path) -> Path:
    """Return where the probabilities of a submission lie."""
    return submission.with_name(f"{submission.stem}_probabilities.csv")
