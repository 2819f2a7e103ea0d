"""Step 5: score the test recordings with the ensemble and write submission.csv.

Every row gets a score, if need be the base rate of its task; submission_problems.csv lists which
and why. If the models cannot be run at all, a submission of base rates is written unless there is
one, and the exit status is 2. A table that no model can fill (--words, --divergences) is left out
with a warning.
"""

from pathlib import Path

from hearback.engine import cli
from hearback.engine.ensemble.budget import parse_duration
from hearback.engine.machine import PRECISIONS
from hearback.reading import DIVERGENCES, FOLDERS
from hearback.reading.words import TABLE as WORDS

BESIDE = Path()  # value of a flag without a path: a file beside the submission


def main() -> None:
    """Parse the command line and write the submission."""
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
    arguments = parser.parse_args()
    # After the parser: torch takes seconds to import, and --help needs none of it.
    from hearback.reading.inference.submission import (  # noqa: PLC0415
        InferenceOptions,
        write_submission,
    )

    if arguments.words == BESIDE:
        arguments.words = arguments.submission.with_name(WORDS)
    if arguments.divergences == BESIDE:
        arguments.divergences = arguments.submission.with_name(DIVERGENCES)
    write_submission(InferenceOptions(**vars(arguments)))


if __name__ == "__main__":
    cli.run(main)
