"""Write report.html: one page to look at results and to listen to recordings, offline.

    python report.py                         trained models, out of fold
    python report.py --scores scores.csv     new recordings, scored by score.py or infer.py

The page opens in a browser without a network. It holds the sound of the recordings that matter
most; --audio all and --audio none change that. Recordings of children are personal: --anonymous
leaves out filenames, speakers and sound.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hearback.engine import cli
from hearback.engine.data import corrections
from hearback.engine.page import flags as page_flags
from hearback.engine.page.origin import read_origin
from hearback.reading import FOLDERS, step_command

if TYPE_CHECKING:
    from hearback.engine.page.writing import PageOptions

CONFIG = Path("model_configs.json")
_OF_RUN = ("data", "tts_data", "assets")  # folders that the origin of a table names
_REPEATED = (  # flags of the command that writes the same page with other sound
    *("scores", "data", "tts_data", "store", "assets", "config", "scorer", "models"),
    *("causes", "corrections", "out"),
)


def main() -> None:
    """Parse the command line and write the page."""
    parser = _parser()
    flags = _parse_flags(parser)
    command = page_flags.repeated(step_command("report"), parser, flags, _REPEATED)
    options = page_flags.report_options(flags, command)
    # After the parser: torch takes seconds to import, and --help needs none of it.
    from hearback.reading.report import write  # noqa: PLC0415
    from hearback.reading.trained import read_trained  # noqa: PLC0415

    if flags.scores is not None:
        _write_scored(flags, options)
        return
    data, assets = flags.data or Path("data"), flags.assets or Path("assets")
    trained = read_trained(
        data,
        assets,
        flags.models,
        causes=flags.causes,
        corrections=flags.corrections,
    )
    sources = write.OutOfFoldSources(
        data=data,
        assets=assets,
        store=flags.store,
        tts_data=flags.tts_data or Path("tts_data"),
        config=flags.config or (CONFIG if CONFIG.is_file() else None),
        device=flags.device,
    )
    write.write_out_of_fold(options, trained, sources)


def _write_scored(flags: argparse.Namespace, options: "PageOptions") -> None:
    """Write the page of new recordings; what no flag says is as when they were scored."""
    from hearback.reading.report import write  # noqa: PLC0415

    written = read_origin(flags.scores)
    known = {} if written is None else written.folders

    def path_of(name: str) -> Path | None:
        return getattr(flags, name) or known.get(name)

    scorer = flags.scorer
    if scorer is None and flags.config is None and written is not None:
        scorer = written.scorer or known.get("scorer")
    if scorer is not None:
        scored_by = write.ScoredBy.scorer(str(scorer))
    else:
        named = path_of("config")
        config = named or (CONFIG if CONFIG.is_file() else None)
        assets = path_of("assets") or Path("assets")
        scored_by = write.ScoredBy(config, assets, is_assumed=named is None)
    write.write_new_recordings(
        options,
        flags.scores,
        path_of("data") or Path("data"),
        scored_by,
        tts_data=path_of("tts_data") or Path("tts_data"),
        device=flags.device,
        written=written,
    )


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    of_run = {
        name: f"{FOLDERS[name]} (default: {name}; with --scores, as when they were scored)"
        for name in _OF_RUN
    }
    cli.add_folders(parser, FOLDERS | of_run)
    parser.set_defaults(**dict.fromkeys(_OF_RUN))
    corrections.add_flag(parser)
    add = parser.add_argument
    add(
        "--scores",
        type=Path,
        help="scores.csv of score.py, or submission.csv of infer.py; "
        "where their recordings and models are is known from the run that wrote them",
    )
    add("--scorer", help="of score.py, for its card: tiny.en, base, or a folder")
    add(
        "--config",
        type=Path,
        help=f"the ensemble (default: {CONFIG}, if it is there; none for scores.csv)",
    )
    add("--models", nargs="+", help="models to show (default: all trained ones)")
    add("--causes", type=Path, help="CSV with the columns filename and why: results by cause")
    page_flags.add_report_flags(parser, "speakers")
    add("--device", help="cpu, cuda, … for the times of words (default: a GPU if there is one)")
    return parser


def _parse_flags(parser: cli.Parser) -> argparse.Namespace:
    flags = parser.parse_args()
    for name in ("models", "causes", "corrections"):
        if flags.scores is not None and getattr(flags, name) is not None:
            parser.error(f"--{name} is for trained models, not for --scores: leave it out")
    if flags.scorer is not None and (flags.scores is None or flags.config is not None):
        parser.error("--scorer is for --scores, without --config")
    return flags


if __name__ == "__main__":
    cli.run(main)
