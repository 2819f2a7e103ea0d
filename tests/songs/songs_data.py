"""Snippets with tones as voices and noise as music, and options of a training on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hearback.engine import cli
from hearback.engine.audio.wav import write_wav
from hearback.songs.features import N_SAMPLES
from hearback.songs.options import SongOptions
from hearback.songs.separation.methods import SOUND_RATE

MEN, WOMEN = ("m0", "m1", "m2", "m3"), ("f0", "f1", "f2", "f3")
DUETS = [(*pair[::step],) for pair in zip(MEN, WOMEN, strict=True) for step in (1, -1)]
# The singers of each snippet: 8 without a voice, 12 of a man, 12 of a woman, 8 of both.
SINGERS: list[tuple[str, ...]] = [
    *[()] * 8,
    *[(man,) for man in MEN] * 3,
    *[(woman,) for woman in WOMEN] * 3,
    *DUETS,
]
N_SNIPPETS = len(SINGERS)


def label_of(singers: tuple[str, ...]) -> int:
    """Return 0 no voice, 1 male, 2 female, 3 several."""
    return 3 if len(singers) > 1 else ("", "m", "f").index("".join(singers)[:1])


def snippet(number: int) -> np.ndarray:
    """Return a snippet, (72000,) float32 at 24 kHz: noise, and a tone for each singer."""
    rng = np.random.default_rng(number)
    sound = rng.normal(0, 0.02, N_SAMPLES)
    for singer in SINGERS[number]:
        pitch_hz = (180 if singer in MEN else 400) + 15 * int(singer[1])
        sound += 0.1 * np.sin(2 * np.pi * pitch_hz * np.arange(N_SAMPLES) / SOUND_RATE)
    return sound.astype(np.float32)


def write_songs(
    data: Path, *, manifest: bool = True, numbers: Sequence[int] = range(N_SNIPPETS)
) -> Path:
    """Write a data folder of the snippets `numbers`, and return it."""
    for number in numbers:
        write_wav(data / "train" / f"{number:02}.wav", snippet(number), SOUND_RATE)
    names = [f"{number:02}.wav" for number in numbers]
    singers = [SINGERS[number] for number in numbers]
    labels = "".join(f"{name},{label_of(who)}\n" for name, who in zip(names, singers, strict=True))
    (data / "train_label.txt").write_text(labels)
    if manifest:
        table = pd.DataFrame({"file": names, "singers": [";".join(who) for who in singers]})
        table["music"] = [f"tune{number % 4}" for number in numbers]
        table.to_csv(data / "manifest.csv", index=False)
    return data


def training_flags(songs: Path, folder: Path) -> list[str]:
    """Return the flags of a training on the `data` and the `store` of `songs`."""
    places = {
        "data": songs / "data",
        "store": songs / "store",
        "assets": folder / "assets",
        "runs": folder / "runs",
    }
    flags = [part for name, path in places.items() for part in (f"--{name}", str(path))]
    # float32 on a CPU gives the same results on every machine.
    return [*flags, "--n_folds", "3", "--device", "cpu", "--precision", "float32"]


def read_options(*flags: Any) -> SongOptions:
    """Parse flags as the command line does."""
    parser = cli.parser(None)
    SongOptions.declare(parser)
    return SongOptions.gather(parser.parse_args(list(map(str, flags))))


class Halved:
    """A separation that scales the amplitude by `factor`, and counts the snippets."""

    def __init__(self, version: int = 1, factor: float = 0.5, backend: str = "halved") -> None:
        self.version, self.factor, self.backend = version, factor, backend
        self.n_snippets = 0

    def describe(self) -> dict[str, Any]:
        return {"backend": self.backend, "version": self.version}

    def separate(self, waveform: np.ndarray) -> np.ndarray:
        assert waveform.shape == (N_SAMPLES,)
        self.n_snippets += 1
        return (self.factor * waveform).astype(np.float32)

    def close(self) -> None:
        pass
