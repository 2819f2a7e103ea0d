"""How much faster small pictures' convolutions are as products of matrices (`hearback.songs.models.convolutions`).

    python -m benchmarks.convolutions

A forward and a backward pass on noise of one 3×3 convolution of each size that the published
ResNets have, and of a step of the whole networks, on one thread, in both precisions, unrolled and
as oneDNN computes it, in turn. Ratios as in `benchmarks.harness`.
"""

import copy
from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd
import torch
from torch import nn

from benchmarks.harness import CLOCKS, Side, compare, machine, take_turns, warm_up
from benchmarks.layouts import CPU, DTYPES, learn
from hearback.engine import cli
from hearback.engine.devices import choose_device, mixed_precision
from hearback.songs.features import FEATURES
from hearback.songs.models import convolutions
from hearback.songs.models.classifiers import build
from hearback.songs.models.convolutions import UnrolledConv2d
from hearback.songs.recipe import find_recipes

# Of the stages of both: batch, channels, height and width.
SIZES = {
    "resnet34": [(32, 512, 10, 2), (32, 256, 19, 3), (32, 128, 38, 5), (32, 64, 75, 10)],
    "resnet34_small_stem": [(16, 512, 9, 8), (16, 256, 17, 16), (16, 128, 33, 32)],
}


def main() -> None:
    """Time what the command line asks for, and print the table."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--models", nargs="+", choices=tuple(SIZES), default=list(SIZES), help="only these")
    add("--rounds", type=int, default=9, help="timed turns of each side")
    add("--clock", choices=tuple(CLOCKS), default="cpu", help="cpu counts processor seconds")
    asked = parser.parse_args()
    choose_device("cpu")
    torch.set_num_threads(1)
    print(machine(), flush=True)
    print(cli.as_text(table(asked.models, asked.rounds, asked.clock)))


def table(models: Sequence[str], n_rounds: int, clock: str) -> pd.DataFrame:
    """Return a row per size, or whole network, and precision: batches a second, and the ratio."""
    lines = {}
    for model in models:
        for what, dtype, sides in cases(model):
            warm_up(sides)
            unrolled, usual = take_turns(sides, n_rounds, CLOCKS[clock])
            result = compare(unrolled, usual, "batches/s")
            lines[model, what, str(dtype).removeprefix("torch.")] = {
                "unrolled": result.ours,
                "as usual": result.baseline,
                "ratio": result.ratio,
                "low": result.low,
                "high": result.high,
            }
    frame = pd.DataFrame.from_dict(lines, orient="index")
    return frame.rename_axis(["model", "pictures", "precision"])


def cases(model: str) -> Iterator[tuple[str, torch.dtype, Sequence[Side]]]:
    """Give each of a network's sizes and then the whole, in each precision, unrolled and usual."""
    for size in SIZES[model]:
        what = "{} × ({}, {} × {})".format(*size)
        for dtype in DTYPES:
            yield what, dtype, sides_of(size, dtype)
    recipe = find_recipes()[model]
    features = torch.randn(recipe.batch_size, *FEATURES[recipe.features].shape)
    for dtype in DTYPES:
        unrolled = build(recipe).train()
        usual = copy.deepcopy(unrolled)
        convolutions.unroll_small(usual, most_positions=0)
        whole = [
            Side(name, partial(_one_batch, partial(learn, network, features, dtype)))
            for name, network in (("unrolled", unrolled), ("as usual", usual))
        ]
        yield "the whole network", dtype, whole


def sides_of(size: tuple[int, int, int, int], dtype: torch.dtype) -> Sequence[Side]:
    """Return a convolution's step, unrolled and as usual."""
    _, channels, height, width = size
    pictures = torch.randn(size).to(dtype=dtype, memory_format=torch.channels_last).requires_grad_()
    usual = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    usual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    unrolled = UnrolledConv2d.in_place_of(usual, most_positions=height * width)
    return [
        Side(name, partial(step, convolution, pictures, dtype))
        for name, convolution in (("unrolled", unrolled), ("as usual", usual))
    ]


def step(convolution: nn.Conv2d, pictures: torch.Tensor, dtype: torch.dtype) -> float:
    """Go forward and back once; return the number of batches."""
    with mixed_precision(CPU, dtype):
        seen = convolution(pictures)
    torch.autograd.grad(seen, (pictures, convolution.weight), grad_outputs=torch.ones_like(seen))
    return 1.0


def _one_batch(run: partial[float]) -> float:
    run()
    return 1.0


if __name__ == "__main__":
    torch.manual_seed(0)
    cli.run(main)
