"""How good are the scores of long recordings? Well-read clips of one speaker are joined.

    python -m benchmarks.passages --data DATA --models modeltok

Held-out clips are joined, with 0.15 s of silence around the speech of each, and scored twice: with
the text that was read, and with a text in which one word was replaced, added or left out. Prints,
by length, AUC and log loss of windows that end after 16 s, and of passages; and how often the word
with the lowest score is the wrong one. Recordings of more than 60 s have several speakers.

    python -m benchmarks.passages --data DATA --scorer base

does so with what score.py gives: each fold of a shipped scorer scores its held-out speakers. Each
long recording contains a shorter one with the same changed word, so that only the length differs.
With `--mispronounced`, which needs labels of words, also recordings with a mispronounced word.

    python -m benchmarks.passages --data DATA --scorer tiny.en --skip_words 10 20 40 60

prints what passages score whose reader skipped so many words of the text.
"""

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.first_folds import declare, read_first_folds
from benchmarks.joined_clips import JoinedClips, Joiner, as_source
from benchmarks.scorer_lengths import MARGIN_SECONDS, print_lengths, rank_of_wrong_word
from benchmarks.skipped_words import print_skips
from hearback.engine import cli
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.reading.inference.predict import predict
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.pairs import PairSource
from hearback.reading.passages.rows import split_rows

DTYPE = torch.float32
LENGTHS = (5.0, 10.0, 14.0, 17.0, 20.0, 30.0, 120.0)  # seconds


def main() -> None:
    """Score joined clips with each model's first fold, and print a table for each."""
    parser = cli.parser(__doc__)
    declare(parser)
    add = parser.add_argument
    add("--scorer", help="a shipped scorer or its folder, in place of trained models")
    add("--seconds", nargs="+", type=float, help="lengths of the recordings")
    add("--recordings", type=cli.int_of_at_least(1), default=40, help="of each length and fold")
    add(
        "--mispronounced",
        type=cli.int_of_at_least(0),
        default=0,
        help="with --scorer: recordings of each fold in which a word is mispronounced",
    )
    add(
        "--skip_words",
        nargs="+",
        type=cli.int_of_at_least(1),
        help="with --scorer: numbers of words of the text that were not read, inside",
    )
    arguments = parser.parse_args()
    if arguments.skip_words and not arguments.scorer:
        parser.error("--skip_words needs --scorer")
    if arguments.scorer and arguments.skip_words:
        print_skips(arguments)
        return
    if arguments.scorer:
        print_lengths(arguments)
        return
    for fold in read_first_folds(arguments):
        lines = []
        for seconds in arguments.seconds or LENGTHS:
            joiner = Joiner(fold.data, fold.rows, MARGIN_SECONDS, arguments.seed)
            joined = joiner.draw(
                seconds, max(4, round(arguments.recordings * min(1, 30 / seconds)))
            )
            source = as_source(fold.data, joined)
            lines.append(compare(fold.model, source, joined, fold.device))
            print(show(lines[-1:]), flush=True)
        print(f"{fold.name}\n{show(lines)}")


def show(lines: Sequence[dict[str, float]]) -> str:
    """Return the lines as a table."""
    return pd.DataFrame(lines).round(3).to_string(index=False)


def compare(
    model: TokenScorer, source: PairSource, joined: Sequence[JoinedClips], device: torch.device
) -> dict[str, float]:
    """Return a line of the table: the scores of one length."""
    rows, labels = np.arange(len(source)), np.tile([1, 0], len(joined))
    cut = predict(model, source, rows, device=device, dtype=DTYPE)
    start = time.perf_counter()
    passages = split_rows(source, model, device=device, dtype=DTYPE)
    windows = np.arange(len(passages.windows))
    found = passages.merge(predict(model, passages.source, windows, device=device, dtype=DTYPE))
    elapsed = time.perf_counter() - start
    ranks = [rank_of_wrong_word(found, 2 * at + 1, each) for at, each in enumerate(joined)]
    seconds = sum(len(each.waveform) for each in joined) / SAMPLE_RATE
    line = {
        "seconds": seconds / len(joined),
        "words": sum(len(each.text.split()) for each in joined) / len(joined),
        "recordings": len(joined),
    }
    for name, scores in (("cut", cut.clips), ("now", found.clips)):
        line[f"AUC {name}"] = roc_auc_score(labels, scores)
        line[f"log loss {name}"] = log_loss(labels, scores)
        line[f"right {name}"] = float(scores[labels == 1].mean())
    line["lowest word is wrong"] = float(np.mean([rank == 0 for rank in ranks]))
    line["among five lowest"] = float(np.mean([rank < 5 for rank in ranks]))
    line["s per minute"] = elapsed / (2 * seconds / 60)
    return line


if __name__ == "__main__":
    cli.run(main)
