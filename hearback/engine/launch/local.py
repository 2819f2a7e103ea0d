"""Run jobs in parallel on this machine."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from subprocess import Popen

from tqdm import tqdm

from hearback.engine.errors import HearbackError
from hearback.engine.launch import processes
from hearback.engine.launch.jobs import Ended, Job
from hearback.engine.machine import count_processors

POLL_SECONDS = 0.1


def assign_gpus(gpus: Sequence[int], n_jobs: int) -> list[str]:
    """Return the CUDA_VISIBLE_DEVICES of each of `n_jobs` slots.

    `gpus` are numbered as in torch: among those that CUDA_VISIBLE_DEVICES already allows. Raises
    HearbackError for a GPU that torch does not see, that is listed twice, or that would be idle.
    """
    import torch  # noqa: PLC0415  (--help needs none)

    flag = f"--gpus {','.join(map(str, gpus))}"
    n_gpus = torch.cuda.device_count()
    if not all(0 <= gpu < n_gpus for gpu in gpus):
        raise HearbackError(f"{flag}: torch sees {n_gpus} GPUs here, counted from 0")
    if len(set(gpus)) < len(gpus):
        raise HearbackError(f"{flag}: list each once; --jobs sets how many trainings share them")
    if n_jobs < len(gpus):
        raise HearbackError(f"{flag} --jobs {n_jobs}: a GPU would be idle")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(gpu) for gpu in range(n_gpus)]
    return [names[gpus[slot % len(gpus)]] for slot in range(n_jobs)]


@dataclass
class _Running:
    job: Job
    slot: str | None
    process: Popen[bytes]
    started: float


class LocalLauncher:
    """Runs one job at a time in each of its slots.

    A slot is a GPU, as a value of CUDA_VISIBLE_DEVICES, listed once for each job that shares it;
    None leaves the environment unchanged. Only the main thread may start jobs and wait for them:
    they end when the thread that started them ends. `on_wait` is called with the running jobs while
    the launcher waits for them.
    """

    def __init__(
        self,
        slots: Sequence[str | None],
        on_wait: Callable[[Sequence[Job]], None] = lambda jobs: None,
    ) -> None:
        self._on_wait = on_wait
        self._n_slots = len(slots)
        self._free = list(slots)
        self._running: list[_Running] = []

    @property
    def has_room(self) -> bool:
        """Whether there is a free slot."""
        return bool(self._free)

    def start(self, job: Job) -> None:
        """Start a job on the free GPU with the fewest jobs."""
        slot = min(self._free, key=[running.slot for running in self._running].count)
        self._free.remove(slot)
        process = processes.start(job.arguments, environment=self._environment(slot), log=job.log)
        self._running.append(_Running(job, slot, process, time.monotonic()))
        if job.log is not None:
            where = "" if slot is None else f" on GPU {slot}"
            tqdm.write(f"{job}: started{where}, log in {job.log}")

    def _environment(self, slot: str | None) -> dict[str, str]:
        environment = dict(os.environ)
        if self._n_slots > 1:
            # Otherwise each of several trainings would start a thread for every core.
            n_threads = max(1, count_processors() // self._n_slots)
            environment.setdefault("OMP_NUM_THREADS", str(n_threads))
        if slot is not None:
            environment["CUDA_VISIBLE_DEVICES"] = slot
            # Number GPUs as nvidia-smi does; CUDA's default puts the fastest first.
            environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        return environment

    def wait(self) -> Ended:
        """Wait until a job has ended, and free its slot."""
        while True:
            for running in self._running:
                status = running.process.poll()
                if status is not None:
                    self._running.remove(running)
                    self._free.append(running.slot)
                    return Ended(running.job, status, time.monotonic() - running.started)
            self._on_wait([running.job for running in self._running])
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Stop the running jobs."""
        processes.stop(running.process for running in self._running)
