"""Separation of the voice from the music: a snippet in, its voice out, one backend a class.

`repet` needs no weights; `demucs` needs an environment and a folder of weights of its own. Spleeter
(Hennequin et al. 2020), which both published systems used or meant, is no backend: its last release
(2.4.2, April 2025) asks for TensorFlow 2.12.1 and a Python below 3.12, which is no runtime's today.
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
SOUND_RATE = 24_000  # Hz, of the snippets and of what is kept of them

PYTHON = Path(".venv-demucs/bin/python")
MODEL_DIR = Path("assets/demucs")
WORKER = Path(__file__).with_name("demucs_worker.py")
CURE = "run `make demucs`, or say where that environment's python is (--demucs_python)"
DOWNLOAD = "hf download adefossez/HTDemucs --local-dir"


class SeparationError(HearbackError):
    """A separation that cannot be used, or cannot separate; the message says what to do."""


class Separation(Protocol):
    """Separates voices. The same waveform gives the same voice, whatever was separated before.

    Several threads may call `separate` at once.
    """

    def describe(self) -> dict[str, Any]:
        """Return backend, version and parameters: sounds that differ in them don't mix."""
        ...

    def separate(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the voice in a waveform, both (n,) at SOUND_RATE."""
        ...

    def close(self) -> None:
        """Let go of what the separation holds; it separates no more."""
        ...


def open_separation(name: str, **options: Any) -> Separation:  # noqa: ANN401
    """Open a separation of `SEPARATIONS`; `options` are its class's own.

    Raises HearbackError for another name, SeparationError where something that it needs is missing.
    """
    if name == "none":
        return NoSeparation(**options)
    if name == "repet":
        return Repet(**options)
    if name == "demucs":
        return Demucs(**options)
    raise HearbackError(f"no separation {name!r}: there are {', '.join(SEPARATIONS)}")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the separations that have any."""
    add = parser.add_argument
    add("--demucs_python", type=Path, default=PYTHON, help="Demucs's own python")
    add("--demucs_model", type=Path, default=MODEL_DIR, help="Demucs's weights")
    add("--demucs_device", default="cpu", help="where Demucs runs")


def options_from(arguments: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401  (what has them)
    """Gather the options of `open_separation` that `add_options` declared, by the name."""
    return {
        "demucs": {
            "python": arguments.demucs_python,
            "model_dir": arguments.demucs_model,
            "device": arguments.demucs_device,
        }
    }


class NoSeparation:
    """The snippet as it is."""

    def describe(self) -> dict[str, Any]:
        """Return that nothing is done."""
        return {"backend": "none"}

    def separate(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the waveform itself."""
        return waveform

    def close(self) -> None:
        """Do nothing: nothing is held."""


@dataclass(frozen=True)
class Repet:
    """REPET-SIM (Rafii & Pardo 2012): what comes again elsewhere in the snippet is music.

    The music of a frame is the median of the frames most like it (Fitzgerald 2012), never more than
    the frame; a soft mask keeps of the rest what outweighs `margin` times the music, and nothing
    below `lowest_hz`, where nobody sings (Rafii & Pardo's own step). Else as librosa's "Vocal
    separation" example, but for the figures: that has songs of minutes, where frames alike are at
    least 2 s apart, and 3 s are too short for it. In so short a snippet the frames most alike are
    those with the same note held, voice and all, so that most of the others must have a say:
    docs/songs.md has what was measured.
    """

    version: ClassVar = 1  # goes up when the same parameters give another voice
    n_fft: int = 2048  # samples, 85 ms
    hop: int = 512  # samples, 21 ms
    seconds_apart: float = 0.6
    neighbours: int = 80  # whose median is the music
    margin: float = 1.0
    power: float = 2.0  # of the mask; the higher, the harder
    lowest_hz: float = 100.0

    def describe(self) -> dict[str, Any]:
        """Return the parameters."""
        return {"backend": "repet", "version": self.version, **asdict(self)}

    def separate(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the voice, (n,); a waveform shorter than one window (85 ms) as it is."""
        if len(waveform) < self.n_fft:
            return waveform
        spectrum = librosa.stft(waveform, n_fft=self.n_fft, hop_length=self.hop)
        full = np.abs(spectrum)
        music = np.minimum(full, np.median(full[:, self._alike(full)], axis=-1))
        mask = librosa.util.softmask(full - music, self.margin * music, power=self.power)
        mask[: 1 + int(self.lowest_hz * self.n_fft / SOUND_RATE)] = 0
        return librosa.istft(mask * spectrum, hop_length=self.hop, length=len(waveform))

    def _alike(self, full: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the frames most like each frame by their cosine, (frames, neighbours).

        librosa's own `nn_filter` takes any of the `neighbours` + twice `seconds_apart` nearest, as
        numpy's sort of equal values has it (0.10 and 0.11): another voice with another numpy.
        """
        n_frames = full.shape[1]
        # In a shorter snippet frames are as far apart as leaves each one to choose from.
        apart = min(round(self.seconds_apart * SOUND_RATE / self.hop), n_frames // 2)
        n_neighbours = min(self.neighbours, n_frames + 1 - 2 * apart)
        frames = full.astype(np.float64)
        frames /= np.maximum(np.linalg.norm(frames, axis=0), np.finfo(np.float64).tiny)
        distances = -frames.T @ frames
        places = np.arange(n_frames)
        distances[np.abs(places[:, None] - places) < apart] = np.inf
        return np.argsort(distances, axis=1, kind="stable")[:, :n_neighbours]

    def close(self) -> None:
        """Do nothing: nothing is held."""


class Demucs:
    """Hybrid Transformer Demucs (Rouard et al. 2023) in a worker process of its own environment.

    Of what is kept up in 2026, Demucs 4.1.0 (MIT) is its author's own release, the first whose
    weights are safetensors. torchaudio's HDEMUCS pipelines are an older model in a package that is
    only maintained; demucs-infer loads pickles.

    `python` is the environment's interpreter (`make demucs`), `model_dir` a folder as on the hub
    (one NAME.yaml and the safetensors files that it lists), `device` torch's. Nothing is
    downloaded. A CPU's sums depend on how many threads add them up: with another OMP_NUM_THREADS
    the voice may differ in its last bits.
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
        """Return the voice, (n,). Raises SeparationError when Demucs fails or has ended."""
        mix = soxr.resample(waveform, SOUND_RATE, self._rate)
        try:
            reply = self._worker.ask({"audio": encode_waveform(mix)})
        except WorkerError as error:
            raise SeparationError(str(error)) from error
        if "error" in reply:
            raise SeparationError(f"Demucs failed: {reply['error']}")
        voice = soxr.resample(decode_waveform(reply["audio"]), self._rate, SOUND_RATE)
        return librosa.util.fix_length(voice, size=len(waveform))  # rounding may cost a sample

    def close(self) -> None:
        """End the worker."""
        self._worker.close()


def _weights(model_dir: Path) -> dict[str, str]:
    """Return the SHA-256 of the model's files by name. Raises SeparationError where none are."""
    recipes = sorted(model_dir.glob("*.yaml"))
    weights = sorted(model_dir.glob("*.safetensors"))
    if len(recipes) != 1 or not weights:
        raise SeparationError(
            f"{model_dir} has {len(recipes)} .yaml and {len(weights)} .safetensors files, and the "
            "separation demucs needs one model: its .yaml and the .safetensors that it lists. "
            f"Where there is a network: `{PYTHON.parent}/{DOWNLOAD} {MODEL_DIR}`, then copy the "
            "folder; or say where it is (--demucs_model)"
        )
    return {path.name: sha256_of(path) for path in [*recipes, *weights]}
