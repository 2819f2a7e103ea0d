"""The files that `score.py` writes."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hearback import __version__
from hearback.engine.data.problems import Problem, as_row, count_noun
from hearback.engine.data.tables import write_table
from hearback.engine.io import STANDARD_OUTPUT, write_json
from hearback.reading.scoring.results import Score, rounded, score_frame, word_frame
from hearback.reading.words import words_path


def write_scores(scores: Sequence[Score], path: Path) -> None:
    """Write `path`, a row per recording, and its `words_path` beside it, a row per word."""
    write_table(score_frame(scores), path)
    words = words_path(path)
    frame = word_frame(scores)
    write_table(frame, words)
    n, n_words = count_noun(len(scores), "recording"), count_noun(len(frame), "word")
    print(f"wrote {path}: {n}; {words}: {n_words}")


def as_json(scores: Sequence[Score], problems: Sequence[Problem], scorer: str) -> dict[str, Any]:
    """Return scores as a JSON object: the scorer, and lists `scores` and `problems` of dataclasses.

    `problems` are those of the input and what the scorer found, as `scores_problems.csv` has them.
    """
    return {
        "hearback": __version__,
        "scorer": scorer,
        "scores": [asdict(rounded(score)) for score in scores],
        "problems": [as_row(problem) for problem in problems],
    }


def write_scores_json(
    scores: Sequence[Score], problems: Sequence[Problem], scorer: str, path: Path
) -> None:
    """Write the scores as JSON, "-" for standard output."""
    value = as_json(scores, problems, scorer)
    if path == STANDARD_OUTPUT:
        json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
        print()
        return
    write_json(path, value)
    print(f"wrote {path}: {count_noun(len(scores), 'recording')}")
