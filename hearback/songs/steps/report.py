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
from hearback.engine.page.origin import read_origin
from hearback.songs import FOLDERS, REPORT_COMMAND, SUBFOLDER

CONFIG = "model_configs.json"
DEFAULT_PAGE = Path("report_songs.html")
# Flags of the command that writes the same page with other sound.
_REPEATED = ("scores", "data", "assets", "config", "models", "corrections", "out")


def main() -> None:
    """Parse the command line and write the page."""
    parser = _parser()
    flags = _parse_flags(parser)
    command = page_flags.repeated(REPORT_COMMAND, parser, flags, _REPEATED)
    options = page_flags.report_options(flags, command, DEFAULT_PAGE)
    # After the parser: torch takes seconds to import, and --help needs none of it.
    from hearback.songs.report import write  # noqa: PLC0415
    from hearback.songs.trained import read_trained  # noqa: PLC0415

    if flags.scores is not None:
        written = read_origin(flags.scores)
        known = {} if written is None else written.folders
        given = flags.assets != Path("assets", SUBFOLDER) or "config" not in known
        config = flags.config or (flags.assets / CONFIG if given else known["config"])
        data = flags.data or known.get("data") or Path("data", SUBFOLDER, "test")
        write.write_new_recordings(options, flags.scores, data, config)
        return
    config = flags.config or flags.assets / CONFIG
    data = flags.data or Path("data", SUBFOLDER)
    trained = read_trained(data, flags.assets, flags.models, corrections=flags.corrections)
    is_there = flags.config is not None or config.is_file()
    write.write_out_of_fold(options, trained, data, config if is_there else None)


def _parser() -> cli.Parser:
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
    page_flags.add_report_flags(parser, "singers", DEFAULT_PAGE, "submission.csv")
    return parser


def _parse_flags(parser: cli.Parser) -> argparse.Namespace:
    flags = parser.parse_args()
    for name in ("models", "corrections"):
        if flags.scores is not None and getattr(flags, name) is not None:
            parser.error(f"--{name} is for trained models, not for --scores: leave it out")
    return flags


if __name__ == "__main__":
    cli.run(main)
