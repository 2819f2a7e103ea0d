"""How much faster the songs' image networks learn channels last in memory than channels first.

    python -m benchmarks.layouts

A forward and a backward pass of each published network, on a batch of noise of its own size, on one
thread, in both orders and precisions, in turn. Ratios as in `benchmarks.harness`.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F

from benchmarks.harness import CLOCKS, Side, compare, machine, take_turns, warm_up
from hearback.engine import cli
from hearback.engine.devices import mixed_precision
from hearback.songs.features import FEATURES
from hearback.songs.models.classifiers import IMAGE_NETWORKS, SongModel, build
from hearback.songs.recipe import SongRecipe, find_recipes
from hearback.songs.tables import N_CLASSES

ORDERS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}
DTYPES = (torch.float32, torch.bfloat16)
CPU = torch.device("cpu")


def main() -> None:
    """Time what the command line asks for, and print the table."""
    recipes = {
        name: recipe
        for name, recipe in find_recipes().items()
        if recipe.architecture in IMAGE_NETWORKS
    }
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--models", nargs="+", choices=tuple(recipes), default=list(recipes), help="only these")
    add("--rounds", type=int, default=5, help="timed turns of each side")
    add("--clock", choices=tuple(CLOCKS), default="cpu", help="cpu counts processor seconds")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(machine(), flush=True)
    print(cli.as_text(table([recipes[name] for name in asked.models], asked.rounds, asked.clock)))


def table(recipes: Iterable[SongRecipe], n_rounds: int, clock: str) -> pd.DataFrame:
    """Return a row per recipe and precision: snippets a second, and their ratio."""
    lines = []
    for recipe in recipes:
        for dtype in DTYPES:
            sides = sides_of(recipe, dtype)
            warm_up(sides)
            last, first = take_turns(sides, n_rounds, CLOCKS[clock])
            result = compare(last, first, "snippets/s")
            lines.append(
                {
                    "model": recipe.name,
                    "precision": str(dtype).removeprefix("torch."),
                    "channels last": result.ours,
                    "channels first": result.baseline,
                    "ratio": result.ratio,
                    "low": result.low,
                    "high": result.high,
                }
            )
    return pd.DataFrame(lines).set_index(["model", "precision"])


def sides_of(recipe: SongRecipe, dtype: torch.dtype) -> Sequence[Side]:
    """Return a step of the same network in either order."""
    features = torch.randn(recipe.batch_size, *FEATURES[recipe.features].shape)
    sides = []
    for name, order in ORDERS.items():
        model = build(recipe).train()
        model.to(memory_format=order)  # type: ignore[call-overload]
        sides.append(Side(name, partial(learn, model, features, dtype)))
    return sides


def learn(model: SongModel, features: torch.Tensor, dtype: torch.dtype) -> float:
    """Go forward and back once; return the number of snippets."""
    model.zero_grad()
    with mixed_precision(CPU, dtype):
        logits = model(features)
    F.cross_entropy(logits, torch.arange(len(features)) % N_CLASSES).backward()
    return float(len(features))


if __name__ == "__main__":
    torch.manual_seed(0)
    cli.run(main)
