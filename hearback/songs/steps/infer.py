"""Step 5: classify the snippets of a folder with the ensemble and write submission.csv.

    python -m hearback.songs infer --data FOLDER

FOLDER contains audio files, also in subfolders. Writes submission.csv (filename and label: 0 no
voice, 1 male, 2 female, 3 several), and beside it submission_probabilities.csv and submission.html,
a page to look at and to listen to. Uses no network.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hearback.engine import cli
from hearback.engine.machine import TRAINING_PRECISIONS
from hearback.engine.page import flags
from hearback.engine.page.origin import Origin, write_origin
from hearback.songs import FOLDERS, REPORT_COMMAND, SUBFOLDER
from hearback.songs.separation import methods

if TYPE_CHECKING:
    from hearback.engine.page.writing import PageOptions


def main() -> None:
    """Parse the command line and run."""
    parser = cli.parser(__doc__)
    cli.add_folders(parser, {**FOLDERS, "data": "folder of the snippets"}, SUBFOLDER)
    parser.set_defaults(data=Path("data", SUBFOLDER, "test"))
    add = parser.add_argument
    add("--config", type=Path, help="the ensemble (default: model_configs.json in the assets)")
    add("--submission", type=Path, default=Path("submission.csv"), help="file to write")
    add("--device", help="cpu, cuda, … (default: a GPU if there is one)")
    add(
        "--precision",
        choices=TRAINING_PRECISIONS,
        default="auto",
        help="of the matrix products; auto: half precision if the device has it, else float32",
    )
    methods.add_options(parser)
    flags.add_page_flags(
        parser,
        "page to look at and to listen to (default: submission.html beside submission.csv)",
    )
    arguments = parser.parse_args()
    default = flags.page_beside(arguments.submission)
    page = flags.choose_page(arguments.page, default, is_off=arguments.no_page)
    arguments.config = arguments.config or arguments.assets / "model_configs.json"
    # After the parser: torch takes seconds to import, and --help needs none of it.
    from hearback.songs.inference import InferenceOptions, write_submission  # noqa: PLC0415

    options = InferenceOptions(
        data=arguments.data,
        store=arguments.store,
        assets=arguments.assets,
        config=arguments.config,
        submission=arguments.submission,
        device=arguments.device,
        precision=arguments.precision,
        separations=methods.options_from(arguments),
    )
    with cli.outliving_readers():  # `| head` must not cost the scores
        write_submission(options)
        folders = {"data": arguments.data, "config": arguments.config}
        write_origin(arguments.submission, Origin(folders))
        again = flags.report_command(REPORT_COMMAND, arguments.submission, page)
        flags.end_with_page(page, lambda options: _write_page(options, arguments), command=again)


def _write_page(options: "PageOptions", arguments: argparse.Namespace) -> None:
    # Here: a submission needs none of it.
    from hearback.songs.report.write import write_new_recordings  # noqa: PLC0415

    write_new_recordings(options, arguments.submission, arguments.data, arguments.config)


if __name__ == "__main__":
    cli.run(main)
