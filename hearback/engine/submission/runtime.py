"""What main.py of any competition's submission does where it runs: see `hearback.engine.submission.archive`.

A submission stands from the first second, with what is known without hearing anything; what fails
then ends with its own exit status. Nothing is installed and no network is asked. This module
imports no package, so that the submission stands before one could fail to load.
"""

import csv
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from hearback.engine.errors import HearbackError

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def run(here: Path, stand: Callable[[], None], score: Callable[[Path], None]) -> None:
    """Write a submission by `stand`, then by `score`, which gets a folder for what is on the way.

    `here` is the folder of main.py, which may be read-only but for the submission.
    """
    print((here / "VERSION").read_text(encoding="utf-8"), flush=True)
    os.environ.update(OFFLINE)
    # Last: a package that the runtime has is the runtime's.
    sys.path.append(str(here / "packages"))
    try:
        stand()
    except (OSError, KeyError, ValueError, AttributeError, csv.Error, HearbackError) as error:
        # What scores checks its input itself, and says what is wrong with it.
        print(f"no submission without scores could be written ({error!r})", file=sys.stderr)
    scored = False
    with tempfile.TemporaryDirectory(prefix="hearback-") as scratch:
        # What librosa and torch compile goes there, too: their own folders may be read-only.
        for name in ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
            os.environ[name] = str(Path(scratch, name.lower()))
        try:
            score(Path(scratch))
        except SystemExit as end:
            scored = not end.code
            raise
        finally:
            if not scored:
                print("scoring failed: the submission is what stood before", file=sys.stderr)


def set_flags(program: str, packed: Iterable[str] = (), **paths: Path) -> None:
    """Make the command line that of `program`: flags of paths, packed ones, those of main.py."""
    sys.argv = [program, *flags_of(paths), *packed, *sys.argv[1:]]


def flags_of(paths: Mapping[str, Path]) -> list[str]:
    """Return the flags that name some paths to a step."""
    return [part for name, path in paths.items() for part in (f"--{name}", str(path))]
