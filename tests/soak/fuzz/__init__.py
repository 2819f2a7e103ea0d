"""Random broken and malicious input, and the guarantees of the project's readers.

A family is a function that writes one input into an empty folder, passes it to the readers, and
returns the kind of input and its result: "read", "read with a warning" or "refused". A broken
guarantee raises an AssertionError, or the exception that a reader did not handle. All sounds are
synthetic.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.soak.fuzz.csv_tables import try_table
from tests.soak.fuzz.filenames import try_name
from tests.soak.fuzz.model_files import try_model
from tests.soak.fuzz.outcomes import Family, Outcome
from tests.soak.fuzz.recordings import try_audio
from tests.soak.fuzz.texts import try_text
from tests.soak.fuzz.world_recordings import try_world_recording
from tests.soak.fuzz.world_tables import try_world_table
from tests.soak.fuzz.world_texts import try_world_text

FAMILIES: Mapping[str, tuple[float, Family]] = {
    "audio": (0.32, try_audio),
    "names": (0.1, try_name),
    "tables": (0.12, try_table),
    "texts": (0.06, try_text),
    "models": (0.12, try_model),
    "world recordings": (0.12, try_world_recording),
    "world tables": (0.08, try_world_table),
    "world texts": (0.08, try_world_text),
}


def try_family(family: Family, rng: np.random.Generator, folder: Path) -> Outcome:
    """Write and read an input of a family in `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("data", "store", "assets"):
        (folder / name).mkdir(parents=True)
    return family(rng, folder)


def try_one(seed: int, number: int, folder: Path) -> Outcome:
    """Write and read input `number` of a seed in `folder`, which is emptied first."""
    rng = np.random.default_rng([seed, number])
    shares = [share for share, _ in FAMILIES.values()]
    _, family = list(FAMILIES.values())[rng.choice(len(shares), p=shares)]
    return try_family(family, rng, folder)
