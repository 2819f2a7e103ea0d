"""Where in the recording, and in the text, learner and reference part ways.

    divergences.csv
      filename, position, word, start, end, cost, parts

A line for every word of every text: where in the recording, in seconds, the aligned comparison
finds it, the mean cosine distance there (0 to 2), and `parts`, 1 for the word in which the two are
farthest apart. It is what to look at first when a score surprises; how well it finds the wrong word
stands in docs/results.md.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from hearback.engine.data.tables import write_table
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.models.alignment import Trace, word_spans
from hearback.reading.models.load import load_scorer
from hearback.reading.models.scorers import AlignedScorer
from hearback.reading.pairs import Example, PairDataset, PairSource
from hearback.reading.window_batches import batched

TABLE = "divergences.csv"


def choose_fold(config: EnsembleConfig, assets: Path) -> FoldFiles:
    """Return a fold of the ensemble's aligned model, of the heaviest where it has several.

    Raises HearbackError where it has none.
    """
    for model in sorted(config.models, key=lambda model: -model.weight):
        files = FoldFiles(assets, model.name, model.folds[0])
        if read_fold_metadata(files)["recipe"]["pair"] == "aligned":
            return files
    raise HearbackError(
        "none of the ensemble's models aligns; --divergences needs one: "
        "python train.py --models modelali, then python get_config.py"
    )


@torch.inference_mode()
def trace_clips(
    model: AlignedScorer,
    source: PairSource,
    rows: Sequence[int],
    *,
    device: torch.device,
    progress: str | None = None,
) -> dict[int, Trace]:
    """Return how each row's learner, played as `source` does, follows its reference, by row."""
    model.to(device).eval()
    recipe = model.recipe
    examples = [Example(row, source.texts[row]) for row in rows]
    pairs = DataLoader(PairDataset(source, examples, recipe.pair), batch_size=None)
    traces: dict[int, Trace] = {}
    with tqdm(total=len(examples), desc=progress, unit="clip", disable=progress is None) as bar:
        for batch in batched(pairs, recipe.batch_size, recipe.window, recipe.window_step_seconds):
            traces |= zip(batch.rows.tolist(), model.trace(batch.to(device)), strict=True)
            bar.update(len(batch))
    return traces


def table_of(source: PairSource, traces: dict[int, Trace]) -> pd.DataFrame:
    """Return a line for every word of the traced rows' texts, in the order of `traces`.

    `source` plays the recordings as they were traced; times are those of the recordings themselves.
    """
    lines = []
    for row, trace in traces.items():
        text, speed = source.texts[row], source.speed_of(row)
        spans = word_spans(source.references.waveform(text), text)
        costs = [trace.cost_between(*span) for span in spans]
        # A word past the 16 s that are heard has no cost; where none has one, nothing is said.
        worst = int(np.nanargmax(costs)) if np.isfinite(costs).any() else None
        for position, (word, span, cost) in enumerate(zip(text.split(), spans, costs, strict=True)):
            start, end = (speed * seconds for seconds in trace.learner_between(*span))
            lines.append(
                {
                    "filename": source.filenames[row],
                    "position": position,
                    "word": word,
                    "start": round(start, 2),
                    "end": round(end, 2),
                    "cost": cost,
                    "parts": int(position == worst),
                }
            )
    columns = ["filename", "position", "word", "start", "end", "cost", "parts"]
    return pd.DataFrame(lines, columns=columns)


def write_divergences(
    path: Path, files: FoldFiles, source: PairSource, rows: Sequence[int], device: torch.device
) -> None:
    """Align some rows' learners with the model of a fold and write the table, whole."""
    model = load_scorer(files, read_fold_metadata(files))
    assert isinstance(model, AlignedScorer)
    source = source.at_speeds(model.recipe.speed_by_grade)
    traces = trace_clips(model, source, rows, device=device, progress="divergences")
    table = table_of(source, {row: traces[row] for row in rows})
    write_table(table, path)
    print(f"wrote {path}: {len(table)} words of {len(rows)} rows")
