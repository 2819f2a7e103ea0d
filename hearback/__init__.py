"""Hearback scores spoken reading: how likely is it that a learner said the expected text?"""

import importlib
from typing import Any

from hearback.engine import failures

__version__ = "0.2.0"

__all__ = ["Scorer", "__version__"]

failures.quiet_interrupts()


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import `Scorer` when it is first used: importing the package must not import torch.

    By name, because the engine imports this package, and must not know the competition.
    """
    if name == "Scorer":
        return importlib.import_module("hearback.reading.scoring.scorer").Scorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
