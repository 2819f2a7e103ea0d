"""Train every model and fold that is not yet done, then show the table of check_models.py."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

import check_models
from hearback import cli, options, recipe
from hearback.checkpoint import FoldFiles, why_not_done
from hearback.errors import HearbackError

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Job:
    """One fold of one model that is to be trained, after the same fold of `after`."""

    model: str
    fold: int
    after: str | None = None

    def run(self, flags: list[str], n_threads: int | None, log: Path | None) -> int:
        """Run the model's own script and return its exit status; `log` takes its output."""
        script = HERE / f"train_{self.model}.py"
        command = [sys.executable, str(script), "--fold", str(self.fold), *flags]
        threads = {} if n_threads is None else {"OMP_NUM_THREADS": str(n_threads)}
        environment = {**os.environ, **threads}
        if log is None:
            return subprocess.run(command, env=environment, check=False).returncode
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            return subprocess.run(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False
            ).returncode


def main() -> int:
    """Train, show, and return 1 where a training failed."""
    recipes = recipe.find_recipes(HERE)
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--models",
        nargs="+",
        choices=tuple(recipes),
        metavar="MODEL",
        help=f"only these (default: all: {', '.join(recipes)})",
    )
    parser.add_argument("--folds", nargs="+", type=int, help="only these (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    options.add_options(parser)
    arguments = parser.parse_args()
    asked = options.options_from(arguments)
    models = arguments.models or list(recipes)
    folds = list(range(asked.n_folds)) if arguments.folds is None else arguments.folds
    if outside := [fold for fold in folds if not 0 <= fold < asked.n_folds]:
        raise HearbackError(f"--folds {outside}: with --n_folds {asked.n_folds} there are none")
    if arguments.jobs < 1:
        raise HearbackError("--jobs: at least 1")

    data = asked.load_data()
    todo = []
    # A model that starts from another one's encoder comes after it.
    adapted = {model: asked.adapt(recipes[model]) for model in models}
    for model in sorted(models, key=lambda model: adapted[model].warm_start is not None):
        identity = asked.identity(adapted[model], data)
        for fold in folds:
            reason = why_not_done(FoldFiles(asked.assets, model, fold), identity)
            print(f"{model} fold {fold}: {reason or 'done'}")
            if reason is not None:
                todo.append(Job(model, fold, adapted[model].warm_start))

    failed = run_all(todo, arguments.jobs, asked)
    for job, log in failed.items():
        print(f"FAILED: {job.model} fold {job.fold}" + (f", see {log}" if log else ""))
    check_models.show(asked.data, asked.assets, models)
    return 1 if failed else 0


def run_all(
    jobs: list[Job], n_at_once: int, asked: options.TrainingOptions
) -> dict[Job, Path | None]:
    """Run the jobs, `n_at_once` at a time; return those that failed, with their logs.

    One at a time, a job talks to the terminal; several at once each write a log.
    """
    several = n_at_once > 1
    # Trainings side by side on one CPU would each start a thread for every core.
    n_threads = max(1, (os.cpu_count() or 1) // n_at_once) if several else None

    finished = {(job.model, job.fold): threading.Event() for job in jobs}

    def run(job: Job) -> tuple[Job, Path | None, int]:
        # What it waits for was started before it, so somebody is at it.
        if event := finished.get((job.after or "", job.fold)):
            event.wait()
        try:
            return train(job)
        finally:
            finished[job.model, job.fold].set()

    def train(job: Job) -> tuple[Job, Path | None, int]:
        log = asked.runs / f"{job.model}_{job.fold}.log" if several else None
        if log:
            tqdm.write(f"{job.model} fold {job.fold}: starts, log in {log}")
        status = job.run(asked.as_flags(), n_threads, log)
        tqdm.write(f"{job.model} fold {job.fold}: {'failed' if status else 'trained'}")
        return job, log, status

    # One at a time, the trainings show bars of their own.
    bar = tqdm(total=len(jobs), desc="training", unit="fold", disable=not several)
    failed = {}
    with ThreadPoolExecutor(n_at_once) as pool, bar:
        for job, log, status in pool.map(run, jobs):
            bar.update()
            if status:
                failed[job] = log
    return failed


if __name__ == "__main__":
    cli.run(main)
