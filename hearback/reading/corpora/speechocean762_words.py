"""The scores of speechocean762's five experts for each word, as the table train_words.csv."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from hearback.engine.data.problems import Problem, Report
from hearback.reading.corpora.speechocean762_files import SCORES_DETAIL, Corpus
from hearback.reading.corpora.speechocean762_tables import CURE_INCOMPLETE, Utterance, read_text


class ScoredWord(NamedTuple):
    """A word that was to be read, the experts' scores, 0 to 10, and what each of them heard.

    `phones` are ARPAbet transcriptions, wrong sounds in brackets; empty if the corpus has none.
    """

    text: str
    accuracy: tuple[float, ...]
    phones: tuple[str, ...]


def read_scored_words(
    corpus: Corpus, utterances: Sequence[Utterance], report: Report
) -> dict[str, list[ScoredWord]]:
    """Return the words of the training half's utterances, by id.

    Without resource/scores-detail.json there are none, and the report gets a warning.
    """
    if corpus.read(SCORES_DETAIL) is None:
        what = (
            "missing: no train_words.csv is written, so models learn from the scores of whole "
            "recordings only"
        )
        cure = "take it from the corpus"
        report.add(Problem(SCORES_DETAIL, None, what, cure, severity="warning"))
        return {}
    text = read_text(corpus, SCORES_DETAIL, report)
    if not text:
        return {}
    try:
        details = dict(json.loads(text))
    except (TypeError, ValueError) as error:
        what = f"not JSON with utterances: {error}"
        report.add(Problem(SCORES_DETAIL, None, what, CURE_INCOMPLETE))
        return {}
    words: dict[str, list[ScoredWord]] = {}
    for name in (each.id for each in utterances if each.half == "train"):
        try:
            words[name] = [_parse(word) for word in details[name]["words"]]
        except (KeyError, TypeError, ValueError):
            words[name] = []
        if not words[name]:
            what = "no list of words with the experts' accuracies of 0 to 10 each"
            report.add(Problem(SCORES_DETAIL, None, what, CURE_INCOMPLETE, filename=name))
    return words


def _parse(word: Mapping[str, Any]) -> ScoredWord:
    """Return a word of the JSON. Raises KeyError, TypeError or ValueError if it is malformed."""
    text, accuracy = str(word["text"]).lower(), tuple(map(float, word["accuracy"]))
    phones = word.get("phones", [])
    if not text.strip() or not accuracy or not all(0 <= score <= 10 for score in accuracy):
        raise ValueError("no text, or no scores of 0 to 10")
    if isinstance(phones, str):
        raise TypeError("one transcription, not one of each expert")
    return ScoredWord(text, accuracy, tuple(map(str, phones)))


def to_table(
    words_by_id: Mapping[str, Sequence[ScoredWord]], filenames: Mapping[str, str]
) -> pd.DataFrame | None:
    """Return the rows of train_words.csv, or None without words.

    Columns: filename, position (from 0), word, accuracy (the scores, separated by spaces) and,
    where the corpus has them, phones (the transcriptions, separated by " | "). `filenames` are
    those of the recordings to list, by id, in their order.
    """
    if not words_by_id:
        return None
    rows = [
        {
            "filename": filename,
            "position": position,
            "word": word.text,
            "accuracy": " ".join(f"{score:g}" for score in word.accuracy),
            "phones": " | ".join(word.phones),
        }
        for name, filename in filenames.items()
        for position, word in enumerate(words_by_id[name])
    ]
    table = pd.DataFrame(rows, columns=["filename", "position", "word", "accuracy", "phones"])
    return table if table["phones"].any() else table.drop(columns="phones")
