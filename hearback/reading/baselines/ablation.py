"""An ablation: five ways to compare a learner's recording with the expected text.

    python -m hearback.reading.baselines.ablation --backbone assets/whisper-tiny.en --folds 0

text_classifier    a classifier on two vectors: the text's, from a text embedder, and the learner's,
                   from the encoder
text_cosine        the cosine of these two vectors
speech_classifier  a classifier on the encoder's vectors of reference speech and learner
speech_cosine      the cosine of these two vectors
joined             reference and learner in one waveform, as the competition's winner did

The five recipes differ only in `pair`. In the competition their log losses were 0.32, 0.30, 0.28,
0.26 and 0.24, in this order. The text embedder must be in the assets:
`python -m hearback.engine.whisper.pretrained all-MiniLM-L6-v2`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pandas as pd

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import oof
from hearback.engine.training.fold_files import FoldFiles, why_not_done
from hearback.reading import evaluation
from hearback.reading.dataset import TrainingData
from hearback.reading.ensemble import ABLATION, ABLATION_PREFIX
from hearback.reading.options import TrainingOptions
from hearback.reading.recipe import COMPARISON_PAIRINGS, find_recipes
from hearback.reading.training import train_fold

# Mean pooling and one hidden layer: a linear classifier cannot compare two concatenated vectors.
BASE = replace(
    find_recipes()["model3mb"],
    hidden="width",
    text_embedder="sentence-transformers/all-MiniLM-L6-v2",
)
RECIPES = {
    (name := pair.replace(" ", "_")): replace(BASE, name=f"{ABLATION_PREFIX}{name}", pair=pair)
    for pair in COMPARISON_PAIRINGS
}
COMPETITION_LOG_LOSSES = dict(zip(RECIPES, (0.32, 0.30, 0.28, 0.26, 0.24), strict=True))


def main() -> None:
    """Train the missing folds, and print the tables."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=tuple(RECIPES),
        default=list(RECIPES),
        help="default: all",
    )
    parser.add_argument("--folds", "--fold", nargs="+", type=int, help="default: all")
    parser.add_argument(
        "--attempt", type=int, default=1, help="2, 3, …: retrain with other random numbers"
    )
    TrainingOptions.declare(parser)
    arguments = parser.parse_args()
    options = TrainingOptions.gather(arguments)
    data = options.load_data()
    train(arguments, options, data)
    for title, frame in tables(options.assets, data).items():
        print(f"\n{title}\n{cli.as_text(frame)}")


def train(arguments: argparse.Namespace, options: TrainingOptions, data: TrainingData) -> None:
    """Train the missing folds; with --attempt 2 or more, all requested folds."""
    folds = range(options.n_folds) if arguments.folds is None else arguments.folds
    for fold in folds:
        for variant in arguments.variants:
            recipe = RECIPES[variant]
            run_key = options.run_key(options.adapt(recipe), data)
            reason = why_not_done(FoldFiles(options.assets, recipe.name, fold), run_key)
            print(f"{recipe.name} fold {fold}: {reason or 'done'}", flush=True)
            if reason is not None or arguments.attempt > 1:
                program = ("-m", ABLATION, "--variants", variant)
                train_fold(recipe, fold, options, data, arguments.attempt, program=program)


def tables(assets: Path, data: TrainingData) -> dict[str, pd.DataFrame]:
    """Return tables of the variants with a finished fold, in the order of `RECIPES`, by title.

    Raises HearbackError if there are none.
    """
    metadata = data.metadata.assign(score=data.labels)
    trained = oof.trained_folds(assets)
    models = {recipe.name: variant for variant, recipe in RECIPES.items() if recipe.name in trained}
    if not models:
        raise HearbackError(f"{assets}: no finished fold of the ablation")
    variants = evaluation.read_out_of_fold(assets, list(models))
    summary = evaluation.summary(variants, metadata)
    published = [COMPETITION_LOG_LOSSES[models[name]] for name in summary.index]
    summary.insert(2, "in the competition", published)
    return {
        "Variants": summary,
        "Each variant against the previous one": gains_over_previous(variants, metadata),
        "Log loss per grade": evaluation.by_column(variants, metadata, "grade"),
        "Log loss per task": evaluation.by_column(variants, metadata, "task"),
    }


def gains_over_previous(
    variants: Sequence[evaluation.ReadingOutOfFold], metadata: pd.DataFrame
) -> pd.DataFrame:
    """Return the gain in log loss of each variant over the previous one, on their common rows."""
    rows = evaluation.join(variants, metadata)
    error_name = f"± (by {evaluation.group_unit(rows)})"
    lines = []
    for previous, variant in pairwise(variants):
        # `base` is the reference of the gain: here the previous variant, not the base rate.
        against = rows.assign(base=rows[previous.model])
        gain, error = evaluation.gain_with_error(against, rows[variant.model])
        lines.append({"model": variant.model, "rows": len(rows), "gain": gain, error_name: error})
    return pd.DataFrame(lines, columns=["model", "rows", "gain", error_name]).set_index("model")


if __name__ == "__main__":
    cli.run(main)
