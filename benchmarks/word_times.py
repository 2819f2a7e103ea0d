"""How exactly are words found in a recording? Pairs of clips are joined where the time is known.

    python -m benchmarks.word_times --data DATA --models modeltok

Two well-read held-out clips of one speaker are joined, once as recorded and once with only 20 ms
around the speech. The last word of the first clip should end where its speech ends, and the first
word of the second should start where its speech starts, both found by their energy. Prints the
errors in seconds.
"""

import numpy as np
import pandas as pd

from benchmarks.first_folds import declare, read_first_folds
from benchmarks.joined_clips import JoinedClips, Joiner, as_source
from hearback.engine import cli
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.whisper.encoder import WINDOW_SECONDS
from hearback.reading.models.word_times import time_words
from hearback.reading.window_coverage import FRAME_SAMPLES, find_speech


def main() -> None:
    """Time the words of the joined clips with each model's first fold, and print the errors."""
    parser = cli.parser(__doc__)
    declare(parser)
    parser.add_argument("--pairs", type=cli.int_of_at_least(1), default=100, help="pairs of clips")
    arguments = parser.parse_args()
    for fold in read_first_folds(arguments):
        lines = []
        for name, margin in (("as recorded", None), ("20 ms around the speech", 0.02)):
            joiner = Joiner(fold.data, fold.rows, margin, arguments.seed)
            joined = list(joiner.draw_pairs(arguments.pairs, WINDOW_SECONDS))
            source = as_source(fold.data, joined)
            times = time_words(fold.model, source, range(0, len(source), 2), fold.device)
            lines.append({"joined": name} | summarize(joined, times))
        shown = pd.DataFrame(lines).to_string(index=False)
        print(f"{fold.name}: errors in seconds\n{shown}")


def summarize(joined: list[JoinedClips], times: dict[int, np.ndarray]) -> dict[str, float]:
    """Return the median and 90 % quantile of the errors; `times` are those of every second row."""
    errors = np.array([join_errors(each, times[2 * at]) for at, each in enumerate(joined)])
    found: dict[str, float] = {"pairs": len(joined)}
    for column, name in enumerate(("end of the last word", "start of the next")):
        found[f"{name}: median"] = round(float(np.median(errors[:, column])), 3)
        found["90 %" + " " * column] = round(float(np.quantile(errors[:, column], 0.9)), 3)
    return found


def join_errors(joined: JoinedClips, times: np.ndarray) -> tuple[float, float]:
    """Return the errors of the first clip's end and the second's start, in seconds."""
    n_words = len(joined.texts[0].split())
    edge = int(joined.edges[1])
    first = np.flatnonzero(find_speech(joined.waveform[:edge])[0])
    second = np.flatnonzero(find_speech(joined.waveform[edge:])[0])
    end = (first[-1] + 1) * FRAME_SAMPLES / SAMPLE_RATE
    start = (edge + second[0] * FRAME_SAMPLES) / SAMPLE_RATE
    return abs(times[n_words - 1, 1] - end), abs(times[n_words, 0] - start)


if __name__ == "__main__":
    cli.run(main)
