"""How exactly are words found in a recording? Pairs of clips are joined where the time is known.

    python -m benchmarks.word_times --data DATA --models modeltok

Two well-read held-out clips of one speaker are joined, once as recorded and once with only 20 ms
around the speech. The last word of the first clip should end where its speech ends, and the first
word of the second should start where its speech starts, both found by their energy. Prints the
errors in seconds.
"""

import numpy as np
import pandas as pd

from benchmarks.joined_clips import JoinedClips, Joiner, as_source
from benchmarks.speeds import declare_trained, load_data
from hearback.engine import cli
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.devices import choose_device
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles
from hearback.engine.whisper.encoder import WINDOW_SECONDS
from hearback.reading import evaluation
from hearback.reading.models.load import load_scorer
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.models.word_times import time_words
from hearback.reading.window_coverage import FRAME_SAMPLES, find_speech


def main() -> None:
    """Time the words of the joined clips with each model's first fold, and print the errors."""
    parser = cli.parser(__doc__)
    declare_trained(parser)
    add = parser.add_argument
    add("--pairs", type=cli.int_of_at_least(1), default=100, help="pairs of clips")
    add("--seed", type=cli.int_of_at_least(0), default=0, help="chooses them")
    arguments = parser.parse_args()
    for table in evaluation.read_out_of_fold(arguments.assets, arguments.models):
        fold, fold_metadata = next(iter(table.metadata_by_fold.items()))
        model = load_scorer(FoldFiles(arguments.assets, table.model, fold), fold_metadata)
        if not isinstance(model, TokenScorer):
            raise HearbackError(f"{table.model} has no decoder: choose a token scorer")
        data = load_data([table], arguments.data, arguments.tts_data, arguments.store)
        lines = []
        for name, margin in (("as recorded", None), ("20 ms around the speech", 0.02)):
            joiner = Joiner(data, data.validation_rows(fold), margin, arguments.seed)
            joined = list(joiner.draw_pairs(arguments.pairs, WINDOW_SECONDS))
            source = as_source(data, joined)
            times = time_words(
                model, source, range(0, len(source), 2), choose_device(arguments.device)
            )
            lines.append({"joined": name} | summarize(joined, times))
        shown = pd.DataFrame(lines).to_string(index=False)
        print(f"{table.model} fold {fold}: errors in seconds\n{shown}")


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
