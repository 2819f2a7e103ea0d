"""Where in the recording, and in the text, the learner diverges from the reference.

    divergences.csv
      filename, position, word, written, start, end, cost, diverges

One line for each word of each text: `written`, the part of the written text that it comes from;
its start and end in the recording, in seconds, according to the alignment; `cost`, the mean cosine
distance there (0 to 2); and `diverges`, 1 for the word with the largest distance. The table helps
to explain a surprising score. How often that word is the wrong one:
docs/results/aligned_comparison.md.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from hearback.engine.data.tables import write_table
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.models.alignment import AlignmentPath, word_spans
from hearback.reading.models.load import load_scorer
from hearback.reading.models.scorers import AlignedScorer
from hearback.reading.pairs import Example, PairDataset, PairSource
from hearback.reading.text_normalizer import written_words
from hearback.reading.window_batches import batch_by_window

COLUMNS = ["filename", "position", "word", "written", "start", "end", "cost", "diverges"]


def choose_fold(config: EnsembleConfig, assets: Path) -> FoldFiles | None:
    """Return the first fold of the ensemble's aligned model with the largest weight, or None.

    Models without a weight count if they are there: inference does not need them.
    """
    for model in sorted(config.models, key=lambda model: -model.weight):
        files = FoldFiles(assets, model.name, model.folds[0])
        if not model.weight and not files.metadata.exists():
            continue
        if read_fold_metadata(files)["recipe"]["pair"] == "aligned":
            return files
    return None


@torch.inference_mode()
def align_clips(
    model: AlignedScorer,
    source: PairSource,
    rows: Sequence[int],
    *,
    device: torch.device,
    progress: str | None = None,
) -> dict[int, AlignmentPath]:
    """Return the alignment of each row's recording, at the speeds of `source`, by row."""
    model.to(device).eval()
    recipe = model.recipe
    examples = [Example(row, source.texts[row]) for row in rows]
    pairs = DataLoader(PairDataset(source, examples, recipe.pair), batch_size=None)
    batches = batch_by_window(pairs, recipe.batch_size, recipe.window, recipe.window_step_seconds)
    paths: dict[int, AlignmentPath] = {}
    with tqdm(total=len(examples), desc=progress, unit="clip", disable=progress is None) as bar:
        for batch in batches:
            paths |= zip(batch.rows.tolist(), model.alignment_paths(batch.to(device)), strict=True)
            bar.update(len(batch))
    return paths


def divergence_table(
    source: PairSource,
    paths: dict[int, AlignmentPath],
    written_texts: Mapping[int, str] | None = None,
) -> pd.DataFrame:
    """Return a line for each word of the aligned rows' texts, in the order of `paths`.

    `written_texts` are the rows' texts as written, by row; by default those of `source`.

    `source` has the speeds that the clips were aligned at; times refer to the original recordings.
    """
    lines = []
    for row, path in paths.items():
        text, speed = source.texts[row], source.speed_of(row)
        spans = word_spans(source.references.waveform(text), text)
        costs = [path.cost_between(*span) for span in spans]
        written = written_words([written_texts[row] if written_texts else text])
        # A word beyond the 16 s window has no cost.
        worst = int(np.nanargmax(costs)) if np.isfinite(costs).any() else None
        for position, (word, span, cost) in enumerate(zip(text.split(), spans, costs, strict=True)):
            start, end = (speed * seconds for seconds in path.learner_between(*span))
            lines.append(
                {
                    "filename": source.filenames[row],
                    "position": position,
                    "word": word,
                    "written": written[position],
                    "start": round(start, 2),
                    "end": round(end, 2),
                    "cost": cost,
                    "diverges": int(position == worst),
                }
            )
    return pd.DataFrame(lines, columns=COLUMNS)


def write_divergences(
    path: Path,
    files: FoldFiles,
    source: PairSource,
    rows: Sequence[int],
    written_texts: Sequence[str],
    *,
    device: torch.device,
) -> None:
    """Align the recordings of some rows with a fold's model and write the table."""
    model = load_scorer(files, read_fold_metadata(files))
    assert isinstance(model, AlignedScorer)
    source = source.with_speeds(model.recipe.speed_by_grade)
    paths = align_clips(model, source, rows, device=device, progress="divergences")
    table = divergence_table(
        source, {row: paths[row] for row in rows}, dict(zip(rows, written_texts, strict=True))
    )
    write_table(table, path)
    print(f"wrote {path}: {len(table)} words of {len(rows)} rows")
