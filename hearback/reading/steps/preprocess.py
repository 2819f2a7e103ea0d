"""Step 1: check tables and recordings, and render a reference for every expected text.

    python preprocess.py
    python preprocess.py --models modeltok

Reads train_metadata.csv, train_labels.csv, train_words.csv, test_metadata.csv and
submission_format.csv in data/, as far as they exist, and their recordings. Writes the recordings at
16 kHz to store/. Writes the references to tts_data/, with references for hard negatives of the
training texts (--hard_negatives) and their table, hard_negatives.csv; nothing is rendered for
--models that hear no reference speech.
Can be run again, even after it was killed: only missing parts are computed. Every problem is
reported, not only the first; errors of whole tables, such as a missing column, before recordings
are decoded. Problems of the training data give exit status 2; those of the test data are
warnings.
"""

import argparse
from pathlib import Path

from hearback.engine.cli import add_folders, parser, run
from hearback.reading import FOLDERS
from hearback.reading.hard_negatives import N_PER_TEXT
from hearback.reading.recipe import find_recipes
from hearback.reading.voices import BACKENDS, SPEED
from hearback.reading.voices.hibari import VOICE as HIBARI_VOICE
from hearback.reading.voices.melo import MODEL_DIR, PYTHON


def parse_flags() -> argparse.Namespace:
    """Parse the command line."""
    flags = parser(__doc__)
    add_folders(flags, {name: FOLDERS[name] for name in ("data", "tts_data", "store")})
    models = tuple(find_recipes())
    flags.add_argument(
        "--models",
        nargs="+",
        choices=models,
        metavar="MODEL",
        help="models that will be trained: reference speech is rendered only if one of them hears "
        f"it (default: all: {', '.join(models)})",
    )
    flags.add_argument(
        "--voice", choices=BACKENDS, default=BACKENDS[0], help="text-to-speech backend"
    )
    flags.add_argument("--speed", type=float, default=SPEED, help="1 is the voice's normal speed")
    flags.add_argument("--hibari_voice", default=HIBARI_VOICE, help="hibari's voice")
    flags.add_argument(
        "--melo_python",
        type=Path,
        default=PYTHON,
        help="Python interpreter of MeloTTS's environment",
    )
    flags.add_argument(
        "--melo_model", type=Path, default=MODEL_DIR, help="folder of MeloTTS's files"
    )
    flags.add_argument("--melo_device", default="cpu", help="device of MeloTTS")
    flags.add_argument(
        "--hard_negatives",
        type=int,
        help=f"hard negatives per training text, 0 for none (default: {N_PER_TEXT})",
    )
    flags.add_argument("--seed", type=int, default=42, help="random seed of the hard negatives")
    flags.add_argument(
        "--jobs", type=int, help="rendering processes (default: one for each processor)"
    )
    flags.add_argument("--strict", action="store_true", help="exit with status 2 for warnings, too")
    args = flags.parse_args()
    for name in ("hard_negatives", "seed"):
        if (getattr(args, name) or 0) < 0:
            flags.error(f"--{name} must be 0 or more")
    if args.jobs is not None and args.jobs < 1:
        flags.error("--jobs must be 1 or more")
    return args


def main() -> int:
    """Run step 1; return 0, or 2 if there are errors."""
    args = parse_flags()
    # After the parser: torch takes seconds to import, and --help needs none of it.
    from hearback.reading import preprocessing  # noqa: PLC0415

    return preprocessing.preprocess(args)


if __name__ == "__main__":
    run(main)
