"""What main.py of any competition's submission does in the runtime.

A submission without scores (base rates, the commonest class) is written first, so that there is one
even if scoring fails; a failure ends with its own exit status. Nothing is installed and the network
is not used. This module imports no third-party package: none can fail to load before that
submission is written.
"""

import csv
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from hearback.engine.errors import HearbackError

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def run(here: Path, write_default: Callable[[], None], score: Callable[[Path], None]) -> None:
    """Write a submission by `write_default`, then by `score`, which gets a temporary folder.

    `here` is the folder of main.py. Apart from the submission it may be read-only.
    """
    print((here / "VERSION").read_text(encoding="utf-8"), flush=True)
    os.environ.update(OFFLINE)
    # Last: packages of the runtime take precedence.
    sys.path.append(str(here / "packages"))
    try:
        write_default()
    except (OSError, KeyError, ValueError, AttributeError, csv.Error, HearbackError) as error:
        # Scoring checks its input itself, with better messages.
        print(f"the default submission could not be written ({error!r})", file=sys.stderr)
    scored = False
    with tempfile.TemporaryDirectory(prefix="hearback-") as scratch:
        # Compiled code of librosa and torch goes there too: their own folders may be read-only.
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
    """Set `sys.argv` to `program` with flags for `paths`, the `packed` flags and main.py's own."""
    sys.argv = [program, *flags_of(paths), *packed, *sys.argv[1:]]


def flags_of(paths: Mapping[str, Path]) -> list[str]:
    """Return the command line flags for some paths."""
    return [part for name, path in paths.items() for part in (f"--{name}", str(path))]
