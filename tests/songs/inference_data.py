"""Options to run and to pack the folds of the fixture `trained`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hearback.engine.audio.wav import write_wav
from hearback.engine.ensemble.config import ModelConfig
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.inference import InferenceOptions
from hearback.songs.separation.methods import SOUND_RATE
from hearback.songs.submission.pack import PackingOptions
from tests.songs.songs_data import snippet

SHARES = (0.2, 0.3, 0.4, 0.1)
MODELS = (ModelConfig("cnn4", (0, 1), 0.6), ModelConfig("cnn4_repet", (0,), 0.4))


def write_config(folder: Path, models: Sequence[ModelConfig]) -> Path:
    """Write an ensemble's configuration and return its path."""
    path = folder / "model_configs.json"
    SongEnsemble(tuple(models), "probabilities", SHARES, {}, {}, 40).save(path)
    return path


def write_unseen(folder: Path, trained: Path) -> InferenceOptions:
    """Write good and bad snippets into `folder`; return options to run two folds on them."""
    unseen = folder / "unseen"
    for number in (3, 11, 22, 33):
        write_wav(unseen / f"album/{number}.wav", snippet(number), SOUND_RATE)
    write_wav(unseen / "long.flac.wav", np.tile(snippet(12), 2), SOUND_RATE)
    (unseen / "broken.ogg").write_bytes(b"OggS and no more")
    write_wav(unseen / "silent.wav", np.zeros(72_000, np.float32), SOUND_RATE)
    return InferenceOptions(
        data=unseen,
        store=folder / "store",
        assets=trained / "assets",
        config=write_config(folder, [ModelConfig("cnn4", (0, 1), 1.0)]),
        submission=folder / "submission.csv",
        device="cpu",
        precision="float32",
        separations={},
    )


def packing_options(folder: Path, trained: Path) -> PackingOptions:
    """Return options to pack two folds of a model, and one of it on separated voices."""
    return PackingOptions(
        assets=trained / "assets",
        config=write_config(folder, (*MODELS, ModelConfig("whisper", (0,), 0.0))),
        submission=folder / "submission.zip",
    )
