"""infer.py --launcher ray on a cluster of two nodes, both on this machine, one of them killed."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hearback.engine.ensemble.calibration import Line
from hearback.engine.launch.cluster import import_ray
from hearback.engine.project import ROOT
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.word_calibration import WordCalibration
from tests.helpers import environment_of_scripts, run_script, wait_for
from tests.reading.inference_data import write_ensemble
from tests.reading.waiting_worker import IS_LOST, SECONDS, SIGN
from train_modeltok import RECIPE as TOKENS

# As infer.py, with workers that wait, and says at the end whether this process has torch.
DRIVER = """
import sys
from hearback.reading.inference.cluster import run
from hearback.reading.steps.infer import main
run.WORKER = "tests.reading.waiting_worker:WaitingWorker"
main()
print("torch is imported:", "torch" in sys.modules)
"""
OUTPUTS = ("submission.csv", "submission_problems.csv", "word_scores.csv")


def read_outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


@contextmanager
def started(flags: list[str], printed: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start infer.py, which prints into a file, for the block: it is killed if it still runs."""
    with printed.open("wb") as file:
        running = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *flags],
            cwd=ROOT,
            env=environment_of_scripts(),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_writes_the_tables_of_one_process_to_the_byte(
    make_corpus: Callable[..., Path], tokenizer: Path
) -> None:
    pytest.importorskip("ray")
    ray = import_ray()
    from ray.cluster_utils import Cluster

    folder = make_corpus(n_test=300)
    options = write_ensemble(folder, tokenizer)
    config = EnsembleConfig.load(options.config)
    words = WordCalibration((TOKENS.name,), Line(), Line())
    replace(config, words=words).save(options.config)
    (options.data / "test007.wav").write_bytes(b"broken")
    flags = [f"--{name}={folder / name}" for name in ("data", "tts_data", "assets")]
    flags += [f"--config={options.config}", "--device=cpu", "--no_page", "--words"]

    def output_flags(name: str) -> list[str]:
        (folder / name).mkdir()
        return [f"--submission={folder / name}/submission.csv", f"--store={folder / name}/store"]

    run_script("infer.py", *flags, *output_flags("one"), folder=folder)
    sign = folder / "the second node scores"
    settings: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    first = {**settings, "include_dashboard": False, "env_vars": {SIGN: str(sign)}}
    machines = Cluster(initialize_head=True, head_node_args=first)
    try:
        second = machines.add_node(**settings, env_vars={SIGN: str(sign), IS_LOST: "1"})
        on_ray = ["--launcher=ray", f"--address={machines.address}", *output_flags("ray")]
        printed = folder / "printed"
        with started([*flags, *on_ray], printed) as running:
            wait_for(lambda: sign.exists() or running.poll() is not None, SECONDS)
            machines.remove_node(second, allow_graceful=False)
            status = running.wait(SECONDS)
    finally:
        ray.shutdown()
        machines.shutdown()
    text = printed.read_text()
    assert status == 0, text
    assert sign.exists()
    assert text.count("a worker was lost") == 1, text
    assert "torch is imported: False" in text
    assert read_outputs(folder / "ray") == read_outputs(folder / "one")
