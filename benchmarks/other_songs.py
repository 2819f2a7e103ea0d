"""How models of the songs hear singers that they do not know when more than the singer is new.

    python -m benchmarks.other_songs --data DATA --models whisper cnn4

Folds hold out singers. The words that are sung and the music that is under them may stand on both
sides, so a model may have learned those instead of voices. Each fold hears again what it held out:

- as it is: the figures of `check_models`
- backwards: no words are left, and the voices and the music stay
- in pieces: a quarter of a second each, in another order: no words again, and all sounds forwards
- over other music: held-out snippets of voices alone, laid over music that no training row of the
  fold has, and that music itself

A model's folds are put together, so that every row is judged by the one that held it out. Over
other music the classes have other shares, so there is the mean over the classes, too (balanced
accuracy). The weights of an ensemble, `--config`, were fitted on the rows as they are, so that
hearing flatters it.
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
from hearback.engine.devices import TRAINING_PRECISIONS, choose_device, compute_dtype
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import oof, outliers
from hearback.engine.training.fold_files import FoldFiles
from hearback.songs import SUBFOLDER
from hearback.songs.augment import NO_VOICE, mix, shuffle
from hearback.songs.dataset import TRAIN, SongData, load_song_data
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.evaluation import ClassOutOfFold, confusion, found_by_class, scores
from hearback.songs.features import FEATURES
from hearback.songs.inference import Member, load_model, predict
from hearback.songs.separation.methods import SOUND_RATE, open_separation
from hearback.songs.store import build_sounds
from hearback.songs.tables import CLASSES

N_PIECES = 12  # of a snippet of 3 s
N_MIXES = 4  # of each voice, with as many pieces of music
VOICE_DB = (-2.0, 12.0)  # of a voice against its music


@dataclass(frozen=True)
class Hearing:
    """Sounds for a model to hear, (n, 72000) at 24 kHz, their classes and who sings, (n,) each."""

    sounds: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class TokenEvidence:
    """What models of one fold made of a hearing: their probabilities, (n, classes), by name."""

    hearing: Hearing
    by_model: Mapping[str, np.ndarray]


def main() -> None:
    """Hear what the command line asks for, and print the table."""
    parser = cli.parser(__doc__)
    outliers.declare_trained(parser, SUBFOLDER)
    add = parser.add_argument
    add("--store", type=Path, default=Path("store", SUBFOLDER), help="sounds and features")
    add(
        "--config",
        type=Path,
        help="also of this ensemble, written by hearback.songs.steps.get_config",
    )
    add("--device", help="cpu, cuda, … (default: a GPU where there is one)")
    add("--precision", choices=TRAINING_PRECISIONS, default="auto", help="of the matrix products")
    add("--seed", type=int, default=0, help="of the mixtures")
    asked = parser.parse_args()
    device = choose_device(asked.device)
    dtype = compute_dtype(device, asked.precision)
    tables = oof.read_tables(ClassOutOfFold, asked.assets, asked.models)
    fold_metadata = next(iter(tables[0].metadata_by_fold.values()))
    data = load_song_data(
        asked.data,
        asked.store,
        n_folds=fold_metadata["n_folds"],
        group_by=fold_metadata["group_by"],
        limit=fold_metadata["limit"],
    )
    if data.fingerprint != fold_metadata["data_fingerprint"]:
        raise HearbackError(
            f"{asked.data}: table, singers or recordings are not those that the folds were trained "
            "on; train them again with python -m hearback.songs.steps.train"
        )
    sounds, music = read_sounds(data), read_music(data)
    config = None if asked.config is None else SongEnsemble.load(asked.config)
    parts: dict[str, list[TokenEvidence]] = {}
    for fold in sorted({fold for table in tables for fold in table.metadata_by_fold}):
        rng = np.random.default_rng((asked.seed, fold))
        for name, hearing in hearings(data, fold, sounds, music, rng).items():
            by_model = {
                table.model: hear(
                    Member(
                        0, FoldFiles(asked.assets, table.model, fold), table.metadata_by_fold[fold]
                    ),
                    hearing,
                    device=device,
                    dtype=dtype,
                )
                for table in tables
                if fold in table.metadata_by_fold
            }
            if config is not None:
                by_model["the ensemble"] = together(config, by_model)
            parts.setdefault(name, []).append(TokenEvidence(hearing, by_model))
    print(cli.as_text(table_of(parts)))


def together(config: SongEnsemble, by_model: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return an ensemble's probabilities, (n, classes), of its models'; HearbackError for gaps."""
    if missing := [m.name for m in config.models_to_run if m.name not in by_model]:
        raise HearbackError(
            f"the ensemble has {', '.join(missing)} too: name all of its models, or none, with "
            "--models, and train their folds"
        )
    return config.predict(np.stack([by_model[model.name] for model in config.models_to_run]))


def table_of(parts: Mapping[str, list[TokenEvidence]]) -> pd.DataFrame:
    """Return the scores, a row per model and hearing, of what the folds heard."""
    lines = {}
    models = dict.fromkeys(
        model for of_folds in parts.values() for h in of_folds for model in h.by_model
    )
    for model in models:
        for name, of_folds in parts.items():
            heard = [(h.hearing, h.by_model[model]) for h in of_folds if model in h.by_model]
            lines[model, name] = score(heard)
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(["model", "heard"])


def read_sounds(data: SongData) -> Store:
    """Open the sounds of all snippets, their voices not separated."""
    report = Report()
    with closing(open_separation("none")) as nothing:
        sounds = build_sounds(
            data.stored, data.data, data.store, TRAIN, separation=nothing, report=report
        )
    report.raise_if_errors()
    return sounds


def read_music(data: SongData) -> np.ndarray:
    """Return what music each snippet has, (rows,), "" for none; it has to have a manifest."""
    report = Report()
    frame = read_table(data.data / "manifest.csv", ("file", "music"), report).frame
    report.raise_if_errors()
    music = dict(zip(frame["file"], frame["music"], strict=True))
    return np.array([music[Path(filename).name] for filename in data.filenames])


def hearings(
    data: SongData, fold: int, sounds: Store, music: np.ndarray, rng: np.random.Generator
) -> dict[str, Hearing]:
    """Return what a fold's model is given to hear, by name; `music` is `read_music`'s."""
    rows = data.validation_rows(fold)
    groups = data.snippets["group"].to_numpy(dtype=str)
    as_it_is = Hearing(
        np.stack([sounds.get(data.filenames[row]) for row in rows]), data.labels[rows], groups[rows]
    )
    backwards = replace(as_it_is, sounds=np.ascontiguousarray(as_it_is.sounds[:, ::-1]))
    in_pieces = replace(
        as_it_is,
        sounds=np.stack([shuffle(s, N_PIECES, SOUND_RATE, rng) for s in as_it_is.sounds]),
    )
    known = set(music[data.training_rows(fold)])
    of_fold = dict(zip(rows.tolist(), as_it_is.sounds, strict=True))
    alone = [row for row in of_fold if data.labels[row] != NO_VOICE and not music[row]]
    others = [row for row in of_fold if data.labels[row] == NO_VOICE and music[row] not in known]
    if not alone or not others:
        raise HearbackError(
            f"{data.data}: fold {fold} holds out {len(alone)} snippets of voices without music and "
            f"{len(others)} of music that its training does not have; some of both are needed"
        )
    made = list(_mixtures(of_fold, alone, others, rng))
    first = [row for row, _ in made] + others
    over_others = Hearing(
        np.stack([mixture for _, mixture in made] + [of_fold[row] for row in others]),
        data.labels[first],
        groups[first],
    )
    return {
        "as it is": as_it_is,
        "backwards": backwards,
        "in pieces": in_pieces,
        "over other music": over_others,
    }


def _mixtures(
    of_rows: Mapping[int, np.ndarray], voices: list[int], music: list[int], rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray]]:
    """Give each voice's row and its sound over music, some times."""
    for voice in voices:
        for row in rng.choice(music, size=min(N_MIXES, len(music)), replace=False):
            yield voice, mix(of_rows[voice], of_rows[int(row)], -float(rng.uniform(*VOICE_DB)))


@dataclass(frozen=True)
class _Made:
    """Features that lie in no store, under the names "0", "1", …"""

    arrays: np.ndarray

    def get(self, filename: str) -> np.ndarray:
        return self.arrays[int(filename)]


def hear(
    member: Member, hearing: Hearing, *, device: torch.device, dtype: torch.dtype
) -> np.ndarray:
    """Return a fold's probabilities, (n, classes)."""
    recipe = member.recipe
    compute = FEATURES[recipe.features].compute
    with closing(open_separation(recipe.separate)) as separation:
        features = np.stack([compute(separation.separate(sound)) for sound in hearing.sounds])
    names = [str(place) for place in range(len(features))]
    return predict(load_model(member), _Made(features), names, device=device, dtype=dtype)


def score(of_folds: list[tuple[Hearing, np.ndarray]]) -> dict[str, object]:
    """Return the scores of what the folds heard, each with its probabilities, together."""
    labels = np.concatenate([hearing.labels for hearing, _ in of_folds])
    groups = np.concatenate([hearing.groups for hearing, _ in of_folds])
    probabilities = np.concatenate([heard for _, heard in of_folds])
    found = found_by_class(confusion(labels, probabilities))
    scored = scores(labels, probabilities, groups)
    return {
        "rows": len(labels),
        "balanced accuracy": np.nanmean(found),
        "accuracy": str(scored["accuracy"]),
        "log loss": str(scored["log loss"]),
        **dict(zip(CLASSES, found, strict=True)),
    }


if __name__ == "__main__":
    cli.run(main)
