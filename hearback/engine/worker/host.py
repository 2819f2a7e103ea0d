"""A process with packages of its own, which answers requests: JSON lines over its pipes.

What pins packages that conflict with ours has an environment of its own. `worker_main.py` runs
there and serves one script; the class here starts it and asks it.
"""

import base64
import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hearback.engine.errors import HearbackError

MAIN = Path(__file__).with_name("main.py")
N_STDERR_LINES = 12  # of a dead worker, shown


class WorkerError(HearbackError):
    """The worker cannot be used any more: it did not start, has ended, or gave no answer."""


def find_interpreter(name: str, python: Path, cure: str) -> Path:
    """Return the absolute path of the python of an environment that `name` has to itself.

    Raises WorkerError, which ends with the `cure`, where there is none.
    """
    # Not resolved: a virtual environment's python is a link, and where it lies is its meaning.
    python = python.absolute()
    if not python.is_file():
        raise WorkerError(
            f"{name} needs an environment of its own, and there is no {python}: {cure}"
        )
    return python


class Worker:
    """`script` (see `worker_main.py`) on `python`, a process that lives as long as this object.

    `name` stands for it in errors. It runs in `folder` with `environment` and must be ready within
    `start_seconds`, and answer each request within `answer_seconds`. Several threads may ask: one
    is answered after the other. Raises WorkerError where it does not start.
    """

    def __init__(
        self,
        name: str,
        python: Path,
        script: Path,
        arguments: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        start_seconds: float,
        answer_seconds: float,
    ) -> None:
        self._name = name
        self._answer_seconds = answer_seconds
        self._lock = threading.Lock()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        self._process = subprocess.Popen(
            # -I: neither the folder of the worker nor PYTHONPATH is searched, where a file of ours
            # would pass for one of its packages.
            [str(python), "-I", str(MAIN), str(script), *arguments],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
        )
        assert self._process.stdin and self._process.stdout  # they are pipes
        self._requests, self._replies = self._process.stdin, self._process.stdout
        try:
            self.ready = self._receive(start_seconds)  # what the script tells of itself
            if "fatal" in self.ready:
                raise self._error(f"{name} did not start: {self.ready['fatal']}")
        except BaseException:
            self.close()
            raise

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply to `request`; one with "error" tells why there is no other.

        Raises WorkerError when the worker has ended or is late, and then it is ended.
        """
        with self._lock:
            self._send(request)
            return self._receive(self._answer_seconds)

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

    def _send(self, request: Mapping[str, Any]) -> None:
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
        except (OSError, ValueError) as error:  # ValueError: closed
            raise self._error(f"{self._name}'s worker has ended") from error

    def _receive(self, seconds: float) -> dict[str, Any]:
        with self._killed_after(seconds) as late:
            line = self._replies.readline()
        if late.is_set():
            raise self._error(
                f"{self._name}'s worker gave no answer in {seconds:g} s and was ended"
            )
        try:
            reply = json.loads(line)
        except json.JSONDecodeError as error:
            what = f"answered {line[:80]!r}" if line else "has ended"
            raise self._error(f"{self._name}'s worker {what}") from error
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

    def _error(self, what: str) -> WorkerError:
        """Return the error with the worker's last words."""
        with suppress(subprocess.TimeoutExpired):  # they are complete once it has ended
            self._process.wait(timeout=5)
        lines = [what]
        if not self._stderr.closed:
            self._stderr.seek(0)
            said = self._stderr.read().decode(errors="replace").splitlines()
            lines += [f"  | {line}" for line in said[-N_STDERR_LINES:]]
        return WorkerError("\n".join(lines))


def encode_waveform(waveform: np.ndarray) -> str:
    """Return a waveform, (n,), as a message carries it: base64 of little-endian float32."""
    return base64.b64encode(waveform.astype("<f4").tobytes()).decode("ascii")


def decode_waveform(encoded: str) -> NDArray[np.float32]:
    """Return the waveform, (n,), that a message carries."""
    return np.frombuffer(base64.b64decode(encoded), dtype="<f4").astype(np.float32)
