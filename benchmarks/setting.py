"""What a benchmark is given, how its sides are timed, and what it returns."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from benchmarks import flops, profiles
from benchmarks.harness import (
    CLOCKS,
    Result,
    Side,
    compare,
    fastest,
    median_flop_rate,
    take_turns,
    warm_up,
)
from hearback.engine.machine import count_processors

PRODUCT_SECONDS = 0.5  # of matrix products per turn


@dataclass(frozen=True)
class Sizes:
    """The amount of work per turn; a turn should last seconds, so a GPU takes more clips."""

    n_train: int = 192  # enough for batches of similar lengths
    n_shares: int = 4  # one per turn of the baseline; all take it the same time
    n_infer: int = 64
    n_load: int = 128
    n_both_padded: int = 8  # also scored with 16 s windows on both sides
    n_gpu: int = 512
    n_rows: int = 38_095  # the competition's
    n_weights: int = 10

    def with_clips(self, n_clips: int) -> "Sizes":
        """Return these sizes with `n_clips` in every turn."""
        of_clips = ("n_train", "n_infer", "n_load", "n_gpu")
        few = min(n_clips, self.n_both_padded)
        return replace(self, **dict.fromkeys(of_clips, n_clips), n_both_padded=few)


QUICK = Sizes(
    n_train=12,
    n_shares=2,
    n_infer=12,
    n_load=12,
    n_both_padded=4,
    n_gpu=64,
    n_rows=2000,
    n_weights=4,
)


@dataclass(frozen=True)
class Setting:
    """The options of the command line, and a folder for temporary files."""

    data: Path
    tts_data: Path
    store: Path
    backbone: Path
    work: Path
    n_rounds: int = 5
    n_threads: int = 1
    clock: str = "wall"
    precision: str = "auto"  # of ours
    profile: bool = False
    sizes: Sizes = Sizes()

    @property
    def unit(self) -> str:
        """The unit of a rate of clips."""
        return "clips/s" if self.clock == "wall" else "clips/CPU s"


@dataclass(frozen=True)
class Outcome:
    """A benchmark's result, and lines of details."""

    result: Result
    lines: tuple[str, ...]


def with_best_workers(
    setting: Setting, ours: Side, make: Callable[[int], Side], device: torch.device
) -> tuple[list[Side], str]:
    """Return both sides, warmed up, with the baseline's best number of loading processes."""
    counts = (0, count_processors()) if device.type == "cpu" else (min(8, count_processors()),)
    if setting.clock == "cpu":  # more processes do not save processor seconds
        counts = (0,)
    sides = {str(n): make(n) for n in counts}
    warm_up([ours, sides[str(counts[0])]])
    if len(counts) == 1:
        return [ours, *sides.values()], f"baseline: {counts[0]} loading processes"
    n_workers = fastest(sides, CLOCKS[setting.clock])
    return [ours, sides[n_workers]], f"baseline: {n_workers} loading processes, best of {counts}"


def time_sides(
    setting: Setting, sides: list[Side], device: torch.device, dtypes: tuple[torch.dtype, ...]
) -> tuple[Result, list[str]]:
    """Time both sides and matrix products; return the result, and lines on FLOP/s."""
    products = {}
    for dtype in dict.fromkeys(dtypes):
        product = flops.matrix_product(device, dtype)
        products[dtype] = Side(str(dtype), product.run, PRODUCT_SECONDS, product.flops)
    warm_up(products.values())
    turns = take_turns([*sides, *products.values()], setting.n_rounds, CLOCKS[setting.clock])
    product_turns = dict(zip(products, turns[len(sides) :], strict=True))
    lines = []
    for side, of_side, dtype in zip(sides, turns, dtypes, strict=False):
        reached, peak = median_flop_rate(of_side), median_flop_rate(product_turns[dtype])
        lines.append(
            f"{side.name}: {reached / 1e9:.1f} GFLOP/s, {reached / peak:.1%} of the "
            f"{peak / 1e9:.1f} of matrix products ({str(dtype).removeprefix('torch.')})"
        )
    return compare(turns[0], turns[1], setting.unit), lines


def profile_lines(setting: Setting, sides: list[Side], device: torch.device) -> list[str]:
    """Return the profile of each side, if requested."""
    if not setting.profile:
        return []
    if device.type != "cpu":
        return ["no profile: a GPU runs asynchronously"]
    return [f"{side.name}: {profiles.describe(side.run)}" for side in sides]


@contextmanager
def threads(n_threads: int) -> Iterator[None]:
    """Limit torch and numpy's libraries to `n_threads`."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        with threadpool_limits(n_threads):
            yield
    finally:
        torch.set_num_threads(before)
