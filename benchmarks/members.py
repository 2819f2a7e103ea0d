"""The time of many adapted token scorers on one backbone, against one that is trained whole.

    python -m benchmarks.members --data DATA --store STORE --backbone assets/whisper-tiny.en

Prints how many times as long as one full model the members take together: decoded jointly
(`hearback.engine.whisper.joint_decoding`), each alone, and with an encoder each, as full models
with nothing in common would. All sides take turns on the same recordings. Members have random
updates, for times do not depend on the weights.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.harness import CLOCKS, Side, Turn, compare, machine, take_turns, warm_up
from benchmarks.setting import threads
from hearback.engine import cli
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.devices import compute_dtype
from hearback.engine.malloc import keep_freed_memory
from hearback.engine.whisper.quantize import convert_weights
from hearback.engine.whisper.shared_layers import digest_stages
from hearback.reading.dataset import load_training_data
from hearback.reading.inference.batch_plan import batch_seconds, plan_batches
from hearback.reading.inference.model_group import ModelGroup
from hearback.reading.inference.predict import score_with_words
from hearback.reading.models.backbones import Backbone, WhisperBackbone
from hearback.reading.models.base import Scorer
from hearback.reading.models.scorers import build
from hearback.reading.pairs import PairSource
from hearback.reading.recipe import Recipe
from hearback.reading.words import count_positions
from train_modeltok import RECIPE as FULL
from train_modeltoklow import RECIPE as ADAPTED

CPU = torch.device("cpu")
Model = tuple[Scorer, list[str]]  # with the digests of its encoder's stages
UPDATE_STD = 0.02  # of the members' random updates


def main() -> None:
    """Time the sides and print the ratios."""
    arguments = parse()
    keep_freed_memory()
    source, rows = draw_clips(arguments)
    dtype = compute_dtype(CPU, arguments.precision)
    make = partial(make_model, backbone=WhisperBackbone(arguments.backbone), dtype=dtype)
    members = [make(ADAPTED, seed) for seed in range(arguments.members)]
    groups = {
        "one full model": make_group([make(FULL, 0)], dtype),
        "members, jointly": make_group(members, dtype, shared=True, joint_key="members"),
        "members, each decoded alone": make_group(members, dtype, shared=True),
        "members, nothing shared": make_group(members, dtype),
    }
    sides = [Side(name, partial(score, group, source, rows)) for name, group in groups.items()]
    with threads(arguments.threads):
        warm_up(sides)
        turns = take_turns(sides, arguments.rounds, CLOCKS[arguments.clock])
    print(f"{machine()}; {arguments.threads} threads, {dtype}, {arguments.clock} time")
    print(
        f"{describe_clips(source, rows)}; {arguments.members} members on {arguments.backbone.name}"
    )
    for side, of_side in zip(sides, turns, strict=True):
        print(describe(side.name, of_side, turns[0]))


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    declare(parser, clips=64)
    add = parser.add_argument
    add("--backbone", type=Path, default=Path("assets/whisper-tiny.en"), help="a Whisper")
    add("--members", type=cli.int_of_at_least(1), default=12, help="number of adapted models")
    add("--threads", type=cli.int_of_at_least(1), default=1, help="of torch")
    add("--clock", choices=CLOCKS, default="cpu", help="the time that is measured")
    return parser.parse_args()


def declare(parser: cli.Parser, *, clips: int) -> None:
    """Add the flags of a benchmark in which models score the same recordings in turns."""
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of the training tables and recordings")
    add("--store", type=Path, default=Path("store"), help="folder of the decoded recordings")
    add("--clips", type=cli.int_of_at_least(1), default=clips, help="recordings that are scored")
    add("--rounds", type=cli.int_of_at_least(1), default=3, help="turns of each side")
    add("--precision", default="auto", help="of the matrix products")


def draw_clips(arguments: argparse.Namespace) -> tuple[PairSource, np.ndarray]:
    """Return the training recordings, and random rows of them, `arguments.clips` at most."""
    data = load_training_data(arguments.data, None, arguments.store, n_folds=2, group_by="none")
    return data.source, np.random.default_rng(0).permutation(len(data.labels))[: arguments.clips]


def describe_clips(source: PairSource, rows: np.ndarray) -> str:
    """Return how many clips there are, and how long they are."""
    seconds = np.mean([source.n_samples(row, "tokens") for row in rows]) / SAMPLE_RATE
    return f"{len(rows)} clips of {seconds:.1f} s on average"


def make_model(recipe: Recipe, seed: int, *, backbone: Backbone, dtype: torch.dtype) -> Model:
    """Return a recipe's model with random updates, in the precision of inference."""
    torch.manual_seed(seed)
    model = build(recipe, backbone.config(), backbone.tokenizer)
    backbone.load_into(model)
    for name, parameter in model.named_parameters():
        if name.endswith(".up"):
            nn.init.normal_(parameter, std=UPDATE_STD)
    digests = digest_stages(model.encoder)
    convert_weights(model, dtype)
    return model, digests


def make_group(
    models: list[Model], dtype: torch.dtype, *, shared: bool = False, joint_key: str = ""
) -> ModelGroup:
    """Return a group of the models; `shared`: they are encoded once."""
    group = ModelGroup(CPU, dtype)
    for model, digests in models:
        group.add(model, digests if shared else (), joint_key)
    return group


def score(group: ModelGroup, source: PairSource, rows: np.ndarray) -> float:
    """Score some rows with every model of the group; return their number."""
    plan = plan_batches(source, rows, group.models[0].recipe, batch_seconds(CPU))
    score_fn = score_with_words(count_positions(source.texts[row] for row in rows))
    for _ in group.run(source, rows, plan, score_fn):
        pass
    return float(len(rows))


def describe(name: str, turns: list[Turn], of_one: list[Turn]) -> str:
    """Return a side's line: its time relative to the first side's, and its rate."""
    result = compare(of_one, turns, "clips/s")
    spread = f"[{result.low:.2f}, {result.high:.2f}]"
    return f"{name:<28} {result.ratio:5.2f} {spread} times as long, {result.baseline:.1f} clips/s"


if __name__ == "__main__":
    cli.run(main)
