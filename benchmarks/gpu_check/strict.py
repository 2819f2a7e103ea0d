"""Run a script of the repository on the test device that refuses to mix devices.

    python -m benchmarks.gpu_check.strict train_modeltok.py --fold 0 --device cpu:1 …

See `tests/strict_device.py`.
"""

import runpy
import sys

from tests.strict_device import StrictDevice


def main() -> None:
    """Run the script that the command line names, with the arguments after it."""
    sys.argv = sys.argv[1:]
    with StrictDevice():
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
