"""Passages whose reader skipped words: are they found, and what do the words after them score?

`benchmarks.passages --scorer NAME --skip_words N …` prints it. Each fold scores speakers that it
did not learn from, as `score.py` does, with that fold of each model.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.joined_clips import JoinedClips, Joiner
from benchmarks.scorer_lengths import MARGIN_SECONDS, read_folds
from hearback.engine.audio.decode import Recording
from hearback.engine.audio.store import MemoryStore
from hearback.reading.models.evidence import LARGEST_LOGIT
from hearback.reading.pairs import PairSource
from hearback.reading.scoring.ensemble import LoadedEnsemble
from hearback.reading.words import SAID, said_probabilities

SECONDS = (65.0,)  # recordings of over 60 s have several speakers: one has too little
MAX_WRONG = 5  # words on the wrong side of a skip's edges, of skips that count as found


@dataclass(frozen=True)
class SkippedText:
    """A recording, and a text with words that were not read.

    The words `start` to `stop` - 1 were not read. They are of other clips, before one of the
    recording's own that is not its first.
    """

    joined: JoinedClips
    words: tuple[str, ...]
    start: int
    stop: int


def print_skips(arguments: argparse.Namespace) -> None:
    """Print a table with a line for each number of skipped words, of all folds together.

    The first line is of the same recordings with the text that was read.
    """
    counts = sorted({0, *arguments.skip_words})
    lines: dict[tuple[float, int], list[dict[str, float]]] = {}
    for fold, ensemble, data in read_folds(arguments):
        joiner = Joiner(data, data.validation_rows(fold), MARGIN_SECONDS, arguments.seed)
        for seconds in arguments.seconds or SECONDS:
            for joined in joiner.draw(seconds, arguments.recordings):
                changed = int(joiner.rng.integers(1, len(joined.texts)))
                others = _other_words(joiner, joined)
                for n in counts:
                    skipped = _insert(joined, changed, others[:n])
                    line = score_skipped(ensemble, skipped)
                    lines.setdefault((seconds, n), []).append(line)
        print(f"{arguments.scorer}, folds up to {fold}\n{show(lines)}", flush=True)


def show(lines: dict[tuple[float, int], list[dict[str, float]]]) -> str:
    """Return a table with the means of the lines of each length and number of skipped words."""
    table = [
        {"skipped": n, "passages": len(of_skip)} | pd.DataFrame(of_skip).mean().to_dict()
        for (_, n), of_skip in sorted(lines.items())
    ]
    return pd.DataFrame(table).round(2).to_string(index=False)


def score_skipped(ensemble: LoadedEnsemble, skipped: SkippedText) -> dict[str, float]:
    """Return a line of the table: a text's scores, as `score.py` gives them.

    "found" is whether the words that count as not read are those that were skipped.
    """
    joined, text = skipped.joined, " ".join(skipped.words)
    record = {"filename": "a", "task": "", "grade": joined.grade, "expected_text": text}
    store = MemoryStore({"a": Recording(joined.waveform, ())})
    source = PairSource(pd.DataFrame([record]), None, store)
    start = time.process_time()
    passages = ensemble.split(source)
    split_seconds = time.process_time() - start
    by_window, _ = ensemble.predict(passages.source, passages.grades(np.array(source.grades)))
    elapsed = time.process_time() - start
    predictions = passages.merge(by_window)
    assert predictions.words is not None and ensemble.config.words is not None
    unread = predictions.words[0, :, SAID] == -LARGEST_LOGIT
    is_skipped = np.zeros(len(unread), bool)
    is_skipped[skipped.start : skipped.stop] = True
    words = said_probabilities(ensemble.config.words.apply(predictions.words))[0]
    scores = words[: len(skipped.words)]
    return {
        "seconds": joined.seconds,
        "words read": len(joined.text.split()),
        "found": float((unread != is_skipped).sum() <= min(MAX_WRONG, is_skipped.sum() / 2)),
        "words before": float(scores[: skipped.start].mean()),
        "words skipped": float(scores[skipped.start : skipped.stop].mean())
        if skipped.stop > skipped.start
        else np.nan,
        "words after": float(scores[skipped.stop :].mean()),
        "score": float(predictions.clips[0]),
        "split, CPU s": split_seconds,
        "all, CPU s": elapsed,
    }


def _other_words(joiner: Joiner, joined: JoinedClips) -> list[str]:
    """Return the words of the joiner's clips that are not of a recording, in random order."""
    texts = joiner.data.metadata["expected_text"]
    rows = [row for of_speaker in joiner.by_speaker.values() for row in of_speaker]
    drawn = dict.fromkeys(texts.iloc[row] for row in joiner.rng.permutation(rows))
    return [word for text in drawn if text not in joined.texts for word in text.split()]


def _insert(joined: JoinedClips, clip: int, others: Sequence[str]) -> SkippedText:
    """Return a recording whose text has other words before one of its clips."""
    before, after = (" ".join(part).split() for part in (joined.texts[:clip], joined.texts[clip:]))
    words = (*before, *others, *after)
    return SkippedText(joined, words, len(before), len(before) + len(others))
