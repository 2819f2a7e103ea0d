"""The data of the benchmarks: clips of a corpus, of the embedded sample, or of noise."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.wav import write_wav
from hearback.engine.data.tables import write_table
from hearback.engine.errors import HearbackError
from hearback.engine.whisper.encoder import WINDOW_SECONDS
from hearback.reading.dataset import TrainingData, load_training_data
from hearback.reading.pairs import PairSource
from hearback.reading.render import render_missing
from hearback.reading.tables import GRADES, TASKS
from hearback.reading.text_normalizer import normalize_text

ROOT = Path(__file__).parent.parent
FOLDERS = ("data", "tts_data", "store")  # the flags of the clips' folders
SEED = 42

# Deciles, in seconds, of speechocean762's recordings (2,298 of its training half) and of their
# references (hibari at speed 0.7). Their lengths are correlated, so both are drawn with the same
# rank; the resulting pairs last 6.6 s on average, the real ones 6.4 s.
LEARNER_SECONDS = (1.59, 2.57, 2.85, 3.07, 3.27, 3.52, 3.81, 4.21, 4.81, 6.43, 20.41)
REFERENCE_SECONDS = (0.69, 1.64, 1.78, 1.91, 2.03, 2.18, 2.33, 2.50, 2.72, 3.06, 4.63)


@dataclass(frozen=True)
class Clips:
    """The clips of both sides: our training data, and the folders of their files."""

    data: TrainingData
    folder: Path  # of the recordings
    tts_data: Path  # of the references
    store: Path  # of the recordings at 16 kHz, for our side

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.data.source)

    @property
    def pair_seconds(self) -> np.ndarray:
        """The seconds of reference and learner together, (clips,), at most a window."""
        source = self.data.source
        n_samples = [source.n_samples(row, "joined") for row in range(len(source))]
        return np.minimum(np.array(n_samples) / SAMPLE_RATE, WINDOW_SECONDS)

    def describe(self) -> str:
        """Describe the number of clips and their mean length."""
        mean = self.pair_seconds.mean()
        return (
            f"{len(self)} clips of {self.folder}, pairs of {mean:.1f} s on average, "
            f"{mean / WINDOW_SECONDS:.0%} of the {WINDOW_SECONDS} s window"
        )


def load(folder: Path, tts_data: Path, store: Path, n_clips: int) -> Clips:
    """Return `n_clips` random clips of the training data in `folder`, with a fixed seed.

    Raises BadInputError for data with problems, HearbackError if there are fewer clips.
    """
    data = load_training_data(folder, tts_data, store, n_folds=2, group_by="none")
    if len(data.labels) < n_clips:
        raise HearbackError(f"{folder}: {len(data.labels)} clips; a benchmark needs {n_clips}")
    rows = np.random.default_rng(SEED).permutation(len(data.labels))[:n_clips]
    return Clips(select(data, rows), folder, tts_data, store)


def select(data: TrainingData, rows: Sequence[int] | np.ndarray) -> TrainingData:
    """Return the given rows of a training set, in order; none of them is held out."""
    metadata = data.metadata.iloc[list(rows)].reset_index(drop=True)
    labels = data.labels[list(rows)]
    return replace(
        data,
        metadata=metadata,
        source=PairSource(metadata, data.source.references, data.source.store, labels),
        labels=labels,
        folds=np.full(len(rows), -1),
    )


def make_sample(folder: Path) -> None:
    """Write the missing parts of the embedded sample, its references and its store in `folder`."""
    folder = folder.absolute()
    data = folder / "data"
    if not (data / "train_metadata.csv").exists():  # written last
        _run_step("-m", "hearback.reading.corpora.sample", str(data))
    folders = [part for name in FOLDERS for part in (f"--{name}", str(folder / name))]
    _run_step("preprocess.py", *folders, "--hard_negatives", "0")


def _run_step(*command: str) -> None:
    status = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
    if status:
        raise HearbackError(f"python {shlex.join(command)} ended with status {status}")


def make_noise(folder: Path, n_clips: int, seconds: float | None = None) -> None:
    """Write `n_clips` clips of noise with references, of the lengths of speechocean762.

    With `seconds`, recordings and references are all that long. For machines without a corpus and a
    voice: the speed does not depend on the content of a clip.
    """
    rng = np.random.default_rng(SEED)
    ranks = np.linspace(0, 1, len(LEARNER_SECONDS))
    rows, reference_seconds = [], {}
    for number, rank in enumerate(rng.random(n_clips)):
        text, name = normalize_text(f"text {number}").text, f"noise_{number:05d}.wav"
        reference_seconds[text] = seconds or float(np.interp(rank, ranks, REFERENCE_SECONDS))
        learner_seconds = seconds or float(np.interp(rank, ranks, LEARNER_SECONDS))
        write_wav(folder / "data" / name, _modulated_noise(learner_seconds, rng), SAMPLE_RATE)
        rows.append((name, TASKS[number % len(TASKS)], text, GRADES[number % len(GRADES)]))
    columns = ["filename", "task", "expected_text", "grade"]
    metadata = pd.DataFrame(rows, columns=columns)
    write_table(metadata, folder / "data" / "train_metadata.csv")
    labels = metadata[["filename"]].assign(score=[float(n % 2) for n in range(n_clips)])
    write_table(labels, folder / "data" / "train_labels.csv")
    render_missing(metadata["expected_text"], _NoiseVoice(reference_seconds), folder / "tts_data")


class _NoiseVoice:
    """A voice that renders noise of given lengths."""

    sample_rate = SAMPLE_RATE

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.rng = np.random.default_rng(SEED)

    def describe(self) -> dict[str, str | float | int]:
        return {"backend": "noise", "voice": "noise", "speed": 1.0, "sample_rate": SAMPLE_RATE}

    def render(self, text: str) -> np.ndarray:
        return _modulated_noise(self.seconds[text], self.rng)

    def close(self) -> None:
        pass


def _modulated_noise(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise modulated at 4 Hz, the rate of syllables; (n,) float32."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    loudness = 0.1 * (1 + np.sin(2 * np.pi * 4 * times)) / 2
    return (loudness * rng.standard_normal(len(times))).clip(-1, 1).astype(np.float32)
