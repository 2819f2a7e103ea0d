"""Step 1: check the labels and the snippets, separate the voices, and store the features.

    python -m hearback.songs.steps.preprocess --separate none repet

Reads data/songs/train_label.txt, manifest.csv where there is one, and the snippets in train/.
Writes store/songs: for each separation its sound, and from that each kind of features. Run again,
also after it was killed, it does only what is missing. Every problem is reported, not the first;
errors end it with status 2.
"""

import argparse
import contextlib
import sys
from pathlib import Path

from hearback.engine.cli import parser, run
from hearback.engine.data.problems import Report
from hearback.songs import SUBFOLDER
from hearback.songs.features import FEATURES
from hearback.songs.separation import methods
from hearback.songs.separation.methods import SEPARATIONS, open_separation
from hearback.songs.store import build_features
from hearback.songs.tables import CLASSES, read_snippets

DATA = Path("data", SUBFOLDER)
STORE = Path("store", SUBFOLDER)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    flags = parser(__doc__)
    flags.add_argument("--data", type=Path, default=DATA, help="labels and snippets")
    flags.add_argument("--store", type=Path, default=STORE, help="sounds and features")
    flags.add_argument(
        "--separate",
        nargs="+",
        choices=SEPARATIONS,
        default=["none"],
        help="how the voice is taken out of the music, each in a store of its own",
    )
    flags.add_argument(
        "--features", nargs="+", choices=FEATURES, default=list(FEATURES), help="what models see"
    )
    methods.add_options(flags)
    flags.add_argument(
        "--jobs", type=int, help="threads that compute (default: one for each processor)"
    )
    flags.add_argument("--strict", action="store_true", help="warnings end it with status 2 too")
    args = flags.parse_args()
    if args.jobs is not None and args.jobs < 1:
        flags.error("--jobs must be 1 or more")
    return args


def main() -> int:
    """Run step 1; return 0, or 2 if there are errors."""
    args = arguments()
    report = Report()
    snippets = read_snippets(args.data, report)
    if snippets.empty:
        report.raise_if_errors()
    options = methods.options_from(args)
    stored = []
    try:
        for name in dict.fromkeys(args.separate):
            opened = open_separation(name, **options.get(name, {}))
            with contextlib.closing(opened) as opened:
                for features in dict.fromkeys(args.features):
                    made = build_features(
                        snippets,
                        args.data,
                        args.store,
                        "train",
                        features,
                        separation=opened,
                        report=report,
                        workers=args.jobs,
                    )
                    stored.append(f"{name}, {features}: {len(made)} snippets")
    finally:
        if report.problems:
            print(report, file=sys.stderr)
    labels = snippets["label"].tolist()
    counts = ", ".join(f"{labels.count(label)} {name}" for label, name in enumerate(CLASSES))
    print(f"{len(snippets)} snippets in {args.data}: {counts}")
    print(f"in {args.store}", *stored, sep="\n  ")
    return 2 if report.errors or (args.strict and report.warnings) else 0


if __name__ == "__main__":
    run(main)
