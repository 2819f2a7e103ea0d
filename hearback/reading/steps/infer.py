"""Step 5: score the test recordings with the ensemble and write submission.csv.

Every row gets a score, if need be the base rate of its task; submission_problems.csv lists which
and why. If the models cannot be run at all, a submission of base rates is written unless there is
one, and the exit status is 2. A table that no model can fill (--words, --divergences) is left out
with a warning.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hearback.engine import cli
from hearback.engine.ensemble.budget import parse_duration
from hearback.engine.machine import PRECISIONS
from hearback.engine.page import flags as page_flags
from hearback.engine.page.origin import Origin, write_origin
from hearback.reading import DIVERGENCES, FOLDERS, step_command
from hearback.reading.words import TABLE as WORDS

if TYPE_CHECKING:
    from hearback.engine.page.writing import PageOptions

_ORIGINS = ("data", "config", "assets", "tts_data")  # flags that a page is made with
BESIDE = Path()  # value of a flag without a path: a file beside the submission


def main() -> None:
    """Parse the command line, and write the submission and its page."""
    arguments = _parse_flags()
    is_default = arguments.time_limit is None
    default = page_flags.page_beside(arguments.submission) if is_default else None
    page = page_flags.choose_page(arguments.page, default, is_off=arguments.no_page)
    # After the parser: torch takes seconds to import, and --help needs none of it.
    from hearback.reading.inference.submission import (  # noqa: PLC0415
        InferenceOptions,
        write_submission,
    )

    del arguments.page, arguments.no_page
    tables = {"words": arguments.words, "divergences": arguments.divergences}
    before = {name: _state(path) for name, path in tables.items()}
    with cli.outliving_readers():  # `| head` must not cost the scores
        write_submission(InferenceOptions(**vars(arguments)))
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
    page_flags.add_page_flags(
        parser,
        "page to look at and to listen to (default: submission.html beside submission.csv; with "
        "--time_limit, none)",
    )
    arguments = parser.parse_args()
    if arguments.words == BESIDE:
        arguments.words = arguments.submission.with_name(WORDS)
    if arguments.divergences == BESIDE:
        arguments.divergences = arguments.submission.with_name(DIVERGENCES)
    return arguments


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
