"""Write report_songs.html: one page to look at results and to listen to snippets, offline.

    python -m hearback.songs report                             trained models, out of fold
    python -m hearback.songs report --scores submission.csv     new snippets, classified by infer

The page opens in a browser without a network. It holds the sound of the snippets that matter most;
--audio all and --audio none change that. --anonymous leaves out filenames, singers and sound. The
ensemble of get_config is shown if its file is there.
"""

import argparse
from pathlib import Path

from hearback.engine import cli
from hearback.engine.data import corrections
from hearback.engine.page import flags as page_flags
from hearback.songs import FOLDERS, SUBFOLDER


def main() -> None:
    """Parse the command line and write the page."""
    flags = _parse_flags()
    options = page_flags.report_options(flags)
    # After the parser: torch takes seconds to import, and --help needs none of it.
    from hearback.songs.report import write  # noqa: PLC0415

    config = flags.config or flags.assets / "model_configs.json"
    if flags.scores is not None:
        data = flags.data or Path("data", SUBFOLDER, "test")
        write.write_new_recordings(options, flags.scores, data, config)
        return
    sources = write.OutOfFoldSources(
        data=flags.data or Path("data", SUBFOLDER),
        assets=flags.assets,
        config=config if flags.config is not None or config.is_file() else None,
        models=flags.models,
        corrections=flags.corrections,
    )
    write.write_out_of_fold(options, sources)


def _parse_flags() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    add = parser.add_argument
    default = Path("data", SUBFOLDER)
    add(
        "--data",
        type=Path,
        help=f"{FOLDERS['data']} (default: {default}); with --scores, of the snippets (default: "
        f"{default / 'test'})",
    )
    cli.add_folders(parser, {"assets": FOLDERS["assets"]}, SUBFOLDER)
    corrections.add_flag(parser)
    add("--scores", type=Path, help="submission.csv of infer: new snippets")
    add("--config", type=Path, help="the ensemble (default: model_configs.json in the assets)")
    add("--models", nargs="+", help="models to show (default: all trained ones)")
    page_flags.add_report_flags(parser, "singers", Path("report_songs.html"))
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
