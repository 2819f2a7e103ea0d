"""Melo: MeloTTS's EN_NEWEST, the competition's voice, run in its own environment.

MeloTTS (MIT, https://github.com/myshell-ai/MeloTTS) pins packages that conflict with those of
Hearback, so `melo_worker.py` runs on the Python of another environment (`make melo`), as a
`hearback.engine.worker.host.Worker`. docs/guide/melo.md lists the files that it needs.
"""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hearback.engine.worker.host import Worker, WorkerError, decode_waveform, find_interpreter
from hearback.reading.voices.base import RenderError, VoiceError, seed_of

PYTHON = Path(".venv-melo/bin/python")
MODEL_DIR = Path("assets/tts_model")
WORKER = Path(__file__).with_name("melo_worker.py")
CURE = "run `make melo`, or give the path of that environment's python (--melo_python)"
# The files in MODEL_DIR that an offline machine needs, under the names that MeloTTS, transformers
# and g2p_en request. The paths in one tuple are alternatives.
FILES = (
    ("config.json",),
    ("checkpoint.pth",),
    ("bert-base-uncased/config.json",),
    ("bert-base-uncased/tokenizer.json", "bert-base-uncased/vocab.txt"),
    ("bert-base-uncased/model.safetensors", "bert-base-uncased/pytorch_model.bin"),
    ("nltk_data/corpora/cmudict.zip",),
    ("nltk_data/taggers/averaged_perceptron_tagger.zip",),
    (
        "nltk_data/taggers/averaged_perceptron_tagger_eng.zip",
        "nltk_data/taggers/averaged_perceptron_tagger_eng",
    ),
)


def missing_files(model_dir: Path) -> list[str]:
    """Return the paths below `model_dir` that an offline machine lacks."""
    return [
        " or ".join(paths)
        for paths in FILES
        if not any((model_dir / path).exists() for path in paths)
    ]


class MeloVoice:
    """MeloTTS's speaker EN-Newest, in a worker process that lives as long as this object.

    `python` is the interpreter of MeloTTS's environment, `model_dir` the folder of its files,
    `device` a torch device. If all `FILES` are present, the worker runs offline; otherwise MeloTTS
    downloads the missing ones from the hub. The worker must start within `start_seconds` and answer
    each text within `text_seconds`.
    """

    def __init__(
        self,
        speed: float,
        *,
        python: Path = PYTHON,
        model_dir: Path = MODEL_DIR,
        device: str = "cpu",
        start_seconds: float = 900,
        text_seconds: float = 300,
    ) -> None:
        self._missing: list[str] = []  # filled in below
        with self._as_voice_errors():
            python = find_interpreter("the voice melo", python, CURE)
        model_dir = model_dir.absolute()
        self._opened: tuple[float, dict[str, Any]] = (
            speed,
            {
                "python": python,
                "model_dir": model_dir,
                "device": device,
                "start_seconds": start_seconds,
                "text_seconds": text_seconds,
            },
        )
        model_dir.mkdir(parents=True, exist_ok=True)
        self._missing = missing_files(model_dir)
        with self._as_voice_errors():
            self._worker = Worker(
                "MeloTTS",
                python,
                WORKER,
                ["--model_dir", str(model_dir), "--speed", str(speed), "--device", device],
                folder=model_dir,  # so that "bert-base-uncased" resolves to the folder there
                environment=self._environment(model_dir),
                start_seconds=start_seconds,
                answer_seconds=text_seconds,
            )
        ready = self._worker.ready
        self.sample_rate = int(ready["sample_rate"])
        self._described: dict[str, str | float | int] = {
            "backend": "melo",
            "voice": ready["voice"],
            "speed": speed,
            "sample_rate": self.sample_rate,
            "package_version": ready["package_version"],
            "weights": ready["weights"],
        }

    def describe(self) -> dict[str, str | float | int]:
        """Return the voice's identity and settings."""
        return dict(self._described)

    def render(self, text: str) -> NDArray[np.float32]:
        """Return the spoken text, shape (n,), 44.1 kHz with MeloTTS's own weights.

        Raises RenderError if MeloTTS fails on it, VoiceError if the worker has ended.
        """
        with self._as_voice_errors():
            reply = self._worker.request({"text": text, "seed": seed_of(text)})
        if "error" in reply:
            raise RenderError(f"MeloTTS failed: {reply['error']}")
        return decode_waveform(reply["audio"])

    def __reduce__(self) -> tuple[Callable[..., "MeloVoice"], tuple[float]]:
        """Pickle the settings only; another process starts its own worker."""
        speed, settings = self._opened
        return functools.partial(type(self), **settings), (speed,)

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    def _environment(self, model_dir: Path) -> dict[str, str]:
        # One thread: with more, the order of summation varies, and so does the waveform. Several
        # workers run in parallel instead.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if not self._missing:
            environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        if (model_dir / "nltk_data").is_dir():
            environment["NLTK_DATA"] = str(model_dir / "nltk_data")
        return environment

    @contextmanager
    def _as_voice_errors(self) -> Iterator[None]:
        """Convert the worker's errors to VoiceErrors that list missing files."""
        try:
            yield
        except WorkerError as error:
            lines = [str(error)]
            if self._missing:
                lines.append(
                    "missing, so they were requested from the hub (see docs/guide/melo.md):"
                )
                lines += [f"  {MODEL_DIR.name}/{name}" for name in self._missing]
            raise VoiceError("\n".join(lines)) from error
