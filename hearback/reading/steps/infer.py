"""Step 5: score the test recordings with the ensemble and write submission.csv.

Every row gets a score, if need be the base rate of its task; submission_problems.csv lists which
and why. If the models cannot be run at all, a submission of base rates is written unless there is
one, and the exit status is 2. A table that no model can fill (--words, --divergences) is left out
with a warning.
"""

import argparse
from pathlib import Path

from hearback.engine import cli
from hearback.engine.ensemble.budget import parse_duration
from hearback.engine.machine import PRECISIONS
from hearback.engine.page import flags as page_flags
from hearback.reading import DIVERGENCES, FOLDERS
from hearback.reading.words import TABLE as WORDS

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
    with cli.outliving_readers():  # `| head` must not cost the scores
        write_submission(InferenceOptions(**vars(arguments)))
        if page is not None:
            _write_page(page, arguments)


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


def _write_page(page: Path, arguments: argparse.Namespace) -> None:
    # Here: a submission needs none of it.
    from hearback.engine.page.writing import PageOptions  # noqa: PLC0415
    from hearback.reading.report.write import write_new_recordings  # noqa: PLC0415

    write_new_recordings(
        PageOptions(page),
        arguments.submission,
        arguments.data,
        tts_data=arguments.tts_data,
        config=arguments.config,
    )


if __name__ == "__main__":
    cli.run(main)
