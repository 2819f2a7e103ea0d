"""What it gives that the C library keeps freed memory (`hearback.engine.malloc.keep_freed_memory`).

    python -m benchmarks.kept_memory

Trains a joined comparison of whisper-tiny's shape on noise, and scores noise with its encoder, in
windows of three lengths, on one thread. How malloc works is a whole process's: every turn is a
process of its own, with freed memory kept or not, in turn.
"""

import json
import os
import subprocess
import sys
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F

from benchmarks.harness import CLOCKS, Side, Turn, compare, machine, take_turn
from hearback.engine import cli
from hearback.engine.devices import compute_dtype, mixed_precision, peak_memory_gb
from hearback.engine.errors import HearbackError
from hearback.engine.launch.processes import ROOT
from hearback.engine.malloc import keep_freed_memory, rules_malloc
from hearback.engine.whisper.encoder import SAMPLES_PER_FRAME, EncoderShape
from hearback.reading.models.scorers import Scorer, build
from hearback.reading.window_batches import Batch
from train_model2ds import RECIPE

TINY = EncoderShape(384, 4, 6, 1536, 80)
FRAMES = (160, 320, 800)  # of a window: 3.2, 6.4 and 16 s
CPU = torch.device("cpu")
SIDES = ("kept", "given back")


def main() -> None:
    """Time what the command line asks for, and print the table."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="timed turns of each side")
    add("--seconds", type=float, default=3.0, help="that a turn lasts at least")
    add("--clock", choices=tuple(CLOCKS), default="cpu", help="cpu counts processor seconds")
    add("--frames", nargs="+", type=int, default=list(FRAMES), help="lengths of windows")
    add("--turn", choices=SIDES, help="only this side's turn, as JSON (for the turns themselves)")
    asked = parser.parse_args()
    if asked.turn is not None:
        if asked.turn == "kept" and not keep_freed_memory():
            raise HearbackError(
                "this C library's malloc is not glibc's, or the environment rules it"
            )
        torch.set_num_threads(1)
        print(json.dumps(turns(asked.frames, asked.seconds, asked.clock)))
        return
    print(machine(), flush=True)
    print(cli.as_text(table(asked.frames, asked.seconds, asked.rounds, asked.clock)))


def table(frames: list[int], seconds: float, n_rounds: int, clock: str) -> pd.DataFrame:
    """Return a row per work and window: clips a second on either side, and their ratio."""
    rounds: dict[str, list[dict[str, list[float]]]] = {side: [] for side in SIDES}
    for number in range(n_rounds):
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            rounds[side].append(take_turns_apart(side, frames, seconds, clock))
    lines = {}
    for name in rounds[SIDES[0]][0]:
        kept, given_back = (
            [Turn(amount=of_round[name][0], flops=0.0, seconds=1.0) for of_round in rounds[side]]
            for side in SIDES
        )
        result = compare(kept, given_back, "clips/s")
        lines[name] = {
            "kept": result.ours,
            "given back": result.baseline,
            "ratio": result.ratio,
            "low": result.low,
            "high": result.high,
            **{
                f"{side}: GB": max(of_round[name][1] for of_round in rounds[side]) for side in SIDES
            },
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("clips/s")


def take_turns_apart(
    side: str, frames: list[int], seconds: float, clock: str
) -> dict[str, list[float]]:
    """Return what `turns` does in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.kept_memory", "--turn", side]
    command += ["--seconds", str(seconds), "--clock", clock, "--frames", *map(str, frames)]
    plain = {name: value for name, value in os.environ.items() if not rules_malloc(name)}
    done = subprocess.run(command, cwd=ROOT, env=plain, check=True, stdout=subprocess.PIPE)
    rates: dict[str, list[float]] = json.loads(done.stdout)
    return rates


def turns(frames: list[int], seconds: float, clock: str) -> dict[str, list[float]]:
    """Return by work and window the clips a second, and the most memory held until then, in GB."""
    torch.manual_seed(0)
    model = build(RECIPE, TINY.as_config())
    results = {}
    for n_frames in frames:
        batch = noise(RECIPE.batch_size, n_frames)
        for name, work in (("score", score), ("train", learn)):
            side = Side(name, partial(work, model, batch), least_seconds=seconds)
            side.run()
            rate = take_turn(side, CLOCKS[clock]).rate
            window = f"{n_frames * SAMPLES_PER_FRAME / 16_000:.1f} s"
            results[f"{name}, windows of {window}"] = [rate, peak_memory_gb(CPU)]
    return results


def noise(n_clips: int, n_frames: int) -> Batch:
    """Return clips of noise that fill their window."""
    return Batch(
        waveforms=0.05 * torch.randn(n_clips, n_frames * SAMPLES_PER_FRAME),
        n_frames=torch.full((n_clips,), n_frames),
        context=torch.zeros(n_clips, 2),
        labels=torch.arange(n_clips) % 2 * 1.0,
        rows=torch.arange(n_clips),
        is_negative=torch.zeros(n_clips, dtype=torch.bool),
    )


def score(model: Scorer, batch: Batch) -> float:
    """Score a batch; return the number of clips."""
    model.eval()
    with torch.inference_mode(), mixed_precision(CPU, compute_dtype(CPU)):
        model(batch)
    return float(len(batch))


def learn(model: Scorer, batch: Batch) -> float:
    """Go forward and back once; return the number of clips."""
    model.train()
    model.zero_grad()
    with mixed_precision(CPU, compute_dtype(CPU)):
        logits, others = model.learn(batch)
    losses = F.binary_cross_entropy_with_logits(logits, batch.labels)
    (losses + others).backward()
    return float(len(batch))


if __name__ == "__main__":
    cli.run(main)
