"""Replace this process by `python ARGUMENTS`, and end it when its parent ends.

`python bound.py PARENT ARGUMENTS`, where PARENT is the parent's process ID. A separate script,
because a process with threads cannot safely run Python between fork and exec.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2); it outlives execve(2)


def main() -> None:
    """Bind this process to its parent, then execute python with the arguments."""
    parent, *arguments = sys.argv[1:]
    # A shell without job control lets background processes ignore Ctrl-C; we rely on it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":  # prctl is Linux only
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it ended before the call: no signal will come
            sys.exit(1)
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main()
