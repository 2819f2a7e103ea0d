"""infer.py on a cluster: the tables of one process, with workers in this process.

`test_infer_on_ray` uses a true cluster.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from filelock import FileLock

from hearback.engine.data import tables
from hearback.engine.ensemble.calibration import Line
from hearback.engine.errors import HearbackError
from hearback.engine.project import ROOT
from hearback.engine.training import fold_archive
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference import batch_plan
from hearback.reading.inference.batch_plan import PlannedBatch
from hearback.reading.inference.cluster import checks, run, scoring, sums, usable
from hearback.reading.inference.cluster.shards import N_EVIDENCE, group_batches, slices
from hearback.reading.inference.cluster.worker import pack_evidence, unpack_evidence
from hearback.reading.inference.outputs import InferenceOptions
from hearback.reading.inference.submission import write_submission
from hearback.reading.scoring import decoder_evidence
from hearback.reading.scoring.decoder_evidence import DecoderEvidence
from hearback.reading.steps import infer
from hearback.reading.word_calibration import WordCalibration
from tests.helpers import environment_of_scripts, tone
from tests.reading.cluster_pool import LocalPool
from tests.reading.inference_data import write_ensemble
from train_model2ds import RECIPE as MEAN
from train_modeltok import RECIPE as TOKENS

OUTPUTS = ("submission.csv", "submission_problems.csv", "words.csv")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make chunks, shards and batches of a few rows, and use one thread as each worker does."""
    for module in (checks, sums, usable):
        monkeypatch.setattr(module, "CHUNK_ROWS", 5)
    monkeypatch.setattr(scoring, "SHARD_ROWS", 4)
    monkeypatch.setattr(scoring, "SHARDS_PER_WORKER", 1)
    monkeypatch.setitem(batch_plan.BATCH_SECONDS, "cpu", 4.0)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[LocalPool]:
    """The pools that were opened: all are stand-ins."""
    opened: list[LocalPool] = []

    def open_pool(*arguments: object, **settings: object) -> LocalPool:
        opened.append(LocalPool(*arguments, **settings))  # type: ignore[arg-type]
        return opened[-1]

    monkeypatch.setattr(run, "WorkerPool", open_pool)
    return opened


@pytest.fixture
def options(make_corpus: Callable[..., Path], tokenizer: Path) -> InferenceOptions:
    """Options to run models of two folds, with random weights, on a test set of 17 clips."""
    options = write_ensemble(make_corpus(n_test=17), tokenizer)
    config = EnsembleConfig.load(options.config)
    words = WordCalibration((TOKENS.name,), Line(), Line(), letters=0.5, complete_power=2.0)
    replace(config, combine="logits", words=words, words_weight=0.3).save(options.config)
    return replace(options, words=options.submission.with_name("words.csv"))


def on_cluster(options: InferenceOptions) -> InferenceOptions:
    """Run the options on the stand-in, with outputs and stores elsewhere; return its options."""
    folder = options.submission.parent / "cluster"
    folder.mkdir(exist_ok=True)
    own = replace(
        options,
        submission=folder / options.submission.name,
        words=None if options.words is None else folder / options.words.name,
        store=folder / "store",
    )
    run.write_submission(own, "local", n_cpus=1.0)
    assert not list(folder.glob(".sums-*"))
    return own


def read_outputs(options: InferenceOptions) -> dict[str, bytes]:
    """Return the tables that were written; where they are is the same for all runs."""
    folder = f"{options.submission.parent}/".encode()
    paths = [options.submission.with_name(name) for name in OUTPUTS]
    return {path.name: path.read_bytes().replace(folder, b"") for path in paths if path.exists()}


def check_equal(options: InferenceOptions, capsys: pytest.CaptureFixture[str]) -> dict[str, bytes]:
    """Check that a cluster writes and prints what one process does; return what it writes."""
    write_submission(options)
    printed = without_memory(capsys.readouterr().out)
    expected = read_outputs(options)
    own = on_cluster(options)
    by_cluster = without_memory(capsys.readouterr().out).replace("/cluster/", "/")
    assert by_cluster == printed
    folder = f"{options.submission.parent}/".encode()
    assert {n: c.replace(folder, b"") for n, c in read_outputs(own).items()} == expected
    return expected


def without_memory(printed: str) -> str:
    """Leave out which folds are loaded, and what memory they need: it is said by other means."""
    return "".join(
        line
        for line in printed.splitlines(keepends=True)
        if not re.search("weights of .* GB", line)
    )


def test_a_cluster_writes_the_tables_of_one_process_to_the_byte(
    options: InferenceOptions, pools: list[LocalPool], capsys: pytest.CaptureFixture[str]
) -> None:
    written = check_equal(options, capsys)
    assert set(written) == {"submission.csv", "words.csv"}
    (pool,) = pools
    assert pool.calls.count("decode") == 4
    assert pool.calls.count("score") > 4
    assert pool.is_closed
    # Formats in sequence, each with one copy a worker.
    assert [worker.n_loaded for worker in pool.workers] == [6, 6]


def test_each_batch_is_one_of_one_process(
    options: InferenceOptions, pools: list[LocalPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only the scores: a batch of other clips gives other bits on some machines."""
    del pools
    seen: list[tuple[str, ...]] = []
    collate = batch_plan.group_by_window

    def group(*arguments: object, **settings: object) -> Iterator[PlannedBatch]:
        for batch in collate(*arguments, **settings):  # type: ignore[arg-type]
            seen.append((str(batch.n_samples), *map(str, batch.indices)))
            yield batch

    monkeypatch.setattr(batch_plan, "group_by_window", group)
    write_submission(options)
    in_one, seen = seen, []
    monkeypatch.setattr(scoring, "group_by_window", group)
    on_cluster(options)
    assert sorted(seen) == sorted(in_one)
    assert len({len(batch) for batch in seen}) > 1


def test_problems_are_those_of_one_process(
    options: InferenceOptions, pools: list[LocalPool], capsys: pytest.CaptureFixture[str]
) -> None:
    data = options.data
    (data / "test000.wav").write_bytes(b"broken")
    (data / "test001.wav").unlink()
    (data / "test003.wav").rename(data / "TEST003.wav")
    (data / "test004.wav").rename(data / "test0004.wav")
    samples, rate = soundfile.read(data / "test005.wav")
    soundfile.write(data / "test005.wav", np.stack([samples, samples], axis=1), rate)
    soundfile.write(data / "test006.wav", tone(seconds=40.0), rate)
    table = data / "test_metadata.csv"
    lines = table.read_text().splitlines()
    lines[8] = lines[8].replace("test007", "../test007")
    lines[9] = lines[9].replace("deletion", "singing")
    lines.append(lines[6])  # test005 again, in a later chunk
    lines.append(lines[12].replace("test011", "test099"))
    lines[13] = "test012.wav,deletion,a text never rendered,KG,s1"
    table.write_text("\n".join(lines))
    written = check_equal(options, capsys)
    problems = pd.read_csv(options.submission.with_name(tables.PROBLEMS))
    whats = " ".join(problems["what"])
    for what in ("spelled otherwise than on disk", "leads out", "duplicated", "not scored"):
        assert what in whats, what
    assert "submission_problems.csv" in written
    assert pools[0].calls.count("decode") > 4  # some twice, with files


def test_statuses_are_those_of_one_process(
    options: InferenceOptions,
    pools: list[LocalPool],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del pools
    monkeypatch.setattr(decoder_evidence, "SURPRISE", -np.inf)
    monkeypatch.setattr(decoder_evidence, "CONFIDENCE", np.inf)
    written = check_equal(options, capsys)
    assert b"another_language_or_noise" in written["words.csv"]
    assert b"another_language_or_noise" in written["submission_problems.csv"]


def test_models_that_do_not_fit_together_run_one_after_another(
    options: InferenceOptions, pools: list[LocalPool], capsys: pytest.CaptureFixture[str]
) -> None:
    check_equal(replace(options, memory_gb=1e-9), capsys)
    assert [worker.n_loaded for worker in pools[0].workers] == [6, 6]


def test_a_table_without_usable_rows_has_base_rates(
    options: InferenceOptions, pools: list[LocalPool], capsys: pytest.CaptureFixture[str]
) -> None:
    for recording in options.data.glob("test*.wav"):
        recording.write_bytes(b"broken")
    check_equal(options, capsys)
    assert "score" not in pools[0].calls


def test_token_scorers_hear_long_recordings(
    make_corpus: Callable[..., Path],
    tokenizer: Path,
    pools: list[LocalPool],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Windows of up to 30 s, and scores corrected for the length of the text."""
    options = write_ensemble(make_corpus(n_test=8), tokenizer)
    config = EnsembleConfig.load(options.config)
    (token,) = [model for model in config.models if model.name == TOKENS.name]
    replace(config, combine="logits", models=(token,), voice=None).save(options.config)
    rng = np.random.default_rng(0)
    samples = np.concatenate([tone(hertz, 0.2) for hertz in rng.uniform(200, 400, 100)])
    soundfile.write(options.data / "test003.wav", samples, 16_000)
    table = options.data / "test_metadata.csv"
    long_text = " ".join(["a"] * 20)
    lines = table.read_text().splitlines()
    fields = lines[4].split(",")
    lines[4] = ",".join([*fields[:2], long_text, *fields[3:]])
    table.write_text("\n".join(lines))
    check_equal(options, capsys)
    assert "correct" in pools[0].calls


def test_without_a_word_scorer_the_words_are_left_out(
    options: InferenceOptions, pools: list[LocalPool], capsys: pytest.CaptureFixture[str]
) -> None:
    del pools
    config = EnsembleConfig.load(options.config)
    (mean,) = [model for model in config.models if model.name == MEAN.name]
    replace(config, models=(mean,), words=None, words_weight=0.0).save(options.config)
    assert b"--words" in check_equal(options, capsys)["submission_problems.csv"]


def test_a_failed_worker_leaves_base_rates(
    options: InferenceOptions, pools: list[LocalPool], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = next(options.assets.glob(f"{MEAN.name}_1*.safetensors"))
    shutil.copy(next(options.assets.glob(f"{TOKENS.name}_1*.safetensors")), weights)
    with pytest.raises(HearbackError, match=MEAN.name):
        on_cluster(options)
    folder = options.submission.parent / "cluster"
    assert len(pd.read_csv(folder / "submission.csv")) == 17
    assert "SCORING FAILED" in capsys.readouterr().err
    assert pools[0].is_closed
    assert not list(folder.glob(".sums-*"))


def test_published_predictions_are_refused_before_there_are_workers(
    options: InferenceOptions, pools: list[LocalPool], capsys: pytest.CaptureFixture[str]
) -> None:
    published = [*options.assets.glob("*.json"), *options.assets.glob("*.oof.csv")]
    fold_archive.write_archive(options.assets, {path.name: path.read_bytes() for path in published})
    for path in published:
        path.unlink()
    cure = r"published predictions, without weights.*python train_model\w+\.py.*score\.py"
    with pytest.raises(HearbackError, match=cure) as of_one_process:
        write_submission(options)
    with pytest.raises(HearbackError, match=cure) as raised:
        on_cluster(options)
    assert str(raised.value) == str(of_one_process.value)
    assert not pools
    folder = options.submission.parent / "cluster"
    assert len(pd.read_csv(folder / "submission.csv")) == 17
    assert capsys.readouterr().err.count("SCORING FAILED") == 2


def test_a_store_that_another_run_uses_is_refused(
    options: InferenceOptions, pools: list[LocalPool]
) -> None:
    lock = options.submission.parent / "cluster" / "store" / ".cluster.lock"
    lock.parent.mkdir(parents=True)
    with (
        FileLock(lock),
        pytest.raises(HearbackError, match="another folder with --store") as raised,
    ):
        on_cluster(options)
    assert str(raised.value).startswith(f"{lock}: another infer.py --launcher ray uses")
    assert not pools
    assert [path.name for path in lock.parent.parent.iterdir()] == ["store"]  # and no submission


def test_a_store_is_in_use_until_the_run_ends(
    options: InferenceOptions, pools: list[LocalPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def submit(*_: object) -> None:
        with pytest.raises(HearbackError, match="uses this store") as raised:
            on_cluster(options)
        refused.append(raised.value)

    monkeypatch.setattr(run, "submit", submit)
    on_cluster(options)
    on_cluster(options)  # the first one has ended
    assert len(refused) == len(pools) == 2


def test_flags_that_a_cluster_lacks_are_refused(options: InferenceOptions) -> None:
    for changes in ({"time_limit": 60.0}, {"divergences": options.submission}):
        with pytest.raises(HearbackError, match="only with --launcher local"):
            run.write_submission(replace(options, **changes), "local")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--address local", "--address: only with --launcher ray"),
        ("--launcher ray --page x.html", "report.* writes it afterwards"),
        ("--launcher ray --plan", "it measures this machine"),
        ("--launcher ray --gpu_share 2", "from 0 to 1"),
        ("--launcher ray --cpus_per_worker 0", "above 0"),
        ("--launcher ray --device cpu --gpu_share 1", "exactly one GPU"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    flags: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["infer.py", *flags.split()])
    with pytest.raises(HearbackError, match=message):
        infer.main()


def test_the_command_line_describes_the_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[InferenceOptions, dict[str, object]]] = []
    monkeypatch.setattr(
        run, "write_submission", lambda options, **cluster: seen.append((options, cluster))
    )
    flags = f"--launcher ray --jobs 3 --cpus_per_worker 2 --device cpu --submission {tmp_path}/x"
    monkeypatch.setattr(sys, "argv", ["infer.py", *flags.split()])
    infer.main()
    monkeypatch.setattr(sys, "argv", ["infer.py", "--launcher", "ray"])
    infer.main()
    (on_cpus, of_cpus), (on_gpus, of_gpus) = seen
    assert (on_cpus.device, on_gpus.device) == ("cpu", "cuda")
    at = {"address": "auto"}
    assert of_cpus == {**at, "n_cpus": 2.0, "gpu_share": 0.0, "n_workers": 3}
    assert of_gpus == {**at, "n_cpus": None, "gpu_share": 1.0, "n_workers": None}


def test_the_process_that_writes_the_tables_imports_no_torch() -> None:
    code = (
        "import sys, hearback.reading.steps.infer, hearback.reading.inference.cluster.run; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment_of_scripts(),
        cwd=ROOT,
        check=True,
    )
    assert done.stdout == "False\n"


def test_batches_are_grouped_whole() -> None:
    batches = [PlannedBatch([4, 0], 9, 2), PlannedBatch([1], 8, 1), PlannedBatch([2, 3], 7, 2)]
    grouped = list(group_batches(iter(batches), 3))
    assert [rows.tolist() for rows, _ in grouped] == [[4, 0, 1], [2, 3]]
    assert [[batch.indices for batch in members] for _, members in grouped] == [
        [[0, 1], [2]],
        [[0, 1]],
    ]
    assert list(slices(5, 2)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert re.fullmatch("[a-z.]+:[A-Za-z]+", run.WORKER)


def test_evidence_is_packed_without_times() -> None:
    times = np.zeros((2, 2))
    evidence = {
        1: DecoderEvidence(2, -0.5, 6.0, -2.0, True, times),
        3: DecoderEvidence(1, -9, 1, -1),
    }
    packed = pack_evidence(evidence, 5)
    assert packed.shape == (5, N_EVIDENCE) and np.isnan(packed[[0, 2, 4]]).all()
    assert unpack_evidence(packed) == {
        row: replace(each, times=None) for row, each in evidence.items()
    }
