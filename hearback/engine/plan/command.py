"""The flag --plan of the training commands."""

import contextlib
import io
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hearback.engine import locks
from hearback.engine.errors import HearbackError
from hearback.engine.plan.estimate import ModelPlan, Request, plan_models
from hearback.engine.plan.show import show
from hearback.engine.plan.workload import MakeWorkload
from hearback.engine.training.options import FoldOptions
from hearback.engine.training.recipe import FoldRecipe

_CURE = (
    "--plan writes nothing. Decode the recordings first: run the step preprocess, or start the "
    "training once"
)


def show_plan(requests: Sequence[Request], make_workload: MakeWorkload, n_jobs: int) -> None:
    """Measure the models, and print their plan; raise HearbackError for what a training would."""
    started, plans, stderr = time.monotonic(), list[ModelPlan](), sys.stderr
    with writing_nothing(), contextlib.redirect_stderr(io.StringIO()):  # progress bars
        for plan in plan_models(requests, make_workload):
            plans.append(plan)
            print(f"\rmeasured {len(plans)} of {len(requests)}", end="", file=stderr, flush=True)
    print(f", in {time.monotonic() - started:.0f} s\n", file=sys.stderr)
    print(show(plans, n_jobs))


def show_fold(
    make_workload: MakeWorkload, recipe: FoldRecipe, fold: int, options: FoldOptions
) -> None:
    """Print the plan of one fold of a recipe."""
    adapted = options.adapt(recipe)
    check_pretrained(options, [adapted])
    data, seconds = load_data(options, [adapted])
    show_plan([Request(adapted, options, [fold], data, seconds)], make_workload, n_jobs=1)


def load_data(options: FoldOptions, recipes: Sequence[FoldRecipe]) -> tuple[Any, float]:
    """Return the data of a training, and the seconds that reading it took.

    Raises HearbackError if it has to be decoded first.
    """
    started = time.monotonic()
    with writing_nothing():
        data = options.load_data(recipes)
    return data, time.monotonic() - started


@contextmanager
def writing_nothing() -> Iterator[None]:
    """Raise HearbackError where a training would write to a folder that it shares with others."""
    with locks.refused(_CURE):
        yield


def check_pretrained(options: FoldOptions, recipes: Iterable[FoldRecipe]) -> None:
    """Check the pretrained models of recipes, as `options.resolve_pretrained`, without a download.

    Raises HearbackError with a line for each of them that is not there.
    """
    faults = []
    for name, folder in sorted({m for each in recipes for m in options.pretrained_models(each)}):
        place = folder / Path(name).name
        try:
            # In a folder that exists, it is a path.
            is_of_hub = "/" in name and not Path(name).parent.exists()
            if is_of_hub and not Path(name).exists() and not place.exists():
                command = f"python -m hearback.engine.whisper.pretrained {name} --assets {folder}"
                faults.append(f"no backbone {place}; --plan downloads nothing: `{command}` does")
            else:
                options.resolve_model(name, folder)
        except HearbackError as error:
            faults.append(str(error))
    if faults:
        raise HearbackError("\n".join(faults))
