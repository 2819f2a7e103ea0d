"""Score song models on changed sounds: without words, or over other music.

    python -m benchmarks.other_songs --data DATA --models whisper cnn4

Folds hold out singers, but the same words and music may occur in both training and validation, so a
model may have learned those instead of voices. Each fold scores its held-out rows in four versions:

- unchanged: the figures of `check_models`
- backwards: reversed in time, without intelligible words
- in pieces: a quarter of a second each, shuffled: no words either, but all sounds forwards
- over other music: held-out snippets of voices alone, mixed with music that no training row of the
  fold contains, and that music alone

The folds' scores are pooled, so that every row is scored by the fold that held it out. Over other
music the class shares differ, so the table also has the mean over classes (balanced accuracy). The
weights of an ensemble, `--config`, were fitted on the unchanged rows, which makes its scores
optimistic.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hearback.engine import cli
from hearback.engine.audio.store import Store
from hearback.engine.data.problems import Report
from hearback.engine.data.tables import read_table
from hearback.engine.devices import choose_device, compute_dtype
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import check_models, oof
from hearback.engine.machine import TRAINING_PRECISIONS
from hearback.engine.training.fold_files import FoldFiles
from hearback.songs import SUBFOLDER
from hearback.songs.augment import mix, shuffle
from hearback.songs.dataset import TRAIN, SongData, load_song_data
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.evaluation import ClassOutOfFold, confusion, recall_by_class, scores
from hearback.songs.features import FEATURES
from hearback.songs.inference import EnsembleFold, load_model, predict
from hearback.songs.separation.methods import SOUND_RATE, open_separation
from hearback.songs.store import build_sounds
from hearback.songs.tables import CLASSES, NO_VOICE

N_PIECES = 12  # of a snippet of 3 s
N_MIXES = 4  # of each voice, each with other music
VOICE_DB = (-2.0, 12.0)  # of the voice relative to the music


@dataclass(frozen=True)
class Version:
    """A version of the snippets: sounds, (n, 72000) at 24 kHz, classes and singers, (n,) each."""

    sounds: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class FoldPredictions:
    """The probabilities of one fold's models for a version, (n, classes), by model name."""

    version: Version
    by_model: Mapping[str, np.ndarray]


def main() -> None:
    """Score the versions, and print the table."""
    parser = cli.parser(__doc__)
    check_models.add_folder_flags(parser, SUBFOLDER)
    cli.add_folders(parser, {"store": "folder of the stored sounds"}, SUBFOLDER)
    add = parser.add_argument
    add("--config", type=Path, help="also score this ensemble, written by get_config")
    add("--device", help="cpu, cuda, … (default: a GPU if available)")
    add("--precision", choices=TRAINING_PRECISIONS, default="auto", help="of the matrix products")
    add("--seed", type=int, default=0, help="random seed of the mixtures")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    dtype = compute_dtype(device, arguments.precision)
    tables = oof.read_tables(ClassOutOfFold, arguments.assets, arguments.models)
    fold_metadata = next(iter(tables[0].metadata_by_fold.values()))
    data = load_song_data(
        arguments.data,
        arguments.store,
        n_folds=fold_metadata["n_folds"],
        group_by=fold_metadata["group_by"],
        limit=fold_metadata["limit"],
    )
    if data.fingerprint != fold_metadata["data_fingerprint"]:
        raise HearbackError(
            f"{arguments.data}: table, singers or recordings differ from those that the folds were "
            "trained on; train them again with python -m hearback.songs train"
        )
    sounds, music = read_sounds(data), read_music(data)
    config = None if arguments.config is None else SongEnsemble.load(arguments.config)
    by_version: dict[str, list[FoldPredictions]] = {}
    for fold in sorted({fold for table in tables for fold in table.metadata_by_fold}):
        rng = np.random.default_rng((arguments.seed, fold))
        members = {
            table.model: EnsembleFold(0, FoldFiles(arguments.assets, table.model, fold), metadata)
            for table in tables
            if (metadata := table.metadata_by_fold.get(fold)) is not None
        }
        for name, version in make_versions(data, fold, sounds, music, rng).items():
            by_model = {
                model: predict_version(member, version, device=device, dtype=dtype)
                for model, member in members.items()
            }
            if config is not None:
                by_model["the ensemble"] = predict_with_ensemble(config, by_model)
            by_version.setdefault(name, []).append(FoldPredictions(version, by_model))
    print(cli.as_text(make_table(by_version)))


def predict_with_ensemble(config: SongEnsemble, by_model: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the ensemble's probabilities, (n, classes); HearbackError if a model is missing."""
    if missing := [m.name for m in config.models_to_run if m.name not in by_model]:
        raise HearbackError(
            f"the ensemble also contains {', '.join(missing)}: give all of its models, or none, "
            "with --models, and train their folds"
        )
    return config.predict(np.stack([by_model[model.name] for model in config.models_to_run]))


def make_table(by_version: Mapping[str, list[FoldPredictions]]) -> pd.DataFrame:
    """Return the scores pooled over folds, a row per model and version."""
    lines = {}
    models = dict.fromkeys(
        model for folds in by_version.values() for fold in folds for model in fold.by_model
    )
    for model in models:
        for name, folds in by_version.items():
            predicted = [
                (fold.version, fold.by_model[model]) for fold in folds if model in fold.by_model
            ]
            lines[model, name] = score(predicted)
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(["model", "version"])


def read_sounds(data: SongData) -> Store:
    """Open the sounds of all snippets, without separation."""
    report = Report()
    with closing(open_separation("none")) as nothing:
        sounds = build_sounds(
            data.stored, data.data, data.store, TRAIN, separation=nothing, report=report
        )
    report.raise_if_errors()
    return sounds


def read_music(data: SongData) -> np.ndarray:
    """Return the music of each snippet, (rows,), "" for none, from manifest.csv."""
    report = Report()
    frame = read_table(data.data / "manifest.csv", ("file", "music"), report).frame
    report.raise_if_errors()
    music = dict(zip(frame["file"], frame["music"], strict=True))
    return np.array([music[Path(filename).name] for filename in data.filenames])


def make_versions(
    data: SongData, fold: int, sounds: Store, music: np.ndarray, rng: np.random.Generator
) -> dict[str, Version]:
    """Return the versions of a fold's held-out rows, by name; `music` is from `read_music`."""
    rows = data.validation_rows(fold)
    groups = data.snippets["group"].to_numpy(dtype=str)
    unchanged = Version(
        np.stack([sounds.get(data.filenames[row]) for row in rows]), data.labels[rows], groups[rows]
    )
    backwards = replace(unchanged, sounds=np.ascontiguousarray(unchanged.sounds[:, ::-1]))
    in_pieces = replace(
        unchanged,
        sounds=np.stack([shuffle(s, N_PIECES, SOUND_RATE, rng) for s in unchanged.sounds]),
    )
    known = set(music[data.training_rows(fold)])
    of_fold = dict(zip(rows.tolist(), unchanged.sounds, strict=True))
    alone = [row for row in of_fold if data.labels[row] != NO_VOICE and not music[row]]
    others = [row for row in of_fold if data.labels[row] == NO_VOICE and music[row] not in known]
    if not alone or not others:
        raise HearbackError(
            f"{data.data}: fold {fold} holds out {len(alone)} snippets of voices without music and "
            f"{len(others)} of music that its training rows lack; both are needed"
        )
    mixtures = list(_mixtures(of_fold, alone, others, rng))
    first = [row for row, _ in mixtures] + others
    over_other_music = Version(
        np.stack([mixture for _, mixture in mixtures] + [of_fold[row] for row in others]),
        data.labels[first],
        groups[first],
    )
    return {
        "unchanged": unchanged,
        "backwards": backwards,
        "in pieces": in_pieces,
        "over other music": over_other_music,
    }


def _mixtures(
    of_rows: Mapping[int, np.ndarray], voices: list[int], music: list[int], rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each voice's row and its mixture with music, up to N_MIXES times."""
    for voice in voices:
        for row in rng.choice(music, size=min(N_MIXES, len(music)), replace=False):
            yield voice, mix(of_rows[voice], of_rows[int(row)], -float(rng.uniform(*VOICE_DB)))


@dataclass(frozen=True)
class _ArrayStore:
    """Features in memory with the interface of a store, under the names "0", "1", …"""

    arrays: np.ndarray

    def get(self, filename: str) -> np.ndarray:
        return self.arrays[int(filename)]


def predict_version(
    member: EnsembleFold, version: Version, *, device: torch.device, dtype: torch.dtype
) -> np.ndarray:
    """Return a fold's probabilities, (n, classes)."""
    recipe = member.recipe
    compute = FEATURES[recipe.features].compute
    with closing(open_separation(recipe.separate)) as separation:
        features = np.stack([compute(separation.separate(sound)) for sound in version.sounds])
    names = [str(index) for index in range(len(features))]
    return predict(load_model(member), _ArrayStore(features), names, device=device, dtype=dtype)


def score(predicted: list[tuple[Version, np.ndarray]]) -> dict[str, object]:
    """Return the pooled scores of the folds' versions and probabilities."""
    labels = np.concatenate([version.labels for version, _ in predicted])
    groups = np.concatenate([version.groups for version, _ in predicted])
    probabilities = np.concatenate([of_fold for _, of_fold in predicted])
    recalls = recall_by_class(confusion(labels, probabilities))
    scored = scores(labels, probabilities, groups)
    return {
        "rows": len(labels),
        "balanced accuracy": np.nanmean(recalls),
        "accuracy": str(scored["accuracy"]),
        "log loss": str(scored["log loss"]),
        **dict(zip(CLASSES, recalls, strict=True)),
    }


if __name__ == "__main__":
    cli.run(main)
