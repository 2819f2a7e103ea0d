"""What parsers and schedulers need to know of a machine, without importing torch."""

import os

TRAINING_PRECISIONS = ("auto", "float32", "bfloat16", "float16")
PRECISIONS = (*TRAINING_PRECISIONS, "int8")


def count_processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
