"""Melo: MeloTTS's EN_NEWEST, the competition's voice, run in an environment of its own.

MeloTTS (MIT, https://github.com/myshell-ai/MeloTTS) pins packages that conflict with ours. So
`melo_worker.py` runs on the Python of that environment (`make melo`) and speaks JSON lines over its
standard input and output. docs/melo.md lists the files that it needs and where they go.
"""

import base64
import functools
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hearback.voices.base import RenderError, VoiceError, seed_of

PYTHON = Path(".venv-melo/bin/python")
MODEL_DIR = Path("assets/tts_model")
WORKER = Path(__file__).with_name("melo_worker.py")
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
N_STDERR_LINES = 12  # of a dead worker, shown


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
        # Not resolved: a virtual environment's python is a link, and where it lies is its meaning.
        python, model_dir = python.absolute(), model_dir.absolute()
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
        if not python.is_file():
            raise VoiceError(
                f"the voice melo needs MeloTTS's own environment, and there is no {python}: "
                "run `make melo`, or say where that environment's python is (--melo_python)"
            )
        model_dir.mkdir(parents=True, exist_ok=True)
        self._missing = missing_files(model_dir)
        self._text_seconds = text_seconds
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        command = [str(python), "-I", str(WORKER), "--model_dir", str(model_dir)]
        # -I: the folder of the worker is not searched, where melo.py would pass for MeloTTS.
        self._process = subprocess.Popen(
            [*command, "--speed", str(speed), "--device", device],
            cwd=model_dir,  # so that "bert-base-uncased" means the folder there
            env=self._environment(model_dir),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
        )
        assert self._process.stdin and self._process.stdout  # they are pipes
        self._requests, self._replies = self._process.stdin, self._process.stdout
        try:
            ready = self._receive(start_seconds)
            if "fatal" in ready:
                raise self._error(f"MeloTTS did not start: {ready['fatal']}")
            self.sample_rate = int(ready["sample_rate"])
        except BaseException:
            self.close()
            raise
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
        self._send({"text": text, "seed": seed_of(text)})
        reply = self._receive(self._text_seconds)
        if "error" in reply:
            raise RenderError(f"MeloTTS failed: {reply['error']}")
        return np.frombuffer(base64.b64decode(reply["audio"]), dtype="<f4").astype(np.float32)

    def __reduce__(self) -> tuple[Callable[..., "MeloVoice"], tuple[float]]:
        """Travel to another process as what was asked for; there it has a worker of its own."""
        speed, settings = self._opened
        return functools.partial(type(self), **settings), (speed,)

    def close(self) -> None:
        """End the worker."""
        with suppress(OSError):  # its end of the pipe may be gone
            self._requests.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._replies.close()
        self._stderr.close()

    def _environment(self, model_dir: Path) -> dict[str, str]:
        # One thread: with more, sums are added in another order, and the waveform is another. It is
        # several workers that make it fast.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if not self._missing:
            environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        if (model_dir / "nltk_data").is_dir():
            environment["NLTK_DATA"] = str(model_dir / "nltk_data")
        return environment

    def _send(self, request: dict[str, Any]) -> None:
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
        except (OSError, ValueError) as error:  # ValueError: closed
            raise self._error("MeloTTS's worker has ended") from error

    def _receive(self, seconds: float) -> dict[str, Any]:
        with self._killed_after(seconds) as late:
            line = self._replies.readline()
        if late.is_set():
            raise self._error(f"MeloTTS's worker gave no answer in {seconds:g} s and was ended")
        try:
            reply = json.loads(line)
        except json.JSONDecodeError as error:
            what = f"answered {line[:80]!r}" if line else "has ended"
            raise self._error(f"MeloTTS's worker {what}") from error
        return reply

    @contextmanager
    def _killed_after(self, seconds: float) -> Iterator[threading.Event]:
        """End the worker when the block takes longer; a blocked read then returns."""
        late = threading.Event()

        def kill() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds, kill)
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()

    def _error(self, what: str) -> VoiceError:
        """Return the error with the worker's last words and the files that are not there."""
        with suppress(subprocess.TimeoutExpired):  # its last words are complete once it has ended
            self._process.wait(timeout=5)
        lines = [what]
        if not self._stderr.closed:
            self._stderr.seek(0)
            said = self._stderr.read().decode(errors="replace").splitlines()
            lines += [f"  | {line}" for line in said[-N_STDERR_LINES:]]
        if self._missing:
            lines.append("not on this machine, so the hub was asked (docs/melo.md says how):")
            lines += [f"  {MODEL_DIR.name}/{name}" for name in self._missing]
        return VoiceError("\n".join(lines))
