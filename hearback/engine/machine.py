"""What parsers and schedulers need to know of a machine, without importing torch."""

import os
import sys

from hearback.engine.errors import HearbackError

TRAINING_PRECISIONS = ("auto", "float32", "bfloat16", "float16")
PRECISIONS = (*TRAINING_PRECISIONS, "int8")


def count_processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_can_stop_processes(command: str) -> None:
    """Raise HearbackError on Windows, for a command that runs others in processes of their own.

    They are ended by signals (so that they save their work), and with their parent: Windows has
    neither.
    """
    if sys.platform == "win32":
        raise HearbackError(
            f"{command} does not run on Windows, which lacks the signals that end a training with "
            "its parent: use Linux in WSL 2"
        )
