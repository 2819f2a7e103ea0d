"""A worker: a process with its own Python environment that answers requests as JSON lines.

For packages whose pinned versions conflict with ours. `worker/main.py` runs in that environment
and serves one script; `Worker` starts it and sends requests.
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
N_STDERR_LINES = 12  # shown of a worker that ended


class WorkerError(HearbackError):
    """The worker is unusable: it did not start, has ended, or did not answer in time."""


def find_interpreter(name: str, python: Path, cure: str) -> Path:
    """Return the absolute path of the interpreter of `name`'s environment.

    Raises WorkerError, with the `cure` at the end, if it does not exist.
    """
    # Not resolved: a virtual environment's python is a link, and must be started by that path.
    python = python.absolute()
    if not python.is_file():
        raise WorkerError(
            f"{name} needs its own Python environment, and there is no {python}: {cure}"
        )
    return python


class Worker:
    """A process that runs `script` (see `worker/main.py`) with `python`, until `close`.

    It runs in `folder` with `environment`, must be ready within `start_seconds`, and must answer
    each request within `answer_seconds`. `name` is used in error messages. Threads may send
    requests concurrently; they are answered one at a time. Raises WorkerError if it does not start.
    `ready` is the script's description of itself.
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
            # -I: search neither the worker's folder nor PYTHONPATH, where a file of ours could
            # shadow one of its packages.
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
            self.ready = self._receive(start_seconds)
            if "fatal" in self.ready:
                raise self._error(f"{name} did not start: {self.ready['fatal']}")
        except BaseException:
            self.close()
            raise

    def request(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply to `message`, which has the key "error" if the request failed.

        Raises WorkerError if the worker has ended or does not answer in time; it is then ended.
        """
        with self._lock:
            self._send(message)
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

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._requests.write(json.dumps(message) + "\n")
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
        """Kill the worker if the block takes longer, so that a blocked read returns."""
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
        """Return the error with the end of the worker's standard error."""
        with suppress(subprocess.TimeoutExpired):  # it is complete once the worker has ended
            self._process.wait(timeout=5)
        lines = [what]
        if not self._stderr.closed:
            self._stderr.seek(0)
            output = self._stderr.read().decode(errors="replace").splitlines()
            lines += [f"  | {line}" for line in output[-N_STDERR_LINES:]]
        return WorkerError("\n".join(lines))


def encode_waveform(waveform: np.ndarray) -> str:
    """Encode a waveform, (n,), for a message: base64 of little-endian float32."""
    return base64.b64encode(waveform.astype("<f4").tobytes()).decode("ascii")


def decode_waveform(encoded: str) -> NDArray[np.float32]:
    """Decode the waveform, (n,), of a message."""
    return np.frombuffer(base64.b64decode(encoded), dtype="<f4").astype(np.float32)
