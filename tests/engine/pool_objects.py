"""An object that the workers of a test's cluster hold."""

import os
import signal
import time
from pathlib import Path

from hearback.engine.errors import HearbackError


class Counter:
    """Counts its calls."""

    def __init__(self, name: str, n_cpus: float) -> None:
        self.name, self.n_cpus, self.n_calls = name, n_cpus, 0

    def square(self, number: int) -> tuple[int, int, int, str]:
        """Return the square, this process, how often it was called, and a description."""
        time.sleep(0.1)  # so that every worker gets some
        self.n_calls += 1
        description = f"{self.name} {self.n_cpus:g} {os.environ['OMP_NUM_THREADS']} {Path.cwd()}"
        return number**2, os.getpid(), self.n_calls, description

    def die_once(self, argument: tuple[int, Path]) -> int:
        """Return the number; the first time that it is 3, this process is killed."""
        number, folder = argument
        if number == 3:
            try:
                (folder / "died").touch(exist_ok=False)
            except FileExistsError:
                return number
            self.die(None)
        time.sleep(0.05)
        return number

    def die(self, _: object) -> None:
        """Kill this process."""
        os.kill(os.getpid(), signal.SIGKILL)

    def refuse(self, what: str) -> None:
        """Fail with an error for the user."""
        raise HearbackError(f"{what}: cannot be done; do it otherwise")

    def crash(self, what: str) -> None:
        """Fail with another error."""
        raise ValueError(f"{what}\nsecond line")
