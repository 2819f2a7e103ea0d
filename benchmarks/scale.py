"""Measure the time and memory of each step on a simulated competition, by number of rows.

    nice python -m benchmarks.scale --work scale

The simulation has the size of the competition's training data: 38,095 recordings of 471 texts by
3,000 speakers. `--test_share` of them are also the test data. As in the competition, most texts are
one word; their number per task is a guess. A recording is one to ten seconds of noisy tone bursts
in digital silence, a few kilobytes of FLAC. Every fiftieth is at 8 kHz, to cause warnings.

Each step runs a script of the project as a user does, except training. Its replacement loads and
checks the training data, and writes folds of ten models with random predictions, and one fold of a
tiny model with random weights for infer.py.

CPU seconds include all processes of a step (`wait4`). Memory is sampled from /proc ten times a
second (Linux only), summed over a step's processes: private memory, and pages of files, which the
system can reclaim. `benchmarks.scale_cluster` has a million rows for `infer.py --launcher ray`.
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from tqdm import tqdm

from hearback.engine import cli
from hearback.engine.data.tables import write_table
from hearback.engine.errors import HearbackError
from hearback.engine.io import write_json
from hearback.reading.tables import GRADES

# Few imports here: the system reports at least this process's memory for the processes it starts.

ROOT = Path(__file__).parents[1]
Command = list[str | Path]  # arguments of python

N_ROWS = 38_095
N_SPEAKERS = 3_000
SIZES = [0.125, 0.25, 0.5, 1.0]
N_FOLDS = 6
N_MODELS = 10
SHARE_CORRECT = 0.6
SAMPLE_RATE = 16_000
EVERY_8_KHZ = 50
MAX_MINUTES, MAX_GIGABYTES = 5, 2
ONSETS = "b br ch d dr f fl g gr h j k kl l m n p pl r s sh sl sp st t th tr v w z"
VOWELS = "a ai e ea i o oa oo u ow"
CODAS = "b ck d f g ll m mp n nd p sh ss st t x"
MODEL = "modeltiny"  # for infer.py

# task: texts, share of the rows, median seconds of a recording
TASKS = {
    "deletion": (120, 0.35, 2.2),
    "blending": (120, 0.25, 2.2),
    "nonword_repetition": (150, 0.30, 2.0),
    "sentence_repetition": (81, 0.10, 4.5),
}


@dataclass(frozen=True)
class Cost:
    """The cost of one step; memory is the maximum over time, in megabytes."""

    step: str
    rows: int
    wall_seconds: float
    cpu_seconds: float
    own_megabytes: float
    file_megabytes: float


def main() -> None:
    """Simulate the data, run the steps and print the report."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--work", type=Path, default=Path("scale"), help="folder for all files; 6 GB")
    add("--rows", type=int, default=N_ROWS, help="number of rows of the training table")
    add("--sizes", type=float, nargs="+", default=SIZES, help="shares of the rows")
    add("--test_share", type=float, default=0.1, help="share of the rows that are test data")
    add("--seed", type=int, default=0, help="random seed")
    # Internal: run the replacement of training.
    add("--fake_training", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fake_training is not None:
        fake_training(arguments.fake_training, arguments.seed)
        return
    work, seed = arguments.work.absolute(), arguments.seed
    simulate_recordings(work / "audio", simulate_table(arguments.rows, seed), seed)
    costs = list(render(work, seed))
    for share in sorted(arguments.sizes):
        n_rows = round(share * arguments.rows)
        table = simulate_table(arguments.rows, seed).iloc[:n_rows]
        costs += run_steps(work, table, arguments.test_share, seed)
        write_json(work / "costs.json", [asdict(cost) for cost in costs])
    print(f"\n{report(costs)}")


def simulate_texts(rng: np.random.Generator) -> pd.DataFrame:
    """Return random expected texts (nonwords, and sentences of nonwords) with their tasks."""
    onsets, vowels, codas = ONSETS.split(), VOWELS.split(), CODAS.split()

    def word(n_syllables: int) -> str:
        parts = [onsets, vowels, codas] * n_syllables
        return "".join(str(rng.choice(part)) for part in parts)

    rows: dict[str, str] = {}
    for task, (n_texts, _, _) in TASKS.items():
        wanted = len(rows) + n_texts
        while len(rows) < wanted:
            n_words = int(rng.integers(4, 13)) if task == "sentence_repetition" else 1
            words = [word(1 if n_words > 1 else int(rng.integers(1, 3))) for _ in range(n_words)]
            rows.setdefault(" ".join(words), task)
    return pd.DataFrame({"expected_text": list(rows), "task": list(rows.values())})


def simulate_table(n_rows: int, seed: int) -> pd.DataFrame:
    """Return the metadata and scores of `n_rows` recordings."""
    rng = np.random.default_rng((seed, n_rows))
    texts = simulate_texts(np.random.default_rng(seed))
    shares = texts["task"].map(lambda task: TASKS[task][1] / TASKS[task][0]).to_numpy()
    chosen = texts.iloc[rng.choice(len(texts), size=n_rows, p=shares / shares.sum())]
    speakers = rng.integers(N_SPEAKERS, size=n_rows)
    return pd.DataFrame(
        {
            "filename": [f"audio/{number:06}.flac" for number in range(n_rows)],
            "task": chosen["task"].to_numpy(),
            "expected_text": chosen["expected_text"].to_numpy(),
            "grade": np.array(GRADES)[speakers % len(GRADES)],
            "speaker": [f"s{speaker}" for speaker in speakers],
            "score": (rng.random(n_rows) < SHARE_CORRECT).astype(float),
        }
    )


def simulate_recordings(folder: Path, table: pd.DataFrame, seed: int) -> None:
    """Write the missing recordings."""
    folder.mkdir(parents=True, exist_ok=True)
    present = {path.name for path in folder.iterdir()}
    rows = zip(table["filename"], table["task"], strict=True)
    for number, (filename, task) in enumerate(tqdm(rows, "recordings", len(table), unit="clip")):
        path = folder / Path(filename).name
        if path.name in present:
            continue
        rng = np.random.default_rng((seed, number))
        sample_rate = SAMPLE_RATE if number % EVERY_8_KHZ else SAMPLE_RATE // 2
        seconds = float(np.clip(rng.lognormal(math.log(TASKS[task][2]), 0.5), 1, 10))
        waveform = simulate_recording(seconds, sample_rate, rng)
        # Atomic, but without fsync: for 38,095 files that would take longer than everything else.
        temporary = path.with_suffix(".part")
        soundfile.write(temporary, waveform, sample_rate, "PCM_16", format="FLAC")
        temporary.replace(path)


def simulate_recording(seconds: float, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return tone bursts, a third of the time, in digital silence, (samples,) int16."""
    waveform = np.zeros(round(seconds * sample_rate), dtype=np.int16)
    burst = sample_rate // 10
    for start in range(0, len(waveform) - burst, 3 * burst):
        phase = 2 * np.pi * rng.uniform(100, 300) / sample_rate * np.arange(burst)
        tone = 6_000 * np.hanning(burst) * np.sin(phase + rng.normal(0, 0.1, burst))
        waveform[start : start + burst] = tone
    return waveform


def write_data(data: Path, recordings: Path, train: pd.DataFrame, test: pd.DataFrame) -> None:
    """Write a data folder: tables, and hard links to the recordings."""
    (data / "audio").mkdir(parents=True, exist_ok=True)
    for filename in {*train["filename"], *test["filename"]}:
        link = data / filename
        if not link.exists():
            link.hardlink_to(recordings / link.name)
    write_table(train.drop(columns="score"), data / "train_metadata.csv")
    write_table(train[["filename", "score"]], data / "train_labels.csv")
    write_table(test.drop(columns="score"), data / "test_metadata.csv")
    write_table(test[["filename"]].assign(score=0.0), data / "submission_format.csv")


def render(work: Path, seed: int) -> Iterator[Cost]:
    """Render every text and two hard negatives of each, from a table with a row per text."""
    texts = simulate_texts(np.random.default_rng(seed))
    numbers = range(len(texts))
    table = texts.assign(
        filename=[f"audio/{number:06}.flac" for number in numbers],
        grade=[GRADES[number % 4] for number in numbers],
        speaker=[f"s{number}" for number in numbers],
        score=[float(number % 2) for number in numbers],
    )
    folder = work / "texts"
    write_data(folder / "data", work / "audio", table, table.iloc[:1])
    for name, jobs in (("preprocess.py --jobs 1", ["--jobs", "1"]), ("preprocess.py", [])):
        shutil.rmtree(work / "tts_data", ignore_errors=True)
        shutil.rmtree(folder / "store", ignore_errors=True)
        folders: Command = ["--data", folder / "data", "--store", folder / "store"]
        command: Command = ["preprocess.py", *folders, "--tts_data", work / "tts_data", *jobs]
        yield run(f"{name}: references", len(table), command, work)


def run_steps(work: Path, table: pd.DataFrame, test_share: float, seed: int) -> Iterator[Cost]:
    """Run every step on a training table, and infer.py on a share of it."""
    n_rows = len(table)
    folder = work / f"rows{n_rows}"
    test = table.iloc[: max(1, round(test_share * n_rows))]
    print(f"\n{n_rows} rows, {len(test)} of them as test data", flush=True)
    write_data(folder / "data", work / "audio", table, test)
    assets, config = folder / "assets", folder / "model_configs.json"
    data: Command = ["--data", folder / "data"]
    folders: Command = [*data, "--tts_data", work / "tts_data", "--store", folder / "store"]
    trained: Command = [*data, "--assets", assets]
    preprocess: Command = ["preprocess.py", *folders]
    yield run("preprocess.py", n_rows + len(test), preprocess, work)
    yield run("preprocess.py again", n_rows + len(test), preprocess, work)
    training: Command = ["-m", "benchmarks.scale", "--fake_training", folder, "--seed", str(seed)]
    yield run("training's start and end", n_rows, training, work)
    models = [f"modelsim{number}" for number in range(N_MODELS)]
    # Status 1 means that a fold is an outlier: with random scores, one may be.
    yield run("check_models.py", n_rows, ["check_models.py", *trained], work, accepted=(0, 1))
    ten: Command = ["get_config.py", *trained, "--config", folder / "ten.json", "--models", *models]
    yield run("get_config.py", n_rows, ten, work)
    one: Command = ["get_config.py", *trained, "--config", config, "--models", MODEL]
    run("get_config.py", n_rows, one, work)
    submission = folder / "submission.csv"
    infer: Command = ["infer.py", *folders, "--assets", assets, "--config", config]
    infer += ["--device", "cpu", "--submission", submission]
    yield run("infer.py", len(test), infer, work)
    if len(submission.read_text().splitlines()) != len(test) + 1:
        raise HearbackError(f"{submission}: number of lines differs from the rows")
    shutil.rmtree(folder)


def run(step: str, rows: int, command: Command, work: Path, accepted: Sequence[int] = (0,)) -> Cost:
    """Run and measure a script of the project; its output goes to `steps.log`.

    Raises HearbackError if its exit status is not in `accepted`.
    """
    started = time.monotonic()
    with (work / "steps.log").open("ab") as log:
        log.write(f"\n== {step}, {rows} rows\n".encode())
        log.flush()
        process = subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
        with memory_of(process.pid) as peak:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in accepted:
        raise HearbackError(f"{step} ended with {process.returncode}: see {log.name}")
    wall, cpu = time.monotonic() - started, usage.ru_utime + usage.ru_stime
    cost = Cost(step, rows, wall, cpu, peak["own"] / 1e6, peak["file"] / 1e6)
    print(
        f"{step}: {cost.wall_seconds:.1f} s, {cost.cpu_seconds:.1f} CPU s, "
        f"{cost.own_megabytes:.0f} MB and {cost.file_megabytes:.0f} MB of files",
        flush=True,
    )
    return cost


@contextmanager
def memory_of(pid: int) -> Iterator[dict[str, int]]:
    """Yield the peak memory, in bytes, of a process and its descendants during the block.

    "own" is private memory, "file" the resident pages of files.
    """
    peak = {"own": 0, "file": 0}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            own = file = 0
            for process in process_tree(pid):
                memory = resident(process)
                own += memory.get("RssAnon", 0) + memory.get("RssShmem", 0)
                file += memory.get("RssFile", 0)
            peak["own"] = max(peak["own"], own)
            peak["file"] = max(peak["file"], file)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def process_tree(pid: int) -> list[int]:
    """Return the ids of a process and all its descendants."""
    found = [pid]
    for parent in found:  # grows during the loop
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:  # it has ended
            continue
    return found


def resident(pid: int) -> dict[str, int]:
    """Return a process's resident memory by kind, in bytes; empty if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":") for line in lines if line.startswith("Rss"))
    return {name: 1024 * int(value.split()[0]) for name, value in pairs}


def report(costs: Sequence[Cost]) -> str:
    """Return the costs as a Markdown table, and the steps that exceed the limits."""
    lines = [
        "| step | rows | seconds | CPU seconds | own MB | MB of files | growth |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    faults = []
    previous: dict[str, Cost] = {}
    steps = [cost.step for cost in costs]
    for cost in sorted(costs, key=lambda cost: (steps.index(cost.step), cost.rows)):
        growth = ""
        if before := previous.get(cost.step):
            slope = math.log(cost.cpu_seconds / before.cpu_seconds)
            slope /= math.log(cost.rows / before.rows)
            growth = f"{slope:.2f}"
            if slope > 1.15:
                faults.append(f"{cost.step} grows as rows^{slope:.2f} to {cost.rows} rows")
        previous[cost.step] = cost
        if cost.wall_seconds > 60 * MAX_MINUTES:
            faults.append(f"{cost.step} takes {cost.wall_seconds / 60:.1f} min: {cost.rows} rows")
        if cost.own_megabytes > 1000 * MAX_GIGABYTES:
            faults.append(f"{cost.step} needs {cost.own_megabytes:.0f} MB: {cost.rows} rows")
        lines.append(
            f"| {cost.step} | {cost.rows} | {cost.wall_seconds:.1f} | {cost.cpu_seconds:.1f} | "
            f"{cost.own_megabytes:.0f} | {cost.file_megabytes:.0f} | {growth} |"
        )
    limits = f"{MAX_MINUTES} minutes or {MAX_GIGABYTES} GB, or grows faster than the rows"
    return "\n".join([*lines, "", *(faults or [f"Nothing takes more than {limits}."])])


def fake_training(folder: Path, seed: int) -> None:
    """Load the training data as a training does, and write folds with random predictions.

    Ten models have all folds and share tiny random weights; `MODEL`, for infer.py, has one fold.
    """
    import torch  # noqa: PLC0415  (in the step's own process only)

    from hearback.engine.training.fold_files import FoldFiles, save_fold  # noqa: PLC0415
    from hearback.engine.whisper.encoder import EncoderConfig  # noqa: PLC0415
    from hearback.reading.dataset import load_training_data  # noqa: PLC0415
    from hearback.reading.models.scorers import build  # noqa: PLC0415
    from train_model2s import RECIPE  # noqa: PLC0415

    folders = folder / "data", folder.parent / "tts_data", folder / "store"
    data = load_training_data(*folders, n_folds=N_FOLDS)
    shape = EncoderConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64, num_mel_bins=80
    ).as_dict()
    torch.manual_seed(seed)
    weights = build(RECIPE, shape, None, None).state_dict()
    (folder / "assets").mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 1, len(data.labels))  # per clip, shared by all models
    recipe = RECIPE.as_dict()
    for model in [MODEL, *(f"modelsim{number}" for number in range(N_MODELS))]:
        logits = (2 * data.labels - 1) * 1.5 + difficulty + rng.normal(0, 1, len(data.labels))
        predictions = 1 / (1 + np.exp(-logits))
        columns = {"filename": data.source.filenames, "score": data.labels, "pred": predictions}
        table = pd.DataFrame(columns)
        for fold in range(1 if model == MODEL else N_FOLDS):
            held_out = data.folds == fold
            fold_metadata = {
                "recipe": {**recipe, "name": model},
                "recipe_fingerprint": model,
                "data_fingerprint": data.fingerprint,
                "n_folds": N_FOLDS,
                "group_by": None,
                "limit": None,
                "base_rate": float(data.labels[~held_out].mean()),
                "retrain_command": f"python train_{model}.py --fold {fold} --attempt 2",
                "epochs": [{"epoch": 1, "validation_log_loss": 0.5}],
                "n_validation": int(held_out.sum()),
                "seconds": 1.0,
                "voice": data.source.references.voice,
                "shape": shape,
                "tokenizer": None,
            }
            files = FoldFiles(folder / "assets", model, fold)
            save_fold(files, weights, table[held_out], fold_metadata)


if __name__ == "__main__":
    cli.run(main)
