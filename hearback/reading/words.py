"""Word scores: their tables.

A token scorer gives log-odds that each word of a text was said, and log-odds that nothing is
missing before it, or before the end of the text. They are padded to (rows, positions, 2), the last
axis `SAID` and `COMPLETE`, NaN where a text has no such word. There is a position for each word of
the longest text and one for its end. Out-of-fold word scores are in

    assets/<model>_<fold>.words.csv
      filename, position (from 0), word, said, complete

with an empty word for the end of a text. Words are separated by white space.
"""

import hashlib
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.oof import OutOfFold
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata
from hearback.reading.text_normalizer import written_words

SAID, COMPLETE = 0, 1
PROBABILITY_DIGITS = 4  # after the point, in tables and JSON
TABLE = "word_scores.csv"  # of infer.py, beside the submission
N_NEIGHBOURS = 4  # on either side of a word
MOSTLY_MISSED_BELOW = 0.5  # mean probability of a word and its neighbours
_KEY = ["filename", "position", "word"]


def words_path(scores: Path) -> Path:
    """Return the file of the words of a table of score.py: x_words.csv beside x.csv."""
    return scores.with_name(f"{scores.stem}_words.csv")


def _word_index(filenames: Sequence[str], texts: Sequence[str]) -> pd.DataFrame:
    """Return filename, position and word of every word and text end, and the text's `row`."""
    words = [
        (filename, position, word, row)
        for row, (filename, text) in enumerate(zip(filenames, texts, strict=True))
        for position, word in enumerate([*text.split(), ""])
    ]
    return pd.DataFrame(words, columns=[*_KEY, "row"])


def count_positions(texts: Iterable[str]) -> int:
    """Return the number of positions of some texts: the words of the longest one, and its end."""
    return 1 + max((len(text.split()) for text in texts), default=0)


def count_letters(texts: Sequence[str], n_positions: int) -> np.ndarray:
    """Return the number of characters of each word, (rows, n_positions); NaN after the last one."""
    n_letters = np.full((len(texts), n_positions), np.nan)
    for own, text in zip(n_letters, texts, strict=True):
        words = text.split()
        own[: len(words)] = [len(word) for word in words]
    return n_letters


def to_table(filenames: Sequence[str], texts: Sequence[str], log_odds: np.ndarray) -> pd.DataFrame:
    """Return (rows, positions, 2) log-odds as a table of all words and text ends."""
    words = _word_index(filenames, texts)
    values = log_odds[words["row"], words["position"]]
    return words[_KEY].assign(said=values[:, SAID], complete=values[:, COMPLETE])


def from_table(table: pd.DataFrame, filenames: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Return the padded log-odds, (rows, positions, 2), of some texts from a table of `to_table`.

    Raises HearbackError if the table lacks a word.
    """
    words = _word_index(filenames, texts).merge(table, on=_KEY, how="left", validate="one_to_one")
    missing = words["filename"][words["complete"].isna()].unique()
    if len(missing):
        raise HearbackError(
            f"no word scores for the texts of {len(missing)} recordings, such as {missing[0]}; "
            "train the folds again that hold them out"
        )
    log_odds = np.full((len(texts), words["position"].max() + 1, 2), np.nan)
    log_odds[words["row"], words["position"]] = words[["said", "complete"]]
    return log_odds


def read_fold(files: FoldFiles, fold_metadata: FoldMetadata) -> pd.DataFrame:
    """Read a fold's out-of-fold word scores.

    Raises HearbackError if the file is missing or differs from the digest in the fold's metadata.
    """
    path = files.table("words")
    try:
        content = files.read(path)
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != fold_metadata["sha256"].get("words"):
        raise HearbackError(
            f"{path}: missing, or differs from the digest in {files.metadata.name}; "
            f"train it again: {fold_metadata['retrain_command']}"
        )
    # A word may be "null" or "NA"; only the end of a text has no `said`.
    return pd.read_csv(
        BytesIO(content),
        dtype={"filename": str, "position": int, "word": str, "said": float, "complete": float},
        keep_default_na=False,
        na_values={"said": [""], "complete": [""]},
    )


def has_word_scores(table: OutOfFold) -> bool:
    """Return whether a model's folds have word scores; HearbackError if only some have."""
    without = [
        fold
        for fold, fold_metadata in table.metadata_by_fold.items()
        if "words" not in fold_metadata["sha256"]
    ]
    if without and len(without) < len(table.metadata_by_fold):
        raise HearbackError(f"{table.model}: folds {without} lack word scores; train them again")
    return not without


def read_log_odds(
    assets: Path, tables: Sequence[OutOfFold], metadata: pd.DataFrame
) -> dict[str, np.ndarray]:
    """Return the out-of-fold log-odds of words, (rows, positions, 2), by model with word scores.

    `metadata` has the filename and expected_text of each row.
    """
    filenames, texts = metadata["filename"].tolist(), metadata["expected_text"].tolist()
    log_odds = {}
    for table in filter(has_word_scores, tables):
        folds = [
            read_fold(FoldFiles(assets, table.model, fold), fold_metadata)
            for fold, fold_metadata in table.metadata_by_fold.items()
        ]
        log_odds[table.model] = from_table(pd.concat(folds), filenames, texts)
    return log_odds


def said_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Return the probability that each word was said, (rows, positions), of `apply`'s result.

    Where more words around a word were missed than said, it is at most their mean probability:
    a decoder that is given a text expects its short words, whatever it hears.
    """
    said = probabilities[:, :, SAID]
    known = ~np.isnan(said)
    mean = _sum_around(np.where(known, said, 0.0)) / np.maximum(_sum_around(known * 1.0), 1.0)
    return np.where(mean < MOSTLY_MISSED_BELOW, np.minimum(said, mean), said)


def _sum_around(values: np.ndarray) -> np.ndarray:
    """Sum each of (rows, positions) with its neighbours."""
    padded = np.pad(values, ((0, 0), (N_NEIGHBOURS, N_NEIGHBOURS)))
    width = 2 * N_NEIGHBOURS + 1
    return np.lib.stride_tricks.sliding_window_view(padded, width, axis=1).sum(axis=2)


def word_score_table(
    filenames: Sequence[str],
    texts: Sequence[str],
    probabilities: np.ndarray,
    written_texts: Sequence[str] | None = None,
    statuses: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return a row per word: filename, position, word, written, score, status.

    `written` is the part of the row's written text that the word comes from; `written_texts` are
    by default the `texts` themselves. `statuses` are those of the clips, "ok" by default.

    The score is that of `said_probabilities`, from `probabilities`, (rows, positions, 2), rounded
    to `PROBABILITY_DIGITS`. Words that the learner adds lower the score of the clip, but seldom
    those of the words beside them.
    """
    words = _word_index(filenames, texts)
    words = words[words["word"] != ""]
    scores = said_probabilities(probabilities)[words["row"], words["position"]]
    scores = scores.round(PROBABILITY_DIGITS)
    of_clips = np.array(statuses or ["ok"] * len(texts), dtype=str)
    table = words[_KEY].assign(written=written_words(written_texts or texts), score=scores)
    return table.assign(status=of_clips[words["row"]]).reset_index(drop=True)
