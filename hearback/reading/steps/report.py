"""Write report.html: one page to look at results and to listen to recordings, offline.

    python report.py                         trained models, out of fold
    python report.py --scores scores.csv     new recordings, scored by score.py or infer.py

The page opens in a browser without a network. It holds the sound of the recordings that matter
most; --audio all and --audio none change that. Recordings of children are personal: --anonymous
leaves out filenames, speakers and sound.
"""

import argparse
from pathlib import Path

from hearback.engine import cli
from hearback.engine.data import corrections
from hearback.engine.page import flags as page_flags
from hearback.reading import FOLDERS

CONFIG = Path("model_configs.json")


def main() -> None:
    """Parse the command line and write the page."""
    flags = _parse_flags()
    options = page_flags.report_options(flags)
    # After the parser: torch takes seconds to import, and --help needs none of it.
    from hearback.reading.report import write  # noqa: PLC0415

    if flags.scores is not None:
        write.write_new_recordings(
            options,
            flags.scores,
            flags.data,
            tts_data=flags.tts_data,
            config=flags.config,
            scorer=flags.scorer,
        )
        return
    sources = write.OutOfFoldSources(
        data=flags.data,
        assets=flags.assets,
        store=flags.store,
        tts_data=flags.tts_data,
        config=flags.config,
        models=flags.models,
        causes=flags.causes,
        corrections=flags.corrections,
        device=flags.device,
    )
    write.write_out_of_fold(options, sources)


def _parse_flags() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_folders(parser, FOLDERS)
    corrections.add_flag(parser)
    add = parser.add_argument
    add("--scores", type=Path, help="scores.csv of score.py, or submission.csv of infer.py")
    add("--scorer", help="of score.py, for its card: tiny.en, base, or a folder")
    add("--config", type=Path, help=f"the ensemble (default: {CONFIG}, if it is there)")
    add("--models", nargs="+", help="models to show (default: all trained ones)")
    add("--causes", type=Path, help="CSV with the columns filename and why: results by cause")
    page_flags.add_report_flags(parser, "speakers")
    add("--device", help="cpu, cuda, … for the times of words (default: a GPU if there is one)")
    flags = parser.parse_args()
    for name in ("models", "causes", "corrections"):
        if flags.scores is not None and getattr(flags, name) is not None:
            parser.error(f"--{name} is for trained models, not for --scores: leave it out")
    if flags.scorer is not None and (flags.scores is None or flags.config is not None):
        parser.error("--scorer is for --scores, without --config")
    if flags.config is None and flags.scorer is None and CONFIG.is_file():
        flags.config = CONFIG
    return flags


if __name__ == "__main__":
    cli.run(main)
