"""Workers that hold an object, on a Ray cluster of two nodes, both on this machine."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from hearback.engine.errors import HearbackError
from hearback.engine.launch import pool
from hearback.engine.launch.cluster import import_ray
from hearback.engine.launch.pool import WorkerPool, WorkerResources

OBJECT = "tests.engine.pool_objects:Counter"

Open = Callable[..., WorkerPool]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Start a cluster of two nodes with one processor each, and yield its address."""
    pytest.importorskip("ray")
    ray = import_ray()
    from ray.cluster_utils import Cluster

    settings: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # as Ray sets it, but only where it is not set
        machines = Cluster(
            initialize_head=True, head_node_args={**settings, "include_dashboard": False}
        )
        machines.add_node(**settings)
        yield machines.address
        ray.shutdown()  # a failed test may still be connected
        machines.shutdown()


@pytest.fixture
def open_pool(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open pools in the test's folder, and close them."""
    monkeypatch.chdir(tmp_path)
    with ExitStack() as opened:

        def make(resources: WorkerResources | None = None, **settings: Any) -> WorkerPool:
            made = WorkerPool(
                address,
                factory=OBJECT,
                arguments=("counter",),
                shared=tmp_path / "shared",
                resources=resources or WorkerResources(),
                **settings,
            )
            return opened.enter_context(closing(made))

        yield make


def start_both(opened: WorkerPool) -> list[Any]:
    """Call the two workers until both are up; return the results of these calls."""
    results = []
    for _ in range(1000):
        both = [result for _, result in opened.map("square", range(2))]
        results += both
        if both[0][1] != both[1][1]:  # their processes
            return results
    raise AssertionError("only one worker took tasks")


@pytest.mark.slow
def test_each_worker_makes_its_object_once_and_takes_tasks_when_it_is_free(
    open_pool: Open, tmp_path: Path
) -> None:
    opened = open_pool()
    assert (opened.n_workers, opened.n_cpus) == (2, 1)
    earlier = start_both(opened)
    ahead, n_taken, n_done = [], 0, 0

    def numbers() -> Iterator[int]:
        nonlocal n_taken
        for number in range(12):
            n_taken += 1
            ahead.append(n_taken - n_done)
            yield number

    results = {}
    for number, result in opened.map("square", numbers()):
        n_done += 1
        results[number] = result
    assert {number: result[0] for number, result in results.items()} == {
        number: number**2 for number in range(12)
    }
    assert max(ahead) <= 3  # one for each worker, and the next
    processes = {result[1] for result in results.values()}
    assert len(processes) == 2
    for process in processes:
        of_all = [*earlier, *results.values()]
        n_calls = [result[2] for result in of_all if result[1] == process]
        assert sorted(n_calls) == list(range(1, len(n_calls) + 1))
    assert {result[3] for result in results.values()} == {f"counter 1 1 {tmp_path}"}
    opened.close()
    assert not list((tmp_path / "shared").iterdir())


@pytest.mark.slow
def test_the_task_of_a_lost_worker_runs_again(
    open_pool: Open, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = open_pool()
    tasks = [(number, tmp_path) for number in range(12)]
    done = [result for _, result in opened.map("die_once", tasks)]
    assert sorted(done) == list(range(12))
    assert capsys.readouterr().out.count("a worker was lost") == 1
    assert opened.call("square", 4)[0] == 16


@pytest.mark.slow
def test_a_task_that_kills_its_workers_is_an_error(
    open_pool: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_ATTEMPTS", 2)
    with pytest.raises(HearbackError, match=r"a shard lost 2 workers: .*--cpus_per_worker"):
        open_pool().call("die")


@pytest.mark.slow
def test_errors_are_one_line(open_pool: Open) -> None:
    opened = open_pool(WorkerResources(n_workers=1))
    with pytest.raises(HearbackError, match=r"^x: cannot be done; do it otherwise$"):
        opened.call("refuse", "x")
    opened.close()
    with pytest.raises(HearbackError, match=r"failed \(crash\): ValueError: y;.* log") as raised:
        open_pool(WorkerResources(n_workers=1)).call("crash", "y")
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_machine_without_a_needed_folder_is_an_error(open_pool: Open, tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match=f"does not see {tmp_path / 'data'}: share the folder"):
        open_pool(needed=[Path("data")]).call("square", 1)


@pytest.mark.slow
def test_a_warning_if_no_machine_has_the_resources(
    open_pool: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    open_pool(WorkerResources(n_cpus=64))
    assert "no machine of the cluster has 64 CPUs and 0 GPUs now" in capsys.readouterr().out


def test_without_a_cluster_nothing_is_left_behind(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(HearbackError, match=r"no Ray .* ray start --head"):
        WorkerPool(
            "127.0.0.1:9",
            factory=OBJECT,
            arguments=(),
            shared=tmp_path / "shared",
            resources=WorkerResources(),
        )
    assert not (tmp_path / "shared").exists()


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (WorkerResources(), (4, 1 + 2)),  # all of the smallest machine
        (WorkerResources(n_cpus=2), (2, 2 + 4)),
        (WorkerResources(n_cpus=0.5, gpu_share=1), (0.5, 2)),
        (WorkerResources(gpu_share=0.5), (1, 4)),
        (WorkerResources(n_cpus=64), (64, 0)),
    ],
)
def test_workers_are_as_many_as_the_machines_have_room_for(
    resources: WorkerResources, expected: tuple[float, int]
) -> None:
    machines = [{"CPU": 4.0}, {"CPU": 8.0, "GPU": 2.0}, {"memory": 1.0}]
    assert resources.complete(machines) == expected
