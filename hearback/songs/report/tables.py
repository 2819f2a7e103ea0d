"""The tables of the step infer that a page of new snippets is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.data.problems import Problem
from hearback.engine.data.tables import read_problems, read_written
from hearback.engine.errors import HearbackError
from hearback.songs.evaluation import PROBABILITIES, are_shares
from hearback.songs.tables import probabilities_path


@dataclass(frozen=True)
class ClassifiedSnippets:
    """What was written about new snippets.

    Attributes:
        filenames: of the snippets.
        probabilities: (rows, classes); NaN for snippets that could not be classified.
        problems: of the input.
    """

    filenames: Sequence[str]
    probabilities: np.ndarray
    problems: Sequence[Problem]


def read_classified(submission: Path) -> ClassifiedSnippets:
    """Read the probabilities and problems beside a submission.

    Raises HearbackError if they cannot be read, or are not those of the submission.
    """
    path = probabilities_path(submission)
    if not path.is_file():
        raise HearbackError(
            f"{path}: not there; it belongs to {submission.name}: write both again with "
            "python -m hearback.songs infer"
        )
    classes = read_written(submission, ("filename", "label"))
    table = read_written(path, ("filename", *PROBABILITIES))
    numbers = table[PROBABILITIES].apply(pd.to_numeric, errors="coerce")
    probabilities = numbers.to_numpy(float, copy=True)
    for filename, row in zip(table["filename"], probabilities, strict=True):
        if not are_shares(row.tolist()):
            raise HearbackError(
                f"{path}: the probabilities of {filename} are not four numbers with a sum of one; "
                "write it again with python -m hearback.songs infer"
            )
    likeliest = probabilities.argmax(axis=1).astype(str).tolist()
    if list(zip(classes["filename"], classes["label"], strict=True)) != list(
        zip(table["filename"], likeliest, strict=True)
    ):
        raise HearbackError(
            f"{path}: is not that of {submission.name}, whose snippets or classes are others; "
            "write both again with python -m hearback.songs infer"
        )
    problems = read_problems(submission)
    failed = {each.filename for each in problems if each.severity == "error"}
    # An error of no snippet: the models could not be run.
    is_failed = table["filename"].isin(failed).to_numpy(dtype=bool) | (None in failed)
    probabilities[is_failed] = np.nan
    return ClassifiedSnippets(table["filename"].tolist(), probabilities, problems)
