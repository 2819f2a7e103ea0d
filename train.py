"""Train every model and fold that is not yet done, then show the table of check_models.py."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import check_models
from hearback import cli, options, recipe
from hearback.checkpoint import FoldFiles, why_not_done
from hearback.digests import KnownDigests
from hearback.errors import HearbackError
from hearback.launching.cluster import RayLauncher
from hearback.launching.jobs import (
    Job,
    Launcher,
    Outcome,
    as_table,
    last_line,
    run_all,
    with_progress,
)
from hearback.launching.local import LocalLauncher, deal_gpus
from hearback.launching.processes import Stopped, stopped_by_signals
from hearback.options import TrainingOptions
from hearback.recipe import Recipe

HERE = Path(__file__).parent
WhyNotDone = Callable[[str, int], str | None]


def main() -> int:
    """Train, show, and return 1 where a fold that was asked for is not trained.

    Where it was stopped, 128 and the signal's number, as shells have it.
    """
    recipes = recipe.find_recipes(HERE)
    arguments = read_arguments(recipes)
    asked = options.options_from(arguments)
    models = arguments.models or list(recipes)
    folds = list(range(asked.n_folds)) if arguments.folds is None else arguments.folds
    if outside := [fold for fold in folds if not 0 <= fold < asked.n_folds]:
        raise HearbackError(f"--folds {outside}: with --n_folds {asked.n_folds} there are none")

    data = asked.load_data()
    adapted = {model: asked.adapt(recipes[model]) for model in models}
    identities = {model: asked.identity(adapted[model], data) for model in models}

    digests = KnownDigests(asked.assets / ".digests.json")

    def why(model: str, fold: int) -> str | None:
        return why_not_done(FoldFiles(asked.assets, model, fold), identities[model], digests.of)

    to_terminal = arguments.launcher == "local" and len(arguments.slots) == 1
    jobs = find_jobs(adapted, folds, why, asked, to_terminal=to_terminal)
    digests.keep()
    outcomes, stopped = run(jobs, arguments, asked, lambda job: not why(job.model, job.fold))
    show_outcomes(outcomes, asked.assets)
    if stopped is not None:
        print(f"stopped ({stopped}); what is done is kept. To go on:", file=sys.stderr)
        print(f"  {shlex.join(['python', *sys.argv])}", file=sys.stderr)
        return 128 + stopped.number
    missing = [outcome for outcome in outcomes if outcome.outcome != "trained"]
    try:
        check_models.show(asked.data, asked.assets, models)
    except HearbackError as error:
        if not missing:
            raise
        print(error, file=sys.stderr)  # perhaps nothing is trained at all
    return 1 if missing else 0


def read_arguments(models: Iterable[str]) -> argparse.Namespace:
    """Read the command line; raises HearbackError for flags that contradict one another."""
    models = tuple(models)
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add(
        "--models",
        nargs="+",
        choices=models,
        metavar="MODEL",
        help=f"only these (default: all: {', '.join(models)})",
    )
    add("--folds", nargs="+", type=int, help="only these (default: all)")
    add("--jobs", type=int, help="trainings at once (default: 1, or one on each of --gpus)")
    add("--gpus", type=numbers_of, metavar="0,1", help="deal the trainings out to these GPUs")
    add("--launcher", choices=tuple(READERS), default="local", help="this machine or a cluster")
    add = parser.add_argument_group("with --launcher ray").add_argument
    add("--address", help="auto (RAY_ADDRESS, or this machine's cluster), local, or host:port")
    add("--gpu_share", type=float, help="of a GPU, for a fold (default: 1; 0 with --device cpu)")
    add("--cpus_per_fold", type=float, help="and threads, and loading workers (default: 1)")
    options.add_options(parser)
    arguments = parser.parse_args()
    if arguments.jobs is not None and arguments.jobs < 1:
        raise HearbackError("--jobs: at least 1")
    READERS[arguments.launcher](arguments)
    return arguments


def read_for_this_machine(arguments: argparse.Namespace) -> None:
    """Complete the flags of --launcher local: `slots` are where a training may run."""
    for flag in ("address", "gpu_share", "cpus_per_fold"):
        if getattr(arguments, flag) is not None:
            raise HearbackError(f"--{flag}: only with --launcher ray")
    gpus = arguments.gpus
    n_jobs = arguments.jobs or (len(gpus) if gpus else 1)
    arguments.slots = deal_gpus(gpus, n_jobs) if gpus else [None] * n_jobs
    if gpus:
        arguments.device = device_of_a_gpu(arguments.device)


def read_for_ray(arguments: argparse.Namespace) -> None:
    """Complete the flags of --launcher ray."""
    if arguments.gpus:
        raise HearbackError("--gpus: Ray deals the GPUs; --gpu_share says how much a fold gets")
    if arguments.address is None:
        arguments.address = "auto"
    if arguments.gpu_share is None:
        arguments.gpu_share = 0.0 if arguments.device == "cpu" else 1.0
    if not 0 <= arguments.gpu_share <= 1:
        raise HearbackError(f"--gpu_share {arguments.gpu_share:g}: from 0 to 1")
    if arguments.cpus_per_fold is None:
        arguments.cpus_per_fold = 1.0
    if arguments.cpus_per_fold <= 0:
        raise HearbackError(f"--cpus_per_fold {arguments.cpus_per_fold:g}: more than 0")
    if arguments.gpu_share:
        arguments.device = device_of_a_gpu(arguments.device)


READERS = {"local": read_for_this_machine, "ray": read_for_ray}


def device_of_a_gpu(device: str | None) -> str:
    """Return the --device of a training that is given a GPU and sees no other."""
    if device not in (None, "cuda"):
        raise HearbackError(f"--device {device}: each training is given a GPU, its only one")
    return "cuda"  # where none was asked for, too: a GPU that is not there is an error then


def numbers_of(numbers: str) -> list[int]:
    """Read `0,1` as a list."""
    try:
        return [int(number) for number in numbers.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{numbers!r}: numbers with commas between them") from None


def find_jobs(
    recipes: Mapping[str, Recipe],
    folds: Sequence[int],
    why: WhyNotDone,
    asked: TrainingOptions,
    *,
    to_terminal: bool,
) -> list[Job]:
    """Return what is to be trained, and say why; `recipes` are the adapted ones, by model."""
    jobs = []
    for model, adapted in recipes.items():
        for fold in folds:
            reason = why(model, fold)
            print(f"{model} fold {fold}: {reason or 'done'}")
            if reason is None:
                continue
            command = (str(HERE / f"train_{model}.py"), "--fold", str(fold), *asked.as_flags())
            log = None if to_terminal else asked.runs / f"{model}_{fold}.log"
            jobs.append(Job(model, fold, command, log, after=adapted.warm_start))
    return jobs


def run(
    jobs: Sequence[Job],
    arguments: argparse.Namespace,
    asked: TrainingOptions,
    is_done: Callable[[Job], bool],
) -> tuple[list[Outcome], Stopped | None]:
    """Run the jobs where the command line says.

    Return what became of each, in the order in which they ended, and what stopped us, if anything:
    then the rest is missing.
    """
    outcomes: list[Outcome] = []
    if not jobs:
        return outcomes, None
    try:
        # The launcher comes first: Ray has a handler for SIGTERM of its own.
        with closing(open_launcher(arguments, asked)) as launcher, stopped_by_signals():
            ended = run_all(jobs, launcher, asked.assets, is_done)
            # One at a time, the trainings show bars of their own.
            for outcome in with_progress(ended, len(jobs), bar=jobs[0].log is not None):
                outcomes.append(outcome)
    except Stopped as stopped:
        return outcomes, stopped
    return outcomes, None


def open_launcher(arguments: argparse.Namespace, asked: TrainingOptions) -> Launcher:
    """Return what runs the jobs."""
    if arguments.launcher == "ray":
        return RayLauncher(
            arguments.address,
            assets=asked.assets,
            needed=(HERE / "train.py", asked.data, asked.tts_data),
            n_at_once=arguments.jobs,
            n_cpus=arguments.cpus_per_fold,
            gpu_share=arguments.gpu_share,
        )
    return LocalLauncher(arguments.slots)


def show_outcomes(outcomes: Sequence[Outcome], assets: Path) -> None:
    """Print what became of the jobs, and where to look for what went wrong."""
    if not outcomes:
        return
    print(f"\nTrainings\n{cli.as_text(as_table(outcomes, assets).set_index('model'))}")
    for outcome in outcomes:
        log = outcome.job.log
        if outcome.outcome == "failed":
            where = f", see {log}: {last_line(log)}" if log else ""
            print(f"FAILED: {outcome.job}{where}")


if __name__ == "__main__":
    cli.run(main)
