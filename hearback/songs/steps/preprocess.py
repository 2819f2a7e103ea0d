"""Step 1: check labels and snippets, separate the voices, and store the features.

    python -m hearback.songs preprocess --separate none repet

Reads data/songs/train_label.txt, manifest.csv if present, and the snippets in train/. Writes the
audio of each separation, and the features computed from it, to store/songs. Can be run again, also
after it was killed: only missing parts are computed. Every problem is reported, not only the first;
errors give exit status 2.
"""

import argparse
import contextlib
import sys

import numpy as np

from hearback.engine.cli import add_folders, parser, run
from hearback.engine.data.folds import find_unlearnable_labels
from hearback.engine.data.problems import Report
from hearback.engine.training.options import N_FOLDS
from hearback.songs import FOLDERS, SUBFOLDER
from hearback.songs.features import FEATURES
from hearback.songs.separation import methods
from hearback.songs.separation.methods import SEPARATIONS, open_separation
from hearback.songs.store import build_features
from hearback.songs.tables import CLASSES, LABELS, labels_path, read_snippets


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    flags = parser(__doc__)
    add_folders(flags, {name: FOLDERS[name] for name in ("data", "store")}, SUBFOLDER)
    flags.add_argument(
        "--separate",
        nargs="+",
        choices=SEPARATIONS,
        default=["none"],
        help="methods that separate the voice from the music, each with its own store",
    )
    flags.add_argument(
        "--features",
        nargs="+",
        choices=FEATURES,
        default=list(FEATURES),
        help="inputs of the models",
    )
    methods.add_options(flags)
    flags.add_argument("--jobs", type=int, help="threads (default: one for each processor)")
    flags.add_argument("--strict", action="store_true", help="exit with status 2 for warnings, too")
    args = flags.parse_args()
    if args.jobs is not None and args.jobs < 1:
        flags.error("--jobs must be 1 or more")
    return args


def main() -> int:
    """Run step 1; return 0, or 2 if there are errors."""
    args = arguments()
    report = Report()
    snippets = read_snippets(args.data, report)
    labels = snippets["label"].to_numpy()
    report.extend(find_unlearnable_labels(labels, LABELS, N_FOLDS, str(labels_path(args.data))))
    if snippets.empty or report.table_errors:
        report.raise_if_errors()  # before anything is decoded
    options = methods.options_from(args)
    stored = []
    try:
        for name in dict.fromkeys(args.separate):
            opened = open_separation(name, **options.get(name, {}))
            with contextlib.closing(opened) as opened:
                for features in dict.fromkeys(args.features):
                    built = build_features(
                        snippets,
                        args.data,
                        args.store,
                        "train",
                        features,
                        separation=opened,
                        report=report,
                        workers=args.jobs,
                    )
                    stored.append(f"{name}, {features}: {len(built)} snippets")
    finally:
        if report.problems:
            print(report, file=sys.stderr)
    counts = ", ".join(
        f"{np.count_nonzero(labels == label)} {name}" for label, name in enumerate(CLASSES)
    )
    print(f"{len(snippets)} snippets in {args.data}: {counts}")
    print(f"in {args.store}", *stored, sep="\n  ")
    return 2 if report.errors or (args.strict and report.warnings) else 0


if __name__ == "__main__":
    run(main)
