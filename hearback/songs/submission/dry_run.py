"""A dry run of a runtime that classifies songs: what submission.zip does there.

    python -m hearback.songs.submission.dry_run --zip demo/songs/submission.zip --data demo/songs/test

As `hearback.engine.submission.sandbox` plays it, on some of the snippets of a folder. Classes and probabilities are
compared, row by row, with what hearback.songs.steps.infer gives here.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine import cli
from hearback.engine.submission.sandbox import (
    TOLERANCE,
    DryRun,
    Sandbox,
    copy_clips,
    declare,
    evenly,
    run_here,
    show,
    unpack,
)
from hearback.songs import SUBFOLDER
from hearback.songs.evaluation import PROBABILITIES
from hearback.songs.inference import beside
from hearback.songs.tables import list_snippets


class SongPlay(DryRun[Sandbox]):
    """A submission that says whose voice sings."""

    def set_up(self, folder: Path) -> Sandbox:
        """Unpack the zip into a new folder and put snippets beside it, evenly from all."""
        runtime, workdir = unpack(self.archive, folder, "python -m hearback.songs.submission.pack")
        names = list_snippets(self.data)["filename"].tolist()
        chosen = [names[place] for place in evenly(len(names), self.n_clips)]
        return Sandbox(runtime, workdir, copy_clips(self.data, chosen, runtime))

    def compare(self, sandbox: Sandbox) -> tuple[list[str], float]:
        """Compare classes and probabilities with those of hearback.songs.steps.infer here."""
        folder = sandbox.workdir / "here"
        run_here(
            ["-m", "hearback.songs.steps.infer"],
            data=sandbox.data,
            store=folder / "store",
            assets=sandbox.runtime / "assets",
            config=sandbox.runtime / "model_configs.json",
            submission=folder / "submission.csv",
        )
        return compare(sandbox.submission, folder / "submission.csv")

    def describe(self, sandbox: Sandbox) -> str:
        """Return how many snippets there were."""
        n_rows = len(list_snippets(sandbox.data))
        return f"{n_rows} snippets, one damaged, listed and at the class shares"


def compare(submission: Path, expected: Path) -> tuple[list[str], float]:
    """Compare two submissions and the probabilities beside them, row by row.

    Returns what is wrong with the first, and the largest difference of a probability. Where two
    classes are as likely as each other, but for rounding, either will do.
    """
    ours, theirs = (pd.read_csv(path, dtype={"filename": str}) for path in (submission, expected))
    if list(ours.columns) != ["filename", "label"]:
        return [f"header {list(ours.columns)}, not filename,label"], np.inf
    if list(ours["filename"]) != list(theirs["filename"]):
        return [f"rows of {list(ours['filename'])}, not of {list(theirs['filename'])}"], np.inf
    tables = [pd.read_csv(beside(path))[PROBABILITIES] for path in (submission, expected)]
    difference = (tables[0] - tables[1]).abs().max(axis=1)
    likeliest = tables[1].max(axis=1)
    chosen = tables[1].to_numpy()[np.arange(len(ours)), ours["label"]]
    is_wrong = ~(difference <= TOLERANCE) | ~(likeliest - chosen <= TOLERANCE)
    faults = [
        f"{row.filename}: class {row.label}, here {expected_label}, probabilities "
        f"{of_row:.1e} apart"
        for row, expected_label, of_row in zip(
            ours[is_wrong].itertuples(),
            theirs["label"][is_wrong],
            difference[is_wrong],
            strict=True,
        )
    ]
    return faults, float(difference.max())


def main() -> None:
    """Parse and rehearse."""
    parser = cli.parser("Play a runtime, and compare what main.py writes there.")
    declare(parser, Path("data", SUBFOLDER, "test"))
    asked = parser.parse_args()
    show(SongPlay(asked.zip, asked.data, asked.clips), asked.python)


if __name__ == "__main__":
    cli.run(main)
