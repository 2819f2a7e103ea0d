"""Become `python ARGUMENTS`, a process that ends when the one that started it does.

`python bound.py PARENT ARGUMENTS`: PARENT is the process that starts it. A script of its own, for
between fork and exec a process with threads cannot safely run Python.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2); it outlives execve(2)


def main() -> None:
    """Tie this process to its parent and run what is asked for in its place."""
    parent, *arguments = sys.argv[1:]
    # A shell without job control starts what is in the background deaf to Ctrl-C; we use it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":  # elsewhere there is no such thing
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it died before the call, so nothing would tell us
            sys.exit(1)
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main()
