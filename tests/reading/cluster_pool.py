"""A stand-in for the workers of a cluster: objects in this process, one of which is lost."""

import importlib
import pickle
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from hearback.engine.launch.pool import WorkerResources

N_WORKERS = 2


class LocalPool:
    """Calls the objects of two workers in turn, and yields the results in another order.

    What is passed is pickled. The second task of each map is run by two workers, as if the first
    one had been lost.
    """

    def __init__(
        self,
        address: str,
        *,
        factory: str,
        arguments: tuple[Any, ...],
        resources: WorkerResources,
        **settings: object,
    ) -> None:
        del settings
        module, _, name = factory.partition(":")
        make = getattr(importlib.import_module(module), name)
        n_cpus, _ = resources.complete([{"CPU": 1.0}])
        self.workers = [make(*arguments, n_cpus) for _ in range(N_WORKERS)]
        self.n_workers = N_WORKERS
        self.calls: list[str] = []
        self.is_closed = False

    def call(self, method: str, argument: Any = None) -> Any:
        ((_, result),) = self.map(method, [argument])
        return result

    def map(self, method: str, arguments: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        fresh = iter(enumerate(arguments))
        while some := list(islice(fresh, N_WORKERS)):
            for number, argument in reversed(some):
                worker = self.workers[number % N_WORKERS]
                self.calls.append(method)
                payload = pickle.dumps(argument)
                if number == 1:
                    getattr(worker, method)(pickle.loads(payload))
                    worker = self.workers[0]
                result = getattr(worker, method)(pickle.loads(payload))
                yield argument, pickle.loads(pickle.dumps(result))

    def close(self) -> None:
        self.is_closed = True
