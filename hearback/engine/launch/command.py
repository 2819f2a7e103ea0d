"""The command line that trains every model and fold that is not yet done, in any competition."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.io import KnownDigests
from hearback.engine.launch.cluster import RayLauncher
from hearback.engine.launch.jobs import (
    Job,
    Launcher,
    Outcome,
    as_table,
    last_line,
    run_all,
    with_progress,
)
from hearback.engine.launch.local import LocalLauncher, deal_gpus
from hearback.engine.launch.processes import ROOT, Stopped, stopped_by_signals
from hearback.engine.training.fold_files import FoldFiles, why_not_done
from hearback.engine.training.options import FoldOptions
from hearback.engine.training.recipe import FoldRecipe


def alone(_arguments: argparse.Namespace, asked: FoldOptions) -> list[FoldOptions]:
    """Return the options as they are: a recipe is trained in one way."""
    return [asked]


@dataclass(frozen=True)
class Competition:
    """What training all of a competition's models has to know of it.

    `recipes` are its own by name, `program` what python has to run to train one. `declare` declares
    flags beside those of its `options`, and `variants` returns the options, by them, in which every
    recipe is trained. `folders` names the flags of the folders that a cluster's machines must see.
    `show` shows how good the trained models of `--data`, `--assets` are.
    """

    description: str
    recipes: Mapping[str, FoldRecipe]
    options: type[FoldOptions]
    program: Callable[[str], tuple[str, ...]]
    show: Callable[[Path, Path, list[str]], Any]
    folders: tuple[str, ...] = ("data",)
    declare: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    variants: Callable[[argparse.Namespace, Any], Sequence[Any]] = alone


@dataclass(frozen=True)
class Plan:
    """A model that is to be trained: its adapted recipe, the options and what python has to run."""

    recipe: FoldRecipe
    options: FoldOptions
    program: tuple[str, ...]
    run_key: Mapping[str, Any]


def main(competition: Competition) -> int:
    """Train, show, and return 1 where a fold that was asked for is not trained.

    Where it was stopped, 128 and the signal's number, as shells have it.
    """
    arguments = read_arguments(competition)
    asked = competition.options.gather(arguments)
    folds = list(range(asked.n_folds)) if arguments.folds is None else arguments.folds
    if outside := [fold for fold in folds if not 0 <= fold < asked.n_folds]:
        raise HearbackError(f"--folds {outside}: with --n_folds {asked.n_folds} there are none")

    plans = {plan.recipe.name: plan for plan in make_plans(competition, arguments, asked)}
    digests = KnownDigests(asked.assets / ".digests.json")

    def why(model: str, fold: int) -> str | None:
        files = FoldFiles(asked.assets, model, fold)
        return why_not_done(files, plans[model].run_key, digests.of)

    to_terminal = arguments.launcher == "local" and len(arguments.slots) == 1
    jobs = find_jobs(plans, folds, why, to_terminal=to_terminal)
    digests.keep()
    needed = (ROOT, *(getattr(asked, name) for name in competition.folders))
    outcomes, stopped = run(
        jobs, arguments, asked.assets, needed, lambda job: not why(job.model, job.fold)
    )
    show_outcomes(outcomes, asked.assets)
    if stopped is not None:
        print(f"stopped ({stopped}); what is done is kept. To go on:", file=sys.stderr)
        print(f"  {shlex.join(['python', *program_run(), *sys.argv[1:]])}", file=sys.stderr)
        return 128 + stopped.number
    missing = [outcome for outcome in outcomes if outcome.outcome != "trained"]
    try:
        competition.show(asked.data, asked.assets, list(plans))
    except HearbackError as error:
        if not missing:
            raise
        print(error, file=sys.stderr)  # perhaps nothing is trained at all
    return 1 if missing else 0


def program_run() -> list[str]:
    """Return what python was told to run: a script, or a module."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [sys.argv[0]] if spec is None else ["-m", spec.name]


def make_plans(
    competition: Competition, arguments: argparse.Namespace, asked: FoldOptions
) -> Iterator[Plan]:
    """Return a plan for each of the models, seeds and variants that were asked for."""
    loaded: dict[FoldOptions, Any] = {}
    of_seeds = [replace(asked, seed=seed) for seed in arguments.seeds or [asked.seed]]
    variants = [competition.variants(arguments, of_seed) for of_seed in of_seeds]
    for options in chain.from_iterable(variants):
        for_data = options.for_data()
        if for_data not in loaded:
            loaded[for_data] = for_data.load_data()
        data = loaded[for_data]
        for name in arguments.models or competition.recipes:
            recipe = options.adapt(competition.recipes[name])
            run_key = options.run_key(recipe, data)
            yield Plan(recipe, options, competition.program(name), run_key)


def read_arguments(competition: Competition) -> argparse.Namespace:
    """Read the command line; raises HearbackError for flags that contradict one another."""
    models = tuple(competition.recipes)
    parser = cli.parser(competition.description)
    add = parser.add_argument
    add(
        "--models",
        nargs="+",
        choices=models,
        metavar="MODEL",
        help=f"only these (default: all: {', '.join(models)})",
    )
    add("--folds", nargs="+", type=int, help="only these (default: all)")
    add("--seeds", nargs="+", type=int, help="a model for each (default: that of --seed)")
    add("--jobs", type=int, help="trainings at once (default: 1, or one on each of --gpus)")
    add("--gpus", type=numbers_of, metavar="0,1", help="deal the trainings out to these GPUs")
    add("--launcher", choices=tuple(READERS), default="local", help="this machine or a cluster")
    add = parser.add_argument_group("with --launcher ray").add_argument
    add("--address", help="auto (RAY_ADDRESS, or this machine's cluster), local, or host:port")
    add("--gpu_share", type=float, help="of a GPU, for a fold (default: 1; 0 with --device cpu)")
    add("--cpus_per_fold", type=float, help="and threads, and loading workers (default: 1)")
    competition.options.declare(parser)
    competition.declare(parser)
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
    plans: Mapping[str, Plan],
    folds: Sequence[int],
    why: Callable[[str, int], str | None],
    *,
    to_terminal: bool,
) -> list[Job]:
    """Return what is to be trained, and say why; `plans` are by model."""
    jobs = []
    for model, plan in plans.items():
        for fold in folds:
            reason = why(model, fold)
            print(f"{model} fold {fold}: {reason or 'done'}")
            if reason is None:
                continue
            command = (*plan.program, "--fold", str(fold), *plan.options.as_flags())
            log = None if to_terminal else plan.options.runs / f"{model}_{fold}.log"
            jobs.append(Job(model, fold, command, log, after=plan.recipe.warm_start))
    return jobs


def run(
    jobs: Sequence[Job],
    arguments: argparse.Namespace,
    assets: Path,
    needed: Sequence[Path],
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
        with closing(open_launcher(arguments, assets, needed)) as launcher, stopped_by_signals():
            ended = run_all(jobs, launcher, assets, is_done)
            # One at a time, the trainings show bars of their own.
            for outcome in with_progress(ended, len(jobs), bar=jobs[0].log is not None):
                outcomes.append(outcome)
    except Stopped as stopped:
        return outcomes, stopped
    return outcomes, None


def open_launcher(arguments: argparse.Namespace, assets: Path, needed: Sequence[Path]) -> Launcher:
    """Return what runs the jobs."""
    if arguments.launcher == "ray":
        return RayLauncher(
            arguments.address,
            assets=assets,
            needed=needed,
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
