"""Ten thousand broken and fuzz inputs: each is read, or refused with a clear error.

    python -m tests.soak.soak_input --n 10000 --seed 0

Each input (`tests.soak.fuzz`) is made and read in a process that is watched: it has so many
seconds, so many megabytes more than it started with, and an audit hook (PEP 578) that notes which
files Python opens and whether anything is unpickled, executed or connected to. Ends with a table,
and with status 1 where an input raised anything but a clear error, hung, ended the process, took
more memory, opened a file outside its folder, or ran code. Every input is made again, alone, with
`--only NUMBER`.
"""

import contextlib
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
from hearback.engine.devices import count_processors
from tests.soak.fuzz import FAMILIES, READ, REFUSED, WARNED, try_one

N_WARM = 40  # inputs after which nothing is imported or allocated for the first time
WARM_SEED = 2**31
SECONDS = 60.0  # of an input, on a machine that does other work too
MEGABYTES = 400  # that an input may take beside what the process has
_STACK_MB = 64  # of address space, for threads that come later

# What only code does that came from a file, or what this project has no use for while it reads.
FORBIDDEN = (
    *("pickle.find_class", "import", "ctypes.dlopen", "os.system", "os.exec", "os.posix_spawn"),
    *("os.fork", "subprocess.Popen", "socket.connect", "socket.getaddrinfo"),
)


@dataclass(frozen=True)
class Trial:
    """What became of one input; `fault` is what was promised and not kept."""

    number: int
    kind: str
    result: str
    fault: str | None = None
    megabytes: float = 0.0  # that the process had at most, so far, beside what it started with


class Watch:
    """An audit hook that notes what must not happen while inputs are read."""

    def __init__(self, folder: Path) -> None:
        """Watch this process, which reads what lies in `folder`."""
        self.seen: list[str] = []
        self.on = False
        inside = (folder, Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1])
        self._inside = tuple(os.path.realpath(path) + os.sep for path in inside)
        self._outside = os.path.realpath(folder / "outside") + os.sep
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Note an event."""
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
    parser.add_argument("--n", type=int, default=10_000, help="how many inputs")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs")
    parser.add_argument("--only", type=int, help="make and read this one, here, and nothing else")
    parser.add_argument("--jobs", type=int, default=count_processors(), help="processes")
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
    """Print the table; return 1 where a promise was not kept."""
    counts = Counter((trial.kind, "fault" if trial.fault else trial.result) for trial in trials)
    columns = [READ, WARNED, REFUSED, "fault"]
    kinds = sorted({trial.kind for trial in trials})
    rows = [[counts[kind, column] for column in columns] for kind in kinds]
    table = pd.DataFrame(rows, index=pd.Index(kinds, name="input"), columns=columns)
    table.loc["all"] = table.sum()
    print(table.to_string())
    print(f"most memory beside a process's own: {max(t.megabytes for t in trials):.0f} MB")
    faults = [trial for trial in trials if trial.fault]
    print(f"{len(trials)} inputs, {len(faults)} faults")
    return 1 if faults else 0


class _Worker:
    """A process that reads inputs; a new one takes its place when it hangs or ends."""

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
        """Let the process try an input; a fault, after which it is gone, where it cannot."""
        self._connection.send(number)
        fault = f"not done after {SECONDS:g} s"
        try:
            if self._connection.poll(SECONDS):
                return self._connection.recv()
        except EOFError:
            self._process.join()
            fault = f"ended its process ({self._process.exitcode})"
        self.close()
        return Trial(number, "ended or hung", "", fault)

    @property
    def is_there(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    def close(self) -> None:
        """End the process and remove its folder."""
        self._connection.close()  # one that only waits for a number ends
        self._process.join(timeout=5)
        self._process.kill()
        self._process.join()
        self._folder.cleanup()


def _trials(seed: int, next_number: Callable[[], int | None]) -> Iterator[Trial]:
    worker = _Worker(seed)
    while (number := next_number()) is not None:
        if not worker.is_there:
            worker = _Worker(seed)
        yield worker.try_one(number)
    worker.close()


def work(connection: Connection, seed: int, folder: Path) -> None:
    """Read inputs as their numbers come, and send what became of each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent ends it
    _quiet()
    own = _megabytes()
    watch = Watch(folder / "input")
    for number in range(N_WARM * len(FAMILIES)):
        with contextlib.suppress(Exception):  # they come again, watched, where they matter
            try_one(WARM_SEED, number, folder / "input")
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
    except Exception as error:  # whatever a reader lets through is what is looked for
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
    """Send to nowhere what decoders written in C print of damaged streams."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)


def _megabytes() -> float:
    """Return the most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _limit_memory() -> None:
    """Let the process have little more address space than it has: who asks for more gets none."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (MEGABYTES + _STACK_MB) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    cli.run(main)
