"""The common part of every submission's main.py, which runs in the competition's runtime.

A default submission (base rates, the most frequent class) is written first, so that one exists even
if scoring fails. Nothing is installed, and the network is not used. This module imports only the
standard library: a third-party package that fails to load cannot prevent the default submission.
"""

import csv
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from hearback.engine.errors import HearbackError
from hearback.engine.failures import SHOW_TRACEBACK

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def run(here: Path, write_default: Callable[[], None], score: Callable[[Path], None]) -> None:
    """Call `write_default`, then `score` with a temporary folder; both write the submission.

    `here` is the folder of main.py; everything in it except the submission may be read-only.
    """
    print((here / "VERSION").read_text(encoding="utf-8"), flush=True)
    os.environ.update(OFFLINE)
    os.environ.setdefault(SHOW_TRACEBACK, "1")  # the log is all that comes back from the runtime
    # Last: packages of the runtime take precedence.
    sys.path.append(str(here / "packages"))
    try:
        write_default()
    except (OSError, KeyError, ValueError, AttributeError, csv.Error, HearbackError) as error:
        # Go on: `score` checks the same input, with better messages.
        print(f"the default submission could not be written ({error!r})", file=sys.stderr)
    scored = False
    with tempfile.TemporaryDirectory(prefix="hearback-") as scratch:
        # Caches of compiled code of librosa and torch: their default folders may be read-only.
        for name in ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
            os.environ[name] = str(Path(scratch, name.lower()))
        try:
            score(Path(scratch))
        except SystemExit as end:
            scored = not end.code
            raise
        finally:
            if not scored:
                print("scoring failed: the submission has default values", file=sys.stderr)


def set_flags(program: str, packed: Iterable[str] = (), **paths: Path) -> None:
    """Set `sys.argv`: `program`, flags for `paths`, the flags in the zip, then main.py's own."""
    sys.argv = [program, *flags_of(paths), *packed, *sys.argv[1:]]


def flags_of(paths: Mapping[str, Path]) -> list[str]:
    """Return the command line flags for some paths."""
    return [part for name, path in paths.items() for part in (f"--{name}", str(path))]
