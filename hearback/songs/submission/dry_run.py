"""Run submission.zip in a sandbox like a competition's runtime, and check its results.

    python -m hearback.songs dry_run --zip demo/songs/submission.zip --data demo/songs/test

`hearback.engine.submission.sandbox` describes the dry run. Classifies some of a folder's snippets,
and compares classes and probabilities row by row with those of the step infer.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine import cli
from hearback.engine.submission.sandbox import (
    TOLERANCE,
    DryRun,
    Sandbox,
    add_arguments,
    check_submission,
    copy_clips,
    evenly_spaced,
    run_here,
    unpack,
)
from hearback.songs import SUBFOLDER
from hearback.songs.evaluation import PROBABILITIES
from hearback.songs.tables import list_snippets, probabilities_path


class SongDryRun(DryRun[Sandbox]):
    """A dry run of the songs competition's submission."""

    def set_up(self, folder: Path) -> Sandbox:
        """Unpack the zip into a new folder; copy evenly spaced snippets to its data folder."""
        runtime, workdir = unpack(self.archive, folder, "python -m hearback.songs submission")
        names = list_snippets(self.data)["filename"].tolist()
        chosen = [names[index] for index in evenly_spaced(len(names), self.n_clips)]
        return Sandbox(runtime, workdir, copy_clips(self.data, chosen, runtime))

    def compare(self, sandbox: Sandbox) -> tuple[list[str], float]:
        """Compare classes and probabilities with those of infer in this environment."""
        folder = sandbox.submission_here.parent
        run_here(
            ["hearback.songs", "infer", "--no_page"],
            data=sandbox.data,
            store=folder / "store",
            assets=sandbox.runtime / "assets",
            config=sandbox.runtime / "model_configs.json",
            submission=sandbox.submission_here,
        )
        return compare(sandbox.submission, sandbox.submission_here)

    def describe(self, sandbox: Sandbox) -> str:
        """Return a line with the number of snippets."""
        n_rows = len(list_snippets(sandbox.data))
        return f"{n_rows} snippets, one damaged, listed and at the class shares"


def compare(submission: Path, expected: Path) -> tuple[list[str], float]:
    """Compare two submissions and their probabilities row by row.

    Returns the faults of `submission` and the largest difference of a probability. If two classes
    are equally likely up to rounding, both are correct.
    """
    ours, theirs = (pd.read_csv(path, dtype={"filename": str}) for path in (submission, expected))
    if list(ours.columns) != ["filename", "label"]:
        return [f"header {list(ours.columns)}, not filename,label"], np.inf
    if list(ours["filename"]) != list(theirs["filename"]):
        return [f"rows of {list(ours['filename'])}, not of {list(theirs['filename'])}"], np.inf
    tables = [
        pd.read_csv(probabilities_path(path))[PROBABILITIES] for path in (submission, expected)
    ]
    difference = (tables[0] - tables[1]).abs().max(axis=1)
    likeliest = tables[1].max(axis=1)
    chosen = tables[1].to_numpy()[np.arange(len(ours)), ours["label"]]
    is_wrong = ~(difference <= TOLERANCE) | ~(likeliest - chosen <= TOLERANCE)
    faults = [
        f"{row.filename}: class {row.label}, here {expected_label}, probabilities "
        f"{row_difference:.1e} apart"
        for row, expected_label, row_difference in zip(
            ours[is_wrong].itertuples(),
            theirs["label"][is_wrong],
            difference[is_wrong],
            strict=True,
        )
    ]
    return faults, float(difference.max())


def main() -> None:
    """Parse the command line and run."""
    parser = cli.parser(__doc__)
    add_arguments(parser, Path("data", SUBFOLDER, "test"))
    arguments = parser.parse_args()
    dry_run = SongDryRun(arguments.zip, arguments.data, arguments.clips)
    check_submission(dry_run, arguments.python)


if __name__ == "__main__":
    cli.run(main)
