"""A worker of a cluster that waits, so that a test can take its node away while it scores."""

import os
import time
from pathlib import Path

from hearback.reading.inference.cluster.shards import Shard, ShardScores
from hearback.reading.inference.cluster.worker import ClusterWorker
from tests.helpers import wait_for

SIGN = "HEARBACK_TEST_SIGN"  # variable of a node: a file that exists once the other one scores
IS_LOST = "HEARBACK_TEST_IS_LOST"  # variable of the node that will be taken away
SECONDS = 300.0  # to wait at most


class WaitingWorker(ClusterWorker):
    """Scores once the worker of the node that will be lost has a shard too, which it never ends."""

    def score(self, shard: Shard) -> ShardScores:
        """As `ClusterWorker`."""
        sign = Path(os.environ[SIGN])
        if IS_LOST in os.environ:
            sign.touch()
            time.sleep(SECONDS)
            raise TimeoutError("this node was not taken away")
        wait_for(sign.exists, SECONDS)
        return super().score(shard)
