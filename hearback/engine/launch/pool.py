"""Workers on a Ray cluster that each hold an object, such as loaded models, and get it tasks."""

import math
import pickle
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hearback.engine.errors import HearbackError
from hearback.engine.launch import remote
from hearback.engine.launch.cluster import (
    MAX_ATTEMPTS,
    POLL_SECONDS,
    connect,
    live_machines,
    make_probe,
)
from hearback.engine.launch.processes import ROOT


@dataclass(frozen=True)
class WorkerResources:
    """What a worker of a cluster gets.

    Attributes:
        n_cpus: processors, which is also its number of threads; None: all of the machine, as many
            as the smallest one has, or one beside a GPU.
        gpu_share: share of a GPU.
        n_workers: number of workers; None: as many as the machines have room for.
    """

    n_cpus: float | None = None
    gpu_share: float = 0.0
    n_workers: int | None = None

    def complete(self, machines: Sequence[dict[str, float]]) -> tuple[float, int]:
        """Return the processors of a worker, and how many of them the machines have room for."""
        n_cpus = self.n_cpus
        if n_cpus is None:
            counts = [machine["CPU"] for machine in machines if machine.get("CPU")]
            n_cpus = 1.0 if self.gpu_share else min(counts, default=1.0)
        wanted = {"CPU": n_cpus, "GPU": self.gpu_share}
        n_room = sum(
            min(math.floor(machine.get(kind, 0) / n) for kind, n in wanted.items() if n)
            for machine in machines
        )
        return n_cpus, n_room


@dataclass
class _Task:
    argument: Any
    attempts: int = 0


class WorkerPool:
    """Workers of a Ray cluster, each a process with one object that is made at its first task.

    A worker that dies is replaced when the cluster has room, and its task runs again elsewhere.
    Connecting and sharing folders are as with `cluster.RayLauncher`.

    Args:
        address: see `RayLauncher`.
        factory: "module:Class" of the object; the module is imported by the workers only.
        arguments: of the class; the last one, the number of a worker's processors, is added.
        shared: a folder that all machines must share.
        needed: further paths that they must have.
        resources: of a worker.
    """

    def __init__(
        self,
        address: str,
        *,
        factory: str,
        arguments: tuple[Any, ...],
        shared: Path,
        needed: Sequence[Path] = (),
        resources: WorkerResources,
    ) -> None:
        self._ray = connect(address)
        self._ray.cloudpickle.register_pickle_by_value(remote)
        machines = live_machines(self._ray)
        self.n_cpus, n_room = resources.complete(machines)
        if not n_room:
            print(
                f"no machine of the cluster has {self.n_cpus:g} CPUs and "
                f"{resources.gpu_share:g} GPUs now: the work waits until one joins (lower "
                "--cpus_per_worker or --gpu_share, or use --device cpu)"
            )
        self.n_workers = resources.n_workers or max(1, n_room)
        self._actor = self._ray.remote(remote.Host).options(
            num_cpus=self.n_cpus, num_gpus=resources.gpu_share, max_restarts=0
        )
        self._probe = make_probe(shared)
        paths = [*(path.absolute() for path in needed), self._probe]
        self._arguments = (
            *(str(ROOT), str(Path.cwd()), [str(path) for path in paths]),
            *(factory, pickle.dumps((*arguments, self.n_cpus))),
        )
        self._n_lost = 0
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}  # by the reference of their check
        for _ in range(self.n_workers):
            self._start()

    def _start(self) -> None:
        actor = self._actor.remote(*self._arguments)
        self._starting[actor.check.remote()] = actor

    def call(self, method: str, argument: Any = None) -> Any:  # noqa: ANN401
        """Return what a method of any worker's object returns."""
        ((_, result),) = self.map(method, [argument])
        return result

    def map(self, method: str, arguments: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Call a method with each argument; yield arguments and results as they come.

        Arguments are taken when a worker is free, so that few are in memory. Raises HearbackError
        if the method does, if it fails otherwise, or if a task has lost `MAX_ATTEMPTS` workers.
        """
        fresh = iter(arguments)
        again = deque[_Task]()
        running: dict[Any, tuple[Any, _Task]] = {}
        while True:
            while self._idle:
                task = again.popleft() if again else next(map(_Task, fresh), None)
                if task is None:
                    break
                worker = self._idle.pop()
                payload = pickle.dumps(task.argument, protocol=pickle.HIGHEST_PROTOCOL)
                running[worker.call.remote(method, payload)] = worker, task
            if not running and self._idle:  # nothing is left to do
                return
            ended, _ = self._ray.wait(
                [*running, *self._starting], num_returns=1, timeout=POLL_SECONDS
            )
            for reference in ended:
                if reference in self._starting:
                    self._finish_start(reference)
                    continue
                worker, task = running.pop(reference)
                try:
                    done = self._result(reference, method)
                except self._ray.exceptions.RayError as error:
                    self._ray.kill(worker)  # if only its result was lost, or its node is cut off
                    again.append(self._lose(task, error))
                else:
                    self._idle.append(worker)
                    yield task.argument, done

    def _finish_start(self, reference: Any) -> None:  # noqa: ANN401  (Ray's)
        worker = self._starting.pop(reference)
        try:
            lacks = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._n_lost += 1
            if self._n_lost >= MAX_ATTEMPTS * self.n_workers:
                raise HearbackError(f"the cluster's workers do not start: {_line(error)}") from None
            self._start()
            return
        if lacks is not None:
            raise HearbackError(lacks)
        self._idle.append(worker)

    def _result(self, reference: Any, method: str) -> Any:  # noqa: ANN401  (as the method has it)
        try:
            is_done, value = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise HearbackError(
                f"a worker of the cluster failed ({method}): {type(cause).__name__}: "
                f"{_line(cause)}; Ray keeps its log in /tmp/ray/session_latest/logs of its machine"
            ) from None
        if not is_done:
            raise HearbackError(value.decode())
        return pickle.loads(value)

    def _lose(self, task: _Task, error: Exception) -> _Task:
        """Replace a dead worker; return its task, to run again."""
        task.attempts += 1
        self._n_lost += 1
        if task.attempts >= MAX_ATTEMPTS:
            raise HearbackError(
                f"a shard lost {MAX_ATTEMPTS} workers: {_line(error)}; if they lack memory, give "
                "each more processors with --cpus_per_worker, or fewer models with --memory_gb"
            )
        tqdm.write(f"a worker was lost ({_line(error)}): its shard runs again")
        self._start()
        return task

    def close(self) -> None:
        """End the workers, and disconnect from the cluster."""
        self._ray.shutdown()  # which ends the actors of this driver
        self._probe.unlink(missing_ok=True)


def _line(error: BaseException) -> str:
    """Return the first line of an error that is not blank."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
