"""Scores of words compared with what experts say of them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy  # imports its parts as they are used

from hearback.engine.evaluation.metrics import area_under_curve
from hearback.reading import words
from hearback.reading.evaluation import ReadingOutOfFold
from hearback.reading.tables import AGE_GROUPS, YOUNGEST
from hearback.reading.word_labels import WordLabels, describe

THRESHOLD = 0.5  # a word that scores less counts as wrong; so does one that most experts reject
TITLE = "Words against the experts (texts as they were read; wrong: most experts reject the word)"


def by_model(
    assets: Path,
    tables: Sequence[ReadingOutOfFold],
    metadata: pd.DataFrame,
    labels: WordLabels,
) -> pd.DataFrame:
    """Return the agreement of each model that scores words, out of fold, uncalibrated.

    Empty without such a model or without labels.
    """
    lines = {}
    for table in filter(words.has_word_scores, tables):
        rows = table.rows_with(metadata)
        said = words.read_log_odds(assets, [table], rows)[table.model][:, :, words.SAID]
        lines[table.model] = compare(rows, scipy.special.expit(said), rows["pred"], labels)
    return _as_table(lines, "model")


def by_age(
    rows: pd.DataFrame, said: np.ndarray, predictions: np.ndarray, labels: WordLabels
) -> pd.DataFrame:
    """Return the agreement of one model or ensemble for all rows and for the youngest.

    `said` is (rows, positions) probabilities of words, `predictions` (rows,) those of clips.
    """
    youngest = rows["grade"].isin(AGE_GROUPS[YOUNGEST]).to_numpy()
    parts = {"all": np.full(len(rows), True), YOUNGEST: youngest}
    lines = {
        name: compare(rows[part], said[part], predictions[part], labels)
        for name, part in parts.items()
    }
    return _as_table(lines, "grade")


def _as_table(lines: Mapping[str, Mapping[str, float] | None], name: str) -> pd.DataFrame:
    found = {key: line for key, line in lines.items() if line is not None}
    return pd.DataFrame.from_dict(found, orient="index").rename_axis(name)


def compare(
    rows: pd.DataFrame,
    said: np.ndarray,
    predictions: pd.Series | np.ndarray,
    labels: WordLabels,
) -> dict[str, float] | None:
    """Return how scores of words agree with their labels; None without labelled words.

    Only of recordings whose expected text is the one that was read. Args are as for `by_age`.

    Returns:
        words, wrong: their numbers; AUC of wrong words; precision and recall of the words that
        score less than `THRESHOLD`; Pearson correlations of the scores of words with the mean of
        the experts' scores (`word r`), and of clips with the mean over their words (`clip r`); NaN
        where the experts gave no scores.
    """
    shares, accuracies, scores, clips = [], [], [], []
    pairs = zip(rows["filename"], rows["expected_text"], strict=True)
    for at, (filename, text) in enumerate(pairs):
        read = labels.get(filename)
        if read is not None and read.text == text:
            shares.append(read.shares)
            accuracies.append(read.accuracies)
            scores.append(said[at, : len(read.words)])
            clips.append(float(np.asarray(predictions)[at]))
    if not shares:
        return None
    is_right = np.concatenate(shares) >= THRESHOLD
    score, accuracy = np.concatenate(scores), np.concatenate(accuracies)
    flagged = score < THRESHOLD
    n_found = int((flagged & ~is_right).sum())
    return {
        "words": len(score),
        "wrong": int((~is_right).sum()),
        "AUC": area_under_curve(is_right.astype(float), score),
        "precision": n_found / flagged.sum() if flagged.any() else np.nan,
        "recall": n_found / (~is_right).sum() if not is_right.all() else np.nan,
        "word r": _correlation(score, accuracy),
        "clip r": _correlation(np.array(clips), np.array([each.mean() for each in accuracies])),
    }


def _correlation(scores: np.ndarray, accuracies: np.ndarray) -> float:
    """Return Pearson's correlation of (values,) where accuracies are known; NaN without two."""
    known = ~np.isnan(accuracies)
    if known.sum() < 2 or scores[known].std() == 0 or accuracies[known].std() == 0:
        return float("nan")
    return float(np.corrcoef(scores[known], accuracies[known])[0, 1])


def describe_training_labels(tables: Sequence[ReadingOutOfFold], own: WordLabels) -> Iterator[str]:
    """Yield with which labels of words each model was trained whose recipe uses them.

    `own` are those of the training table; a line tells where folds had others.
    """
    for table in tables:
        records = [
            metadata.get("word_labels")
            for metadata in table.metadata_by_fold.values()
            if (metadata.get("recipe") or {}).get("uses_word_labels")
        ]
        if not records:
            continue
        described = dict.fromkeys(map(describe, records))
        line = f"{table.model} was trained with {'; or '.join(described)}"
        digests = {(record or {}).get("digest") for record in records}
        if len(digests) > 1:
            line += ", other ones in some folds than in others: train.py trains these again"
        elif not own and digests != {None}:
            line += "; the training table has none now, so that labels of recordings alone fit the "
            line += "calibration of words"
        elif digests != {own.digest()}:
            line += ", other ones than the training table has now"
        yield line
