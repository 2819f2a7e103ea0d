"""Run jobs on a Ray cluster with machines that share their folders."""

import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from hearback.engine.errors import HearbackError
from hearback.engine.launch import processes
from hearback.engine.launch.jobs import Ended, Job, wait_until_free

CONNECT_SECONDS = 10.0
POLL_SECONDS = 1.0
MAX_ATTEMPTS = 5  # after so many lost workers, the job itself is at fault


def import_ray() -> Any:  # noqa: ANN401  (a module)
    """Return the module `ray`. Raises HearbackError if it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Jobs without a GPU have --device cpu; Ray need not hide the GPUs, which it would warn about.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: PLC0415  (optional)
    except ImportError:
        raise HearbackError(
            "--launcher ray needs Ray: python -m pip install -r requirements/ray.txt"
        ) from None
    return ray


def _check_address(address: str) -> None:
    """Raise HearbackError if nothing listens at the address; Ray would wait for a long time."""
    if address in ("auto", "local"):
        return
    url = urlsplit(address if "://" in address else f"//{address}")
    try:
        socket.create_connection((url.hostname, url.port), CONNECT_SECONDS).close()
    except (OSError, ValueError, TypeError) as error:
        raise HearbackError(_no_cluster(address, error)) from None


def _no_cluster(address: str, error: Exception) -> str:
    return (
        f"--address {address}: no Ray cluster ({error}); start one with ray start --head, or use "
        "--address local"
    )


def connect(address: str) -> Any:  # noqa: ANN401  (a module)
    """Connect to a cluster and return the module `ray`; `RayLauncher` says what addresses are.

    Raises HearbackError if Ray is not installed, or no cluster answers.
    """
    ray = import_ray()
    _check_address(address)
    # Little is transferred: exit statuses, or the scores of a few rows.
    local = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    try:
        ray.init(address, log_to_driver=False, **(local if address == "local" else {}))
    except ConnectionError as error:
        raise HearbackError(_no_cluster(address, error)) from None
    return ray


def make_probe(folder: Path) -> Path:
    """Return a new empty file in a folder, which is made.

    Another machine may have a folder of the same name that is not shared: it lacks this file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".shared-", dir=folder.absolute())
    os.close(descriptor)
    return Path(name)


def live_machines(ray: Any) -> list[dict[str, float]]:  # noqa: ANN401  (a module)
    """Return the resources of each machine of a cluster, such as {"CPU": 8, "GPU": 1}."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class RayLauncher:
    """Submits jobs to a Ray cluster, each with `n_cpus` CPUs and `gpu_share` of a GPU.

    `address` is Ray's: "auto" (RAY_ADDRESS, or the cluster of this machine), "local" (a cluster
    that ends with this object), or a host and port. The cluster's machines must have the current
    folder, the `needed` paths and `assets` at the same paths as this machine. At most `n_at_once`
    jobs are submitted at once; None leaves queueing to the cluster. A job whose worker dies is
    submitted again. `on_wait` is called with the submitted jobs, again and again while the launcher
    waits for them.
    """

    def __init__(
        self,
        address: str,
        *,
        assets: Path,
        needed: Sequence[Path] = (),
        n_at_once: int | None = None,
        n_cpus: float = 1,
        gpu_share: float = 0,
        on_wait: Callable[[Sequence[Job]], None] = lambda jobs: None,
    ) -> None:
        self._on_wait = on_wait
        self._ray = connect(address)
        self._ray.cloudpickle.register_pickle_by_value(processes)
        self._task = self._ray.remote(processes.run_on_shared_folders).options(
            num_cpus=n_cpus, num_gpus=gpu_share, max_retries=0
        )
        self._n_at_once = n_at_once
        self._running: dict[Any, Job] = {}
        self._attempts: dict[Job, int] = {}
        self._assets = assets
        self._folder = Path.cwd()
        self._probe = make_probe(assets)
        self._needed = [*(path.absolute() for path in needed), self._probe]
        self._warn_if_no_machine_fits(n_cpus, gpu_share)

    def _warn_if_no_machine_fits(self, n_cpus: float, gpu_share: float) -> None:
        """Warn if no machine can run a job: the jobs wait until one joins that can."""
        wanted = {"CPU": n_cpus, "GPU": gpu_share}
        machines = live_machines(self._ray)
        if not any(all(m.get(kind, 0) >= n for kind, n in wanted.items()) for m in machines):
            print(
                f"no machine of the cluster has {n_cpus:g} CPUs and {gpu_share:g} GPUs now: the "
                "folds wait until one joins (lower --cpus_per_fold or --gpu_share, or use "
                "--device cpu)"
            )

    @property
    def has_room(self) -> bool:
        """Whether another job may be submitted."""
        return self._n_at_once is None or len(self._running) < self._n_at_once

    def start(self, job: Job) -> None:
        """Submit a job; it runs when the cluster has free resources."""
        assert job.log is not None  # a cluster has no terminal
        log = job.log.absolute()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        reference = self._task.remote(job.arguments, self._folder, [*self._needed, log], log)
        self._running[reference] = job
        self._attempts[job] = self._attempts.get(job, 0) + 1
        tqdm.write(f"{job}: submitted to the cluster, log in {job.log}")

    def wait(self) -> Ended:
        """Wait until a job has ended; a job whose worker died is submitted again."""
        errors = self._ray.exceptions
        while True:
            ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=POLL_SECONDS)
            if not ended:
                self._on_wait(list(self._running.values()))
                continue
            (reference,) = ended
            job = self._running.pop(reference)
            try:
                status, seconds = self._ray.get(reference)
            except errors.RayTaskError as error:  # the machine could not start it
                return Ended(job, f"not started: {error.cause!r}", float("nan"))
            except errors.RayError as error:
                why = str(error).partition("\n")[0]
                if self._attempts[job] == MAX_ATTEMPTS:
                    return Ended(job, f"lost {MAX_ATTEMPTS} workers: {why}", float("nan"))
                tqdm.write(f"{job}: lost its worker ({why})")
                wait_until_free(job, self._assets)
                self.start(job)
            else:
                return Ended(job, status, seconds)

    def close(self) -> None:
        """Cancel the remaining jobs, and disconnect from the cluster."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        self._ray.shutdown()
        self._probe.unlink(missing_ok=True)
