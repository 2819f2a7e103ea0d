"""Scores of single words: their tables, and a calibration that needs no label of any word.

A token scorer gives log-odds that each word of a text was said, and that nothing is missing before
it; one more of the latter for the end of the text. They are laid out as (rows, places, 2): last
`SAID` and `COMPLETE`, NaN where a text has no such word; there is a place for each word of the
longest text, and one for its end. On disk they are

    assets/<model>_<fold>.words.csv
      filename, position (from 0), word, said, complete

with an empty word for the end of a text. Words are what stands between white space.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.model_selection import GroupKFold

from hearback.engine.ensemble.calibration import Line
from hearback.engine.errors import HearbackError
from hearback.engine.io import sha256_of
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata

SAID, COMPLETE = 0, 1
TABLE = "word_scores.csv"
N_CROSS_FITS = 10
_KEY = ["filename", "position", "word"]
_DEVIATION = 1.0  # of the normal priors on the logarithms of the slopes and on the intercepts
_LARGEST_LOG_PROBABILITY = -1e-12


def _places(filenames: Sequence[str], texts: Sequence[str]) -> pd.DataFrame:
    """Return filename, position and word of every word and every end, and the text's `row`."""
    places = [
        (filename, position, word, row)
        for row, (filename, text) in enumerate(zip(filenames, texts, strict=True))
        for position, word in enumerate([*text.split(), ""])
    ]
    return pd.DataFrame(places, columns=[*_KEY, "row"])


def to_table(filenames: Sequence[str], texts: Sequence[str], log_odds: np.ndarray) -> pd.DataFrame:
    """Return (rows, places, 2) log-odds as a table of all words and ends."""
    places = _places(filenames, texts)
    values = log_odds[places["row"], places["position"]]
    return places[_KEY].assign(said=values[:, SAID], complete=values[:, COMPLETE])


def lay_out(table: pd.DataFrame, filenames: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Return the log-odds, (rows, places, 2), of some rows of a table like `to_table`'s.

    Raises HearbackError where the table lacks a word of them.
    """
    places = _places(filenames, texts).merge(table, on=_KEY, how="left", validate="one_to_one")
    lacking = places["filename"][places["complete"].isna()].unique()
    if len(lacking):
        raise HearbackError(
            f"no word scores for the texts of {len(lacking)} recordings, such as {lacking[0]}; "
            "train the folds again that hold them out"
        )
    log_odds = np.full((len(texts), places["position"].max() + 1, 2), np.nan)
    log_odds[places["row"], places["position"]] = places[["said", "complete"]]
    return log_odds


def read_fold(files: FoldFiles, fold_metadata: FoldMetadata) -> pd.DataFrame:
    """Read a fold's out-of-fold word scores.

    Raises HearbackError where the file is not the one that the fold's metadata speaks of.
    """
    if not files.words.exists() or sha256_of(files.words) != fold_metadata["sha256"].get("words"):
        raise HearbackError(
            f"{files.words}: missing, or not the file that {files.metadata.name} speaks of; "
            f"train it again: {fold_metadata['retrain_command']}"
        )
    # A word may be "null" or "NA"; only the end of a text has no `said`.
    return pd.read_csv(
        files.words,
        dtype={"filename": str, "position": int, "word": str, "said": float, "complete": float},
        keep_default_na=False,
        na_values={"said": [""], "complete": [""]},
    )


@dataclass(frozen=True)
class WordCalibration:
    """From the log-odds of `models`, averaged by their weights, to probabilities.

    `said` and `complete` are lines on the log-odds, with slopes above zero.
    """

    models: tuple[str, ...]
    said: Line
    complete: Line

    def apply(self, log_odds: np.ndarray) -> np.ndarray:
        """Return the probabilities, (rows, places, 2), of (rows, places, 2) log-odds."""
        slopes = np.array([self.said.slope, self.complete.slope])
        intercepts = np.array([self.said.intercept, self.complete.intercept])
        return expit(log_odds * slopes + intercepts)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "WordCalibration":
        """Return the calibration that `dataclasses.asdict` took apart; HearbackError if none."""
        try:
            lines = [
                Line(float(values[name]["slope"]), float(values[name]["intercept"]))
                for name in ("said", "complete")
            ]
            calibration = cls(tuple(values["models"]), *lines)
        except (KeyError, TypeError, ValueError) as error:
            raise HearbackError(f"not a calibration of words ({error!r})") from None
        numbers = [number for line in lines for number in asdict(line).values()]
        if not calibration.models or not all(map(math.isfinite, numbers)):
            raise HearbackError("a calibration of words lacks its models or its numbers")
        if any(line.slope <= 0 for line in lines):
            raise HearbackError("the slopes of a calibration of words are above zero")
        return calibration


def noisy_and(probabilities: np.ndarray) -> np.ndarray:
    """Return the probability that all was said and nothing is missing, (rows,).

    `probabilities` (rows, places, 2) are taken as independent.
    """
    return np.nanprod(probabilities, axis=(1, 2))


def fit_words(models: Sequence[str], log_odds: np.ndarray, labels: np.ndarray) -> WordCalibration:
    """Fit a calibration to (rows, places, 2) log-odds and (rows,) labels, 0 or 1, of whole clips.

    Nobody says which word of a wrong clip is wrong. But a clip is right where all of its words were
    said and nothing is missing: the lines chosen are those with which the `noisy_and` of a clip's
    words has the least log loss. That is multiple-instance learning, the clips its bags and the
    noisy-and the complement of its noisy-or (Keeler, Rumelhart & Leow 1991; Maron & Lozano-Pérez
    1998). A normal prior keeps a small table's lines near the identity.
    """
    known = ~np.isnan(log_odds)
    # Most places are of longer texts than a row's: one flat array of the words that there are.
    clips, _, kinds = np.nonzero(known)
    values = log_odds[known]
    right = labels > 0.5
    n_rows = len(labels)

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slopes, intercepts = np.exp(parameters[:2]), parameters[2:]
        margins = slopes[kinds] * values + intercepts[kinds]
        small = np.exp(-np.abs(margins))
        losses = np.log1p(small) - np.minimum(margins, 0)
        log_right = -np.bincount(clips, weights=losses, minlength=n_rows)
        log_right = np.minimum(log_right, _LARGEST_LOG_PROBABILITY)
        log_wrong = np.log(-np.expm1(log_right))
        prior = parameters / (_DEVIATION**2 * n_rows)
        value = -np.where(right, log_right, log_wrong).mean() + 0.5 * parameters @ prior
        # Of a clip's loss by its log-probability, then by the margins of its words.
        outer = np.where(right, -1.0, 1 / np.expm1(np.minimum(-log_right, 700))) / n_rows
        by_margin = outer[clips] * np.where(margins > 0, small, 1.0) / (1 + small)
        by_slope = np.bincount(kinds, weights=by_margin * values, minlength=2) * slopes
        by_intercept = np.bincount(kinds, weights=by_margin, minlength=2)
        return float(value), np.concatenate([by_slope, by_intercept]) + prior

    found = minimize(objective, np.zeros(4), jac=True, method="L-BFGS-B").x
    slopes, intercepts = np.exp(found[:2]).tolist(), found[2:].tolist()
    return WordCalibration(tuple(models), *map(Line, slopes, intercepts))


def cross_fit_words(log_odds: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the `noisy_and`, (rows,), of words calibrated on the rows of other groups, (rows,).

    Raises HearbackError where there are no other groups.
    """
    n_splits = min(N_CROSS_FITS, len(np.unique(groups)))
    if n_splits < 2:
        raise HearbackError("all rows are of one group: no others to calibrate words on")
    cross_fitted = np.empty(len(labels))
    for rest, held_out in GroupKFold(n_splits).split(labels, groups=groups):
        calibration = fit_words((), log_odds[rest], labels[rest])
        cross_fitted[held_out] = noisy_and(calibration.apply(log_odds[held_out]))
    return cross_fitted


def score_table(
    filenames: Sequence[str], texts: Sequence[str], probabilities: np.ndarray
) -> pd.DataFrame:
    """Return a line for every word: filename, position, word, score.

    The score is the probability, of (rows, places, 2), that the word was said. A word before which
    the learner said one that the text lacks scores low as well: where it was expected, another was.
    """
    places = _places(filenames, texts)
    places = places[places["word"] != ""]
    scores = probabilities[places["row"], places["position"], SAID]
    return places[_KEY].assign(score=scores).reset_index(drop=True)
