"""Soak test of ten thousand fuzz inputs: each must be read, or refused with a clear error.

    python -m tests.soak.soak_input --n 10000 --seed 0

Each input (`tests.soak.fuzz`) is written and read in a monitored process, with limits on time and
memory, and an audit hook (PEP 578) that records opened files, unpickling, execution and
connections. Prints a table, and exits with status 1 if an input raised anything but a clear error,
hung, killed the process, exceeded the memory limit, opened a file outside its folder, or ran code.
`--only NUMBER` reproduces a single input.
"""

import contextlib
import io
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from hearback.engine import cli
from hearback.engine.machine import count_processors
from hearback.engine.project import ROOT
from tests.soak.fuzz import FAMILIES, try_one
from tests.soak.fuzz.outcomes import READ, REFUSED, WARNED

N_WARM = 40  # inputs of each family read before monitoring: imports, first allocations
WARM_SEED = 2**31
SECONDS = 60.0  # per input, on a busy machine
MEGABYTES = 400  # per input, above the process's own
_STACK_MB = 64  # of address space, for later threads

# Audit events of executed files, or that the project's readers never cause.
FORBIDDEN = (
    *("pickle.find_class", "import", "ctypes.dlopen", "os.system", "os.exec", "os.posix_spawn"),
    *("os.fork", "subprocess.Popen", "socket.connect", "socket.getaddrinfo"),
)


@dataclass(frozen=True)
class Trial:
    """The result of one input; `fault` describes a broken guarantee."""

    number: int
    kind: str
    result: str
    fault: str | None = None
    megabytes: float = 0.0  # peak of the process so far, above its own


class Watch:
    """An audit hook that records forbidden events while inputs are read."""

    def __init__(self, folder: Path) -> None:
        """Install the hook for this process, which may read in `folder`."""
        self.seen: list[str] = []
        self.on = False
        inside = (folder, Path(sys.prefix), Path(sys.base_prefix), ROOT)
        self._inside = tuple(os.path.realpath(path) + os.sep for path in inside)
        self._outside = os.path.realpath(folder / "outside") + os.sep
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Record an event."""
        if not self.on:
            return
        if event in FORBIDDEN:
            self.seen.append(f"{event} {str(args[:1])[:200]}")
        elif event == "open" and isinstance(args[0], str | bytes) and _reads(args):
            path = os.path.realpath(os.fsdecode(args[0]))
            if path.startswith(self._outside) or not f"{path}/".startswith(self._inside):
                self.seen.append(f"open {path[:200]}")


def _reads(args: tuple[Any, ...]) -> bool:
    flags = args[2] if isinstance(args[2], int) else 0
    return flags & os.O_WRONLY == 0


def main() -> int:
    """Run the soak; return its exit status."""
    parser = cli.parser(__doc__)
    parser.add_argument("--n", type=int, default=10_000, help="number of inputs")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--only", type=int, help="write and read only this input, in this process")
    parser.add_argument("--jobs", type=int, default=count_processors(), help="number of processes")
    options = parser.parse_args()
    if options.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(try_one(options.seed, options.only, Path(folder) / "input"))
        return 0
    numbers = iter(range(options.n))
    lock = threading.Lock()

    def next_number() -> int | None:
        with lock:
            return next(numbers, None)

    trials: list[Trial] = []
    with ThreadPoolExecutor(options.jobs) as pool, tqdm(total=options.n, unit="input") as bar:

        def run() -> None:
            for trial in _trials(options.seed, next_number):
                trials.append(trial)
                bar.update()
                if trial.fault:
                    bar.write(f"{trial.number} {trial.kind}: {trial.fault}")

        for future in [pool.submit(run) for _ in range(options.jobs)]:
            future.result()
    return report(trials)


def report(trials: list[Trial]) -> int:
    """Print the table; return 1 if there are faults."""
    counts = Counter((trial.kind, "fault" if trial.fault else trial.result) for trial in trials)
    columns = [READ, WARNED, REFUSED, "fault"]
    kinds = sorted({trial.kind for trial in trials})
    rows = [[counts[kind, column] for column in columns] for kind in kinds]
    table = pd.DataFrame(rows, index=pd.Index(kinds, name="input"), columns=columns)
    table.loc["all"] = table.sum()
    print(table.to_string())
    print(f"peak memory above a process's own: {max(t.megabytes for t in trials):.0f} MB")
    faults = [trial for trial in trials if trial.fault]
    print(f"{len(trials)} inputs, {len(faults)} faults")
    return 1 if faults else 0


class _Worker:
    """A process that reads inputs; it is replaced when it hangs or ends."""

    def __init__(self, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self._process = context.Process(target=work, args=(theirs, seed, folder), daemon=True)
        self._process.start()
        theirs.close()
        self._connection.recv()  # it is warm

    def try_one(self, number: int) -> Trial:
        """Try an input in the process; on a timeout or crash, end it and return a fault."""
        self._connection.send(number)
        fault = f"timeout after {SECONDS:g} s"
        try:
            if self._connection.poll(SECONDS):
                return self._connection.recv()
        except EOFError:
            self._process.join()
            fault = f"crashed the process ({self._process.exitcode})"
        self.close()
        return Trial(number, "ended or hung", "", fault)

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    def close(self) -> None:
        """End the process and remove its folder."""
        self._connection.close()  # a process waiting for a number ends
        self._process.join(timeout=5)
        self._process.kill()
        self._process.join()
        self._folder.cleanup()


def _trials(seed: int, next_number: Callable[[], int | None]) -> Iterator[Trial]:
    worker = _Worker(seed)
    while (number := next_number()) is not None:
        if not worker.is_alive:
            worker = _Worker(seed)
        yield worker.try_one(number)
    worker.close()


def work(connection: Connection, seed: int, folder: Path) -> None:
    """Read the inputs of received numbers, and send their results."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends it
    _quiet()
    own = _megabytes()
    watch = Watch(folder / "input")
    for number in range(N_WARM * len(FAMILIES)):
        with contextlib.suppress(Exception):  # only warming up
            try_one(WARM_SEED, number, folder / "input")
    pd.read_csv(io.StringIO("a\n1\n"))  # pandas counts the processors once, in /sys
    _limit_memory()
    connection.send("warm")
    while True:
        try:
            number = connection.recv()
        except EOFError:
            return
        connection.send(_watched(seed, number, folder / "input", watch, own))


def _watched(seed: int, number: int, folder: Path, watch: Watch, own: float) -> Trial:
    watch.seen.clear()
    watch.on = True
    kind, result, fault = "", "", None
    try:
        outcome = try_one(seed, number, folder)
        kind, result = outcome.kind, outcome.result
    except Exception as error:  # any other exception is a fault
        *_, last = traceback.extract_tb(error.__traceback__)
        kind = "raised"
        fault = f"{type(error).__name__}: {str(error)[:200]} ({last.name}, line {last.lineno})"
    watch.on = False
    if watch.seen:
        fault = "; ".join(watch.seen[:5])
    more = _megabytes() - own
    if more > MEGABYTES:
        fault = f"took {more:.0f} MB"
    return Trial(number, kind, result, fault, more)


def _quiet() -> None:
    """Discard messages that C decoders print about damaged streams."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)


def _megabytes() -> float:
    """Return the peak memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _limit_memory() -> None:
    """Limit the address space to its present size plus `MEGABYTES` and stacks."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (MEGABYTES + _STACK_MB) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    cli.run(main)
