"""Trainings on the machines of a Ray cluster that share their folders."""

import os
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from hearback.engine.errors import HearbackError
from hearback.engine.launch import processes
from hearback.engine.launch.jobs import Ended, Job, wait_until_free

CONNECT_SECONDS = 10.0
MOST_SENDS = 5  # a job whose workers die so often is at fault itself


def import_ray() -> Any:  # noqa: ANN401  (a module)
    """Return the module `ray`; raises HearbackError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A job without a GPU says --device cpu; Ray need not hide the others (and warns that it does).
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: PLC0415  (nothing else needs it)
    except ImportError:
        raise HearbackError(
            "--launcher ray needs Ray: python -m pip install ray, in the version that "
            "requirements/ray.txt has"
        ) from None
    return ray


def _check_address(address: str) -> None:
    """Raise HearbackError where nothing listens at an address, for which Ray would wait long."""
    if address in ("auto", "local"):
        return
    url = urlsplit(address if "://" in address else f"//{address}")
    try:
        socket.create_connection((url.hostname, url.port), CONNECT_SECONDS).close()
    except (OSError, ValueError, TypeError) as error:
        raise HearbackError(_no_cluster(address, error)) from None


def _no_cluster(address: str, error: Exception) -> str:
    return (
        f"--address {address}: no Ray cluster ({error}); start one with ray start --head, or say "
        "--address local"
    )


class RayLauncher:
    """Sends jobs to a Ray cluster, each with so many CPUs and such a share of a GPU.

    `address` is Ray's: "auto" (the cluster that this machine belongs to, or RAY_ADDRESS), "local"
    (one that lives as long as this object), or a host and port. The cluster's machines must see
    the current folder, what is `needed`, and `assets` where this machine does. At most `n_at_once`
    jobs are there at once; None leaves it to the cluster, which keeps those that it has no room
    for. A job whose worker dies is sent again.
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
    ) -> None:
        self._ray = import_ray()
        _check_address(address)
        # Exit statuses are all that is sent.
        local = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
        try:
            self._ray.init(address, log_to_driver=False, **(local if address == "local" else {}))
        except ConnectionError as error:
            raise HearbackError(_no_cluster(address, error)) from None
        self._ray.cloudpickle.register_pickle_by_value(processes)
        self._task = self._ray.remote(processes.run_on_shared_folders).options(
            num_cpus=n_cpus, num_gpus=gpu_share, max_retries=0
        )
        self._n_at_once = n_at_once
        self._running: dict[Any, Job] = {}
        self._sends: dict[Job, int] = {}
        self._assets = assets
        self._folder = Path.cwd()
        assets.mkdir(parents=True, exist_ok=True)
        # Another machine may have a folder of the same name, but not with this file in it.
        descriptor, name = tempfile.mkstemp(prefix=".shared-", dir=assets.absolute())
        os.close(descriptor)
        self._probe = Path(name)
        self._needed = [*(path.absolute() for path in needed), self._probe]
        self._say_where_there_is_no_room(n_cpus, gpu_share)

    def _say_where_there_is_no_room(self, n_cpus: float, gpu_share: float) -> None:
        """Say where no machine could run a job, for jobs wait until one joins that can."""
        wanted = {"CPU": n_cpus, "GPU": gpu_share}
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(m.get(kind, 0) >= n for kind, n in wanted.items()) for m in machines):
            print(
                f"no machine of the cluster has {n_cpus:g} CPUs and {gpu_share:g} GPUs now: the "
                "folds wait until one joins (--cpus_per_fold, --gpu_share and --device cpu "
                "ask for less)"
            )

    @property
    def has_room(self) -> bool:
        """Whether another job may be sent."""
        return self._n_at_once is None or len(self._running) < self._n_at_once

    def start(self, job: Job) -> None:
        """Send a job; it runs when the cluster has room."""
        assert job.log is not None  # a terminal is not on the cluster
        log = job.log.absolute()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        reference = self._task.remote(job.arguments, self._folder, [*self._needed, log], log)
        self._running[reference] = job
        self._sends[job] = self._sends.get(job, 0) + 1
        tqdm.write(f"{job}: sent to the cluster, log in {job.log}")

    def wait(self) -> Ended:
        """Wait until one of the jobs has ended; one whose worker died is sent again."""
        errors = self._ray.exceptions
        while True:
            (reference,), _ = self._ray.wait(list(self._running), num_returns=1)
            job = self._running.pop(reference)
            try:
                status, seconds = self._ray.get(reference)
            except errors.RayTaskError as error:  # the machine could not even start it
                return Ended(job, f"not started: {error.cause!r}", float("nan"))
            except errors.RayError as error:
                why = str(error).partition("\n")[0]
                if self._sends[job] == MOST_SENDS:
                    return Ended(job, f"lost {MOST_SENDS} workers: {why}", float("nan"))
                tqdm.write(f"{job}: lost its worker ({why})")
                wait_until_free(job, self._assets)
                self.start(job)
            else:
                return Ended(job, status, seconds)

    def close(self) -> None:
        """End the jobs that are still there, and leave the cluster."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        self._ray.shutdown()
        self._probe.unlink(missing_ok=True)
