"""A process in which Python lacks what it lacks on Windows, for tests: `pretend`, then run code.

Paths stay those of this machine, and libraries are imported before, as on this machine.
"""

import ctypes
import importlib
import os
import select
import signal
import sys
import time
from types import SimpleNamespace
from typing import Any

MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios")
MISSING: dict[Any, tuple[str, ...]] = {
    os: (
        *("chown", "fork", "forkpty", "getloadavg", "geteuid", "getpgid", "getuid", "killpg"),
        *("mkfifo", "nice", "posix_fadvise", "pread", "sched_getaffinity", "setsid"),
        *("statvfs", "sysconf", "uname", "wait4"),
    ),
    select: ("poll", "epoll"),
    signal: ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGALRM", "alarm", "setitimer", "pthread_sigmask"),
    time: ("CLOCK_BOOTTIME", "clock_gettime"),
}
# Imported before: on Windows they have other code. (`filelock` needs O_NONBLOCK, which stays.)
LIBRARIES = (
    *("filelock", "ftfy", "huggingface_hub", "jinja2", "librosa.filters", "multiprocessing.util"),
    *("num2words", "numba", "pandas", "rapidfuzz", "scipy.optimize", "scipy.signal"),
    *("scipy.special", "scipy.stats", "sklearn.linear_model", "sklearn.model_selection"),
    *("soundfile", "soxr", "subprocess", "tempfile", "tensorboard", "tokenizers"),
    *("torch.optim.swa_utils", "torch.utils.data", "torch.utils.tensorboard", "tqdm"),
    *("transformers", "uuid", "wcwidth"),
)


class Kernel32:
    """The one function of Windows that we call."""

    @staticmethod
    def GlobalMemoryStatusEx(status: Any) -> bool:  # noqa: N802  (Windows' name)
        """Report 8 GB of free memory."""
        status._obj[2] = 8_000_000_000
        return True


def pretend() -> None:
    """Remove from this process what Windows lacks."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # an import fails
    for module, names in MISSING.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    ctypes.windll = SimpleNamespace(kernel32=Kernel32)  # type: ignore[attr-defined]
    sys.platform = "win32"
