"""Melo: MeloTTS's EN_NEWEST, the competition's voice, run in an environment of its own.

MeloTTS (MIT, https://github.com/myshell-ai/MeloTTS) pins packages that conflict with ours. So
`melo_worker.py` runs on the Python of that environment (`make melo`), as a `hearback.engine.worker.host`.
docs/melo.md lists the files that it needs and where they go.
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
CURE = "run `make melo`, or say where that environment's python is (--melo_python)"
# Below MODEL_DIR, and nothing else, is what an offline machine needs; each line's paths stand in
# for one another. The names are those that MeloTTS, transformers and g2p_en ask for.
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
    """Return the paths below `model_dir` that an offline machine still needs."""
    return [
        " or ".join(paths)
        for paths in FILES
        if not any((model_dir / path).exists() for path in paths)
    ]


class MeloVoice:
    """MeloTTS's speaker EN-Newest, in a worker process that lives as long as this object.

    `python` is the interpreter of MeloTTS's environment, `model_dir` the folder of its files,
    `device` torch's. When every file of `FILES` is there the worker runs with the hub switched off;
    else MeloTTS asks the hub for the rest, which needs a network. The worker must start within
    `start_seconds` and answer each text within `text_seconds`.
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
        self._missing: list[str] = []  # known once the folder is looked at
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
                folder=model_dir,  # so that "bert-base-uncased" means the folder there
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
        """Return what made the waveforms."""
        return dict(self._described)

    def render(self, text: str) -> NDArray[np.float32]:
        """Return the spoken text, shape (n,), 44.1 kHz with MeloTTS's own weights.

        Raises RenderError when MeloTTS cannot say it, VoiceError when the worker has ended.
        """
        with self._as_voice_errors():
            reply = self._worker.ask({"text": text, "seed": seed_of(text)})
        if "error" in reply:
            raise RenderError(f"MeloTTS failed: {reply['error']}")
        return decode_waveform(reply["audio"])

    def __reduce__(self) -> tuple[Callable[..., "MeloVoice"], tuple[float]]:
        """Travel to another process as what was asked for; there it has a worker of its own."""
        speed, settings = self._opened
        return functools.partial(type(self), **settings), (speed,)

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    def _environment(self, model_dir: Path) -> dict[str, str]:
        # One thread: with more, sums are added in another order, and the waveform is another. It is
        # several workers that make it fast.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if not self._missing:
            environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        if (model_dir / "nltk_data").is_dir():
            environment["NLTK_DATA"] = str(model_dir / "nltk_data")
        return environment

    @contextmanager
    def _as_voice_errors(self) -> Iterator[None]:
        """Raise the worker's errors as VoiceErrors that name the files which are not there."""
        try:
            yield
        except WorkerError as error:
            lines = [str(error)]
            if self._missing:
                lines.append("not on this machine, so the hub was asked (docs/melo.md says how):")
                lines += [f"  {MODEL_DIR.name}/{name}" for name in self._missing]
            raise VoiceError("\n".join(lines)) from error
