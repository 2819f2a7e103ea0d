"""Step 5: score the test recordings with the ensemble and write submission.csv.

Every row gets a score, if need be the base rate of its task; submission_problems.csv lists which
and why. If the models cannot be run at all, a submission of base rates is written unless there is
one, and the exit status is 2. A table that no model can fill (--words, --divergences) is left out
with a warning.
"""

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearback.engine import cli
from hearback.engine.ensemble.budget import parse_duration
from hearback.engine.errors import HearbackError
from hearback.engine.machine import PRECISIONS
from hearback.engine.page import flags as page_flags
from hearback.engine.page.origin import Origin, write_origin
from hearback.reading import DIVERGENCES, FOLDERS, step_command
from hearback.reading.words import TABLE as WORDS

if TYPE_CHECKING:
    from hearback.engine.page.writing import PageOptions

_ORIGINS = ("data", "config", "assets", "tts_data")  # flags that a page is made with
_CLUSTER_FLAGS = ("address", "jobs", "gpu_share", "cpus_per_worker")
BESIDE = Path()  # value of a flag without a path: a file beside the submission


def main() -> None:
    """Parse the command line, and write the submission and its page."""
    arguments = _parse_flags()
    cluster = _take_cluster_flags(arguments)
    if vars(arguments).pop("plan"):
        _show_plan(arguments)
        return
    # On a cluster, this process has no models to make the page with.
    is_default = arguments.time_limit is None and cluster is None
    default = page_flags.page_beside(arguments.submission) if is_default else None
    page = page_flags.choose_page(arguments.page, default, is_off=arguments.no_page)
    arguments.page = page
    del arguments.no_page
    tables = {"words": arguments.words, "divergences": arguments.divergences}
    before = {name: _state(path) for name, path in tables.items()}
    with cli.outliving_readers():  # `| head` must not cost the scores
        _write_submission(arguments, cluster)
        # One that no model could fill is an earlier run's.
        written = {
            name: path
            for name, path in tables.items()
            if path is not None and _state(path) not in (None, before[name])
        }
        folders = {name: getattr(arguments, name) for name in _ORIGINS}
        origin = Origin(folders, tables=written)
        if arguments.submission.is_file():
            write_origin(arguments.submission, origin)
        again = page_flags.report_command(step_command("report"), arguments.submission, page)
        page_flags.end_with_page(
            page, lambda options: _write_page(options, arguments, origin), command=again
        )


def _show_plan(arguments: argparse.Namespace) -> None:
    from hearback.reading.inference.outputs import InferenceOptions  # noqa: PLC0415
    from hearback.reading.inference.plan import show_plan  # noqa: PLC0415  (imports torch)

    del arguments.page, arguments.no_page
    show_plan(InferenceOptions(**vars(arguments)))


def _write_submission(arguments: argparse.Namespace, cluster: Mapping[str, Any] | None) -> None:
    # After the parser: torch takes seconds to import, and --help needs none of it.
    from hearback.reading.inference.outputs import InferenceOptions  # noqa: PLC0415

    options = InferenceOptions(**vars(arguments))
    if cluster is not None:
        # By name: a submission's zip has what is imported, and needs no cluster.
        run = importlib.import_module("hearback.reading.inference.cluster.run")
        run.write_submission(options, **cluster)
        return
    from hearback.reading.inference.submission import write_submission  # noqa: PLC0415

    write_submission(options)


def _take_cluster_flags(arguments: argparse.Namespace) -> Mapping[str, Any] | None:
    """Remove the flags of --launcher; return the arguments of `cluster.run.write_submission`.

    None without a cluster. Also sets `arguments.device`. Raises HearbackError for flags that do not
    go together.
    """
    flags = {name: vars(arguments).pop(name) for name in ("launcher", *_CLUSTER_FLAGS)}
    address, gpu_share = flags["address"], flags["gpu_share"]
    if flags["launcher"] == "local":
        for name in _CLUSTER_FLAGS:
            if flags[name] is not None:
                raise HearbackError(f"--{name}: only with --launcher ray")
        return None
    if arguments.page is not None:
        command = f"{step_command('report')} --scores {arguments.submission}"
        raise HearbackError(f"--page: only with --launcher local; {command} writes it afterwards")
    if arguments.plan:
        raise HearbackError("--plan: only with --launcher local; it measures this machine")
    if gpu_share is None:
        gpu_share = 0.0 if arguments.device == "cpu" else 1.0
    if not 0 <= gpu_share <= 1:
        raise HearbackError(f"--gpu_share {gpu_share:g}: it must be from 0 to 1")
    n_cpus = flags["cpus_per_worker"]
    if n_cpus is not None and not n_cpus > 0:
        raise HearbackError(f"--cpus_per_worker {n_cpus:g}: it must be above 0")
    if gpu_share and arguments.device not in (None, "cuda"):
        raise HearbackError(f"--device {arguments.device}: each worker has exactly one GPU, cuda")
    arguments.device = "cuda" if gpu_share else "cpu"
    return {
        "address": address or "auto",
        "n_cpus": n_cpus,
        "gpu_share": gpu_share,
        "n_workers": flags["jobs"],
    }


def _state(path: Path | None) -> tuple[int, int] | None:
    """Return what differs once a file is written again; None without one."""
    if path is None or not path.is_file():
        return None
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _parse_flags() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_folders(parser, FOLDERS)
    add = parser.add_argument
    add("--config", type=Path, default=Path("model_configs.json"), help="the ensemble")
    add("--submission", type=Path, default=Path("submission.csv"), help="file to write")
    for flag, table, what in (
        ("--words", WORDS, "also write scores of the words"),
        ("--divergences", DIVERGENCES, "also write where learner and reference diverge"),
    ):
        description = f"{what} to this file (default: {table} beside the submission)"
        add(flag, type=Path, nargs="?", const=BESIDE, metavar="PATH", help=description)
    add("--device", help="cpu, cuda, … (default: a GPU if there is one)")
    add(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of the matrix products; auto: half precision if the device has it, else float32",
    )
    add(
        "--memory_gb",
        type=float,
        help="memory budget for loaded models, in GB (default: half of the free memory)",
    )
    add(
        "--workers",
        type=cli.int_of_at_least(0),
        default=0,
        help="processes that load recordings",
    )
    add(
        "--time_limit",
        type=cli.argument_type(parse_duration),
        help="limit from the start of the process (2h, 1h30m, 45m): run the folds that lower the "
        "log loss most for their time, and list the folds that are left out",
    )
    add(
        "--plan",
        action="store_true",
        help="score nothing: measure for about half a minute, and print what it will take; with "
        "--time_limit also which folds will run",
    )
    add("--launcher", choices=("local", "ray"), default="local", help="this process, or a cluster")
    page_flags.add_page_flags(
        parser,
        "page to look at and to listen to (default: submission.html beside submission.csv; with "
        "--time_limit or --launcher ray, none)",
    )
    _add_cluster_flags(parser)
    arguments = parser.parse_args()
    for flag, table in (("words", WORDS), ("divergences", DIVERGENCES)):
        if getattr(arguments, flag) == BESIDE:
            setattr(arguments, flag, arguments.submission.with_name(table))
    return arguments


def _add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `_CLUSTER_FLAGS`, which belong to --launcher ray."""
    add = parser.add_argument_group("with --launcher ray").add_argument
    add("--address", help="auto (RAY_ADDRESS, or this machine's cluster), local, or host:port")
    add(
        "--jobs",
        type=cli.int_of_at_least(1),
        help="workers, each with a copy of the models (default: as many as the machines can hold)",
    )
    add("--gpu_share", type=float, help="GPU share of a worker (default: 1; 0 with --device cpu)")
    add(
        "--cpus_per_worker",
        type=float,
        help="also its threads (default: all of the smallest machine; 1 with a GPU)",
    )


def _write_page(options: "PageOptions", arguments: argparse.Namespace, origin: Origin) -> None:
    # Here: a submission needs none of it.
    from hearback.reading.report.write import ScoredBy, write_new_recordings  # noqa: PLC0415

    write_new_recordings(
        options,
        arguments.submission,
        arguments.data,
        ScoredBy(arguments.config, arguments.assets),
        tts_data=arguments.tts_data,
        device=arguments.device,
        written=origin,
    )


if __name__ == "__main__":
    cli.run(main)
