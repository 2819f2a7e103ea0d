"""Separation of the voice from the music, with one class per method.

`repet` needs no weights; `demucs` needs its own environment and a folder of weights. Spleeter
(Hennequin et al. 2020), which both published systems used or planned to use, is not supported: its
last release (2.4.2, April 2025) requires TensorFlow 2.12.1 and Python below 3.12.
"""

import argparse
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import librosa
import numpy as np
import soxr
from numpy.typing import NDArray

from hearback.engine.errors import HearbackError
from hearback.engine.io import sha256_of
from hearback.engine.worker.host import (
    Worker,
    WorkerError,
    decode_waveform,
    encode_waveform,
    find_interpreter,
)

SEPARATIONS = ("none", "repet", "demucs")
SOUND_RATE = 24_000  # Hz, of the snippets and their stored audio

PYTHON = Path(".venv-demucs/bin/python")
MODEL_DIR = Path("assets/demucs")
WORKER = Path(__file__).with_name("demucs_worker.py")
CURE = "run `make demucs`, or pass that environment's python (--demucs_python)"
DOWNLOAD = "hf download adefossez/HTDemucs --local-dir"


class SeparationError(HearbackError):
    """A separation is unavailable or has failed."""


class Separation(Protocol):
    """A separation; results depend on the waveform only. `separate` is thread-safe."""

    def describe(self) -> dict[str, Any]:
        """Return backend, version and parameters; a store with other values is rebuilt."""
        ...

    def separate(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the voice in a waveform, both (n,) at SOUND_RATE."""
        ...

    def close(self) -> None:
        """Release all resources; the separation is unusable afterwards."""
        ...


def open_separation(name: str, **options: Any) -> Separation:  # noqa: ANN401
    """Open a separation by its name in `SEPARATIONS`; `options` are the arguments of its class.

    Raises HearbackError for an unknown name, SeparationError if its environment or weights are
    missing.
    """
    if name == "none":
        return NoSeparation(**options)
    if name == "repet":
        return Repet(**options)
    if name == "demucs":
        return Demucs(**options)
    raise HearbackError(f"unknown separation {name!r}: choose from {', '.join(SEPARATIONS)}")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the separations."""
    add = parser.add_argument
    add("--demucs_python", type=Path, default=PYTHON, help="python of Demucs' environment")
    add("--demucs_model", type=Path, default=MODEL_DIR, help="folder of Demucs' weights")
    add("--demucs_device", default="cpu", help="device of Demucs")


def options_from(arguments: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401  (a namespace)
    """Return the options of `open_separation` by name, from the flags of `add_options`."""
    return {
        "demucs": {
            "python": arguments.demucs_python,
            "model_dir": arguments.demucs_model,
            "device": arguments.demucs_device,
        }
    }


class NoSeparation:
    """No separation: the snippet unchanged."""

    def describe(self) -> dict[str, Any]:
        """Return the backend's name."""
        return {"backend": "none"}

    def separate(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the waveform itself."""
        return waveform

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Repet:
    """REPET-SIM (Rafii & Pardo 2012): repeating parts of the snippet are music.

    The music in a frame is estimated as the median of its most similar frames (Fitzgerald 2012), at
    most the frame itself. A soft mask keeps the remainder where it exceeds `margin` times the
    music, and nothing below `lowest_hz`, where nobody sings (as in Rafii & Pardo). This follows
    librosa's "Vocal separation" example, but with other parameters: the example is for whole songs,
    and its similar frames are at least 2 s apart, too far for snippets of 3 s. In a short snippet
    the most similar frames contain the same sustained note, voice included, so the median needs
    most of the other frames (measured in docs/results/songs.md).
    """

    version: ClassVar = 1  # increase when results change with the same parameters
    n_fft: int = 2048  # samples, 85 ms
    hop: int = 512  # samples, 21 ms
    seconds_apart: float = 0.6  # minimum distance of similar frames
    neighbours: int = 80  # number of similar frames in the median
    margin: float = 1.0
    power: float = 2.0  # of the soft mask; higher is closer to binary
    lowest_hz: float = 100.0

    def describe(self) -> dict[str, Any]:
        """Return the parameters."""
        return {"backend": "repet", "version": self.version, **asdict(self)}

    def separate(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the voice, (n,); waveforms shorter than a window (85 ms) are unchanged."""
        if len(waveform) < self.n_fft:
            return waveform
        spectrum = librosa.stft(waveform, n_fft=self.n_fft, hop_length=self.hop)
        magnitude = np.abs(spectrum)
        music = np.minimum(
            magnitude, np.median(magnitude[:, self._similar_frames(magnitude)], axis=-1)
        )
        mask = librosa.util.softmask(magnitude - music, self.margin * music, power=self.power)
        mask[: 1 + int(self.lowest_hz * self.n_fft / SOUND_RATE)] = 0
        return librosa.istft(mask * spectrum, hop_length=self.hop, length=len(waveform))

    def _similar_frames(self, magnitude: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the indices of the most similar frames by cosine, (frames, neighbours).

        librosa's `nn_filter` (0.10 and 0.11) is not used: it breaks ties in numpy's sorting order,
        so its result depends on numpy's version.
        """
        n_frames = magnitude.shape[1]
        # Reduce the distance in short snippets, so that every frame has a candidate.
        apart = min(round(self.seconds_apart * SOUND_RATE / self.hop), n_frames // 2)
        n_neighbours = min(self.neighbours, n_frames + 1 - 2 * apart)
        frames = magnitude.astype(np.float64)
        frames /= np.maximum(np.linalg.norm(frames, axis=0), np.finfo(np.float64).tiny)
        distances = -frames.T @ frames
        indices = np.arange(n_frames)
        distances[np.abs(indices[:, None] - indices) < apart] = np.inf
        return np.argsort(distances, axis=1, kind="stable")[:, :n_neighbours]

    def close(self) -> None:
        """Do nothing."""


class Demucs:
    """Hybrid Transformer Demucs (Rouard et al. 2023), in a worker process in its own environment.

    Demucs 4.1.0 (MIT) is its author's release and the first with safetensors weights. Alternatives
    in 2026: torchaudio's HDEMUCS pipelines are an older model in a package in maintenance mode, and
    demucs-infer loads pickles.

    `python` is the environment's interpreter (`make demucs`), `model_dir` a folder as on the hub
    (one NAME.yaml and the safetensors files that it lists), `device` a torch device. Nothing is
    downloaded. On a CPU the order of summation depends on the number of threads, so the last bits
    may differ with another OMP_NUM_THREADS.
    """

    def __init__(
        self,
        *,
        python: Path = PYTHON,
        model_dir: Path = MODEL_DIR,
        device: str = "cpu",
        start_seconds: float = 300,
        snippet_seconds: float = 300,
    ) -> None:
        model_dir = model_dir.absolute()
        try:
            python = find_interpreter("the separation demucs", python, CURE)
            self._weights = _weights(model_dir)
            self._worker = Worker(
                "Demucs",
                python,
                WORKER,
                ["--model_dir", str(model_dir), "--device", device],
                folder=model_dir,
                environment={**os.environ, "HF_HUB_OFFLINE": "1"},
                start_seconds=start_seconds,
                answer_seconds=snippet_seconds,
            )
        except WorkerError as error:
            raise SeparationError(str(error)) from error
        self._rate = int(self._worker.ready["sample_rate"])

    def describe(self) -> dict[str, Any]:
        """Return the model, its package's version and the SHA-256 of its files."""
        ready = self._worker.ready
        return {
            "backend": "demucs",
            "version": ready["package_version"],
            "model": ready["model"],
            "weights": self._weights,
        }

    def separate(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the voice, (n,); raise SeparationError if Demucs fails or has ended."""
        mix = soxr.resample(waveform, SOUND_RATE, self._rate)
        try:
            reply = self._worker.request({"audio": encode_waveform(mix)})
        except WorkerError as error:
            raise SeparationError(str(error)) from error
        if "error" in reply:
            raise SeparationError(f"Demucs failed: {reply['error']}")
        voice = soxr.resample(decode_waveform(reply["audio"]), self._rate, SOUND_RATE)
        return librosa.util.fix_length(voice, size=len(waveform))  # resampling rounds the length

    def close(self) -> None:
        """End the worker."""
        self._worker.close()


def _weights(model_dir: Path) -> dict[str, str]:
    """Return the SHA-256 of the model's files by name; SeparationError if they are missing."""
    recipes = sorted(model_dir.glob("*.yaml"))
    weights = sorted(model_dir.glob("*.safetensors"))
    if len(recipes) != 1 or not weights:
        raise SeparationError(
            f"{model_dir} has {len(recipes)} .yaml and {len(weights)} .safetensors files; the "
            "separation demucs needs one model: its .yaml and the .safetensors that it lists. "
            f"With a network connection: `{PYTHON.parent}/{DOWNLOAD} {MODEL_DIR}`, then copy the "
            "folder; or pass its path (--demucs_model)"
        )
    return {path.name: sha256_of(path) for path in [*recipes, *weights]}
