"""The command line that trains all missing models and folds of a competition."""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.io import DigestCache
from hearback.engine.launch.cluster import RayLauncher
from hearback.engine.launch.jobs import (
    Job,
    Launcher,
    Outcome,
    as_table,
    last_line,
    run_all,
)
from hearback.engine.launch.local import LocalLauncher, assign_gpus
from hearback.engine.launch.monitor import Monitor
from hearback.engine.launch.processes import ROOT, Stopped, stopped_by_signals
from hearback.engine.machine import check_can_stop_processes
from hearback.engine.training.fold_files import FoldFiles, why_not_done
from hearback.engine.training.options import FoldOptions
from hearback.engine.training.recipe import FoldRecipe
from hearback.engine.training.script import PLAN_HELP

if TYPE_CHECKING:
    from hearback.engine.plan.workload import MakeWorkload


def single_variant(_arguments: argparse.Namespace, options: FoldOptions) -> list[FoldOptions]:
    """Return the options unchanged: each recipe is trained once."""
    return [options]


@dataclass(frozen=True)
class Competition:
    """A competition's part of the training command.

    `recipes` are its recipes by name; `program` returns the arguments of python that train one.
    `declare` adds flags to those of `options`; `variants` maps the parsed flags and options to the
    options with which each recipe is trained. `folders` names the options whose folders or files a
    cluster's machines must share. `show(options, models)` prints the scores of the trained models.
    `load_workload` returns what --plan measures; without it, there is no such flag.
    """

    description: str
    recipes: Mapping[str, FoldRecipe]
    options: type[FoldOptions]
    program: Callable[[str], tuple[str, ...]]
    show: Callable[[Any, list[str]], Any]
    folders: tuple[str, ...] = ("data",)
    declare: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    variants: Callable[[argparse.Namespace, Any], Sequence[Any]] = single_variant
    load_workload: "Callable[[], MakeWorkload] | None" = None


@dataclass(frozen=True)
class Plan:
    """A model to train: its adapted recipe, the options, the arguments of python, and the data."""

    recipe: FoldRecipe
    options: FoldOptions
    program: tuple[str, ...]
    run_key: Mapping[str, Any]
    data: Any


def main(competition: Competition) -> int:
    """Train and print scores; return 1 if a requested fold is not trained.

    If stopped by a signal, return 128 plus its number, as shells do.
    """
    arguments = read_arguments(competition)
    options = competition.options.gather(arguments)
    folds = list(range(options.n_folds)) if arguments.folds is None else arguments.folds
    if invalid := [fold for fold in folds if not 0 <= fold < options.n_folds]:
        raise HearbackError(f"--folds {invalid}: folds are 0 to {options.n_folds - 1} (--n_folds)")

    if competition.load_workload is not None and arguments.plan:
        if arguments.launcher != "local":
            raise HearbackError("--plan: only with --launcher local; it measures this machine")
        show_plan(competition.load_workload(), competition, arguments, options, folds)
        return 0
    plans = {plan.recipe.name: plan for plan in make_plans(competition, arguments, options)}
    digests = DigestCache(options.assets / ".digests.json")

    def reason_to_train(model: str, fold: int) -> str | None:
        files = FoldFiles(options.assets, model, fold)
        return why_not_done(files, plans[model].run_key, digests.sha256)

    to_terminal = arguments.launcher == "local" and len(arguments.slots) == 1
    reasons = {(model, fold): reason_to_train(model, fold) for model in plans for fold in folds}
    digests.save()
    to_train = {model for (model, _), reason in reasons.items() if reason is not None}
    options.resolve_pretrained([plans[model].recipe for model in to_train])
    jobs = make_jobs(plans, reasons, to_terminal=to_terminal)
    folders = [getattr(options, name) for name in competition.folders]
    # What is not here is not needed: token scorers need no reference speech.
    needed = (ROOT, *(folder for folder in folders if folder is not None and folder.exists()))

    def is_done(job: Job) -> bool:
        return reason_to_train(job.model, job.fold) is None

    outcomes, stopped = run(jobs, arguments, options.assets, needed, is_done)
    show_outcomes(outcomes, options.assets)
    if stopped is not None:
        print(f"stopped ({stopped}); finished work is kept. To resume:", file=sys.stderr)
        print(f"  {shlex.join([*cli.program(), *sys.argv[1:]])}", file=sys.stderr)
        return 128 + stopped.number
    missing = [outcome for outcome in outcomes if outcome.outcome != "trained"]
    try:
        competition.show(options, list(plans))
    except HearbackError as error:
        if not missing:
            raise
        print(error, file=sys.stderr)  # perhaps no model is trained
    return 1 if missing else 0


def show_plan(
    make_workload: "MakeWorkload",
    competition: Competition,
    arguments: argparse.Namespace,
    options: FoldOptions,
    folds: Sequence[int],
) -> None:
    """Print what the trainings that are not done will take; train and write nothing."""
    from hearback.engine.plan import command as planning  # noqa: PLC0415  (imports torch)

    started = time.monotonic()
    with planning.writing_nothing():
        plans = {plan.recipe.name: plan for plan in make_plans(competition, arguments, options)}
    data_seconds = time.monotonic() - started
    requests = []
    for name, plan in plans.items():
        files = [FoldFiles(options.assets, name, fold) for fold in folds]
        missing = [each.fold for each in files if why_not_done(each, plan.run_key) is not None]
        if missing:
            requests.append(
                planning.Request(plan.recipe, plan.options, missing, plan.data, data_seconds)
            )
        else:
            print(f"{name}: all folds are done")
    planning.check_pretrained(options, [request.recipe for request in requests])
    if requests:
        planning.show_plan(requests, make_workload, len(getattr(arguments, "slots", [None])))


def make_plans(
    competition: Competition, arguments: argparse.Namespace, options: FoldOptions
) -> Iterator[Plan]:
    """Yield a plan for each requested model, seed and variant."""
    loaded: dict[FoldOptions, Any] = {}
    seeded = [replace(options, seed=seed) for seed in arguments.seeds or [options.seed]]
    for variant in chain.from_iterable(competition.variants(arguments, each) for each in seeded):
        names = arguments.models or list(competition.recipes)
        recipes = [variant.adapt(competition.recipes[name]) for name in names]
        for_data = variant.for_data()
        if for_data not in loaded:
            loaded[for_data] = for_data.load_data(recipes)
        data = loaded[for_data]
        for name, recipe in zip(names, recipes, strict=True):
            used = variant.for_recipe(competition.recipes[name])
            run_key = used.run_key(recipe, data)
            yield Plan(recipe, used, competition.program(name), run_key, data)


def read_arguments(competition: Competition) -> argparse.Namespace:
    """Parse the command line. Raises HearbackError for contradictory flags."""
    models = tuple(competition.recipes)
    parser = cli.parser(competition.description)
    add = parser.add_argument
    add(
        "--models",
        nargs="+",
        choices=models,
        metavar="MODEL",
        help=f"models to train (default: all: {', '.join(models)})",
    )
    add("--folds", nargs="+", type=int, help="folds to train (default: all)")
    add("--seeds", nargs="+", type=int, help="train each model once per seed (default: --seed)")
    add("--jobs", type=int, help="parallel trainings (default: 1, or one per GPU of --gpus)")
    add(
        "--gpus",
        type=comma_separated,
        metavar="0,1",
        help="GPUs to train on",
    )
    add(
        "--launcher",
        choices=tuple(LAUNCHERS),
        default="local",
        help="this machine or a Ray cluster",
    )
    add = parser.add_argument_group("with --launcher ray").add_argument
    add("--address", help="auto (RAY_ADDRESS, or this machine's cluster), local, or host:port")
    add("--gpu_share", type=float, help="share of a GPU per fold (default: 1; 0 with --device cpu)")
    add(
        "--cpus_per_fold",
        type=float,
        help="also threads and loading workers (default: 1)",
    )
    if competition.load_workload is not None:
        parser.add_argument("--plan", action="store_true", help=PLAN_HELP)
    competition.options.declare(parser)
    competition.declare(parser)
    arguments = parser.parse_args()
    if arguments.jobs is not None and arguments.jobs < 1:
        raise HearbackError("--jobs: it must be at least 1")
    LAUNCHERS[arguments.launcher](arguments)
    return arguments


def complete_local_flags(arguments: argparse.Namespace) -> None:
    """Check and complete the flags of --launcher local; set `slots` (see `LocalLauncher`)."""
    for flag in ("address", "gpu_share", "cpus_per_fold"):
        if getattr(arguments, flag) is not None:
            raise HearbackError(f"--{flag}: only with --launcher ray")
    gpus = arguments.gpus
    n_jobs = arguments.jobs or (len(gpus) if gpus else 1)
    arguments.slots = assign_gpus(gpus, n_jobs) if gpus else [None] * n_jobs
    if gpus:
        arguments.device = require_cuda(arguments.device)


def complete_ray_flags(arguments: argparse.Namespace) -> None:
    """Check and complete the flags of --launcher ray."""
    if arguments.gpus:
        raise HearbackError("--gpus: Ray assigns the GPUs; --gpu_share sets each fold's share")
    if arguments.address is None:
        arguments.address = "auto"
    if arguments.gpu_share is None:
        arguments.gpu_share = 0.0 if arguments.device == "cpu" else 1.0
    if not 0 <= arguments.gpu_share <= 1:
        raise HearbackError(f"--gpu_share {arguments.gpu_share:g}: it must be from 0 to 1")
    if arguments.cpus_per_fold is None:
        arguments.cpus_per_fold = 1.0
    if arguments.cpus_per_fold <= 0:
        raise HearbackError(f"--cpus_per_fold {arguments.cpus_per_fold:g}: it must be above 0")
    if arguments.gpu_share:
        arguments.device = require_cuda(arguments.device)


LAUNCHERS = {"local": complete_local_flags, "ray": complete_ray_flags}


def require_cuda(device: str | None) -> str:
    """Return the --device of a training on an assigned GPU, the only one it sees."""
    if device not in (None, "cuda"):
        raise HearbackError(f"--device {device}: each training has exactly one GPU, cuda")
    return "cuda"  # not None: a missing GPU must be an error


def comma_separated(numbers: str) -> list[int]:
    """Parse `0,1` as a list."""
    try:
        return [int(number) for number in numbers.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{numbers!r}: expected numbers separated by commas"
        ) from None


def make_jobs(
    plans: Mapping[str, Plan],
    reasons: Mapping[tuple[str, int], str | None],
    *,
    to_terminal: bool,
) -> list[Job]:
    """Return a job for each fold that is not done, and print the reasons.

    `plans` are by model, `reasons` by model and fold, None for a fold that is done.
    """
    jobs = []
    for (model, fold), reason in reasons.items():
        print(f"{model} fold {fold}: {reason or 'done'}")
        if reason is None:
            continue
        plan = plans[model]
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
    """Run the jobs with the chosen launcher.

    Return their outcomes in the order in which they ended, and the signal that stopped this
    process, if any; outcomes of the remaining jobs are then missing.
    """
    outcomes: list[Outcome] = []
    if not jobs:
        return outcomes, None
    # A single training at a time prints its own bar.
    monitor = Monitor(len(jobs), shown=jobs[0].log is not None)
    try:
        # The launcher comes first, because Ray installs its own SIGTERM handler.
        with (
            closing(open_launcher(arguments, assets, needed, monitor)) as launcher,
            stopped_by_signals(),
        ):
            for outcome in monitor.follow(run_all(jobs, launcher, assets, is_done)):
                outcomes.append(outcome)
    except Stopped as stopped:
        return outcomes, stopped
    return outcomes, None


def open_launcher(
    arguments: argparse.Namespace, assets: Path, needed: Sequence[Path], monitor: Monitor
) -> Launcher:
    """Return the launcher that the command line selects. Raises HearbackError on Windows."""
    check_can_stop_processes(" ".join(cli.program()))
    if arguments.launcher == "ray":
        return RayLauncher(
            arguments.address,
            assets=assets,
            needed=needed,
            n_at_once=arguments.jobs,
            n_cpus=arguments.cpus_per_fold,
            gpu_share=arguments.gpu_share,
            on_wait=monitor.show_running,
        )
    return LocalLauncher(arguments.slots, monitor.show_running)


def show_outcomes(outcomes: Sequence[Outcome], assets: Path) -> None:
    """Print the outcomes, and the error and log of each failed job."""
    if not outcomes:
        return
    print(f"\nTrainings\n{cli.as_text(as_table(outcomes, assets).set_index('model'))}")
    for outcome in outcomes:
        log = outcome.job.log
        if outcome.outcome == "failed":
            where = f", see {log}: {last_line(log)}" if log else ""
            print(f"FAILED: {outcome.job}{where}")
