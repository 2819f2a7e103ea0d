"""Score a token scorer's held-out rows with their texts written in other ways.

    python -m benchmarks.texts --data DATA --models modeltok

Texts in curly apostrophes, in capitals, in quotes and so on, with and without the text normalizer:
without it, a text is scored as it is written. The first table has the rows whose text has an
apostrophe, the second one --rows rows chosen at random.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.first_folds import FirstFold, declare, read_first_folds
from hearback.engine import cli
from hearback.engine.devices import compute_dtype
from hearback.reading.dataset import TrainingData
from hearback.reading.inference.predict import predict
from hearback.reading.models.base import Scorer
from hearback.reading.pairs import PairSource
from hearback.reading.text_normalizer import normalize_text

Write = Callable[[str], str]


def curl(text: str) -> str:
    """Return a text with curly apostrophes."""
    return text.replace("'", "\u2019")


APOSTROPHE_FORMS: dict[str, Write] = {
    "curly apostrophes": curl,
    "mojibake": lambda text: curl(text).encode().decode("cp1252"),
    "HTML entities": lambda text: text.replace("'", "&#39;"),
}
FORMS: dict[str, Write] = {
    "plain": lambda text: text,
    "capitals": str.upper,
    "quotes": lambda text: f'"{text}"',
    "sentence": lambda text: f"{text[:1].upper()}{text[1:]}.",
    "soft hyphens": lambda text: " ".join(f"{w[:2]}\u00ad{w[2:]}" for w in text.split()),
}


def main() -> None:
    """Score the folds' rows in each form, and print the tables."""
    parser = cli.parser(__doc__)
    declare(parser)
    add = parser.add_argument
    add("--rows", type=cli.int_of_at_least(1), default=300, help="rows of the second table")
    arguments = parser.parse_args()
    for fold in read_first_folds(arguments):
        compare(fold, arguments.rows, np.random.default_rng(arguments.seed))


def compare(fold: FirstFold, n_rows: int, rng: np.random.Generator) -> None:
    """Print the tables of one fold."""
    texts = fold.data.metadata["expected_text"]
    with_apostrophe = fold.rows[texts[fold.rows].str.contains("'").to_numpy()]
    chosen = rng.choice(fold.rows, min(n_rows, len(fold.rows)), replace=False)
    for name, rows, forms in (
        ("texts with an apostrophe", with_apostrophe, FORMS | APOSTROPHE_FORMS),
        ("texts", chosen, FORMS),
    ):
        scores = score_forms(fold.model, fold.data, rows, forms, fold.device)
        print(f"{fold.name}: {len(rows)} {name}\n{scores.to_string(index=False)}\n")


def score_forms(
    model: Scorer,
    data: TrainingData,
    rows: np.ndarray,
    forms: Mapping[str, Write],
    device: torch.device,
) -> pd.DataFrame:
    """Return a line per form: AUC and log loss of its texts as written, and normalized."""
    metadata, labels = data.metadata.iloc[rows], data.labels[rows]
    lines = []
    for form, write in forms.items():
        written = metadata["expected_text"].map(write)
        line: dict[str, str | float] = {"written with": form}
        for name, texts in (
            ("as written", written),
            ("normalized", written.map(lambda text: normalize_text(text).text)),
        ):
            source = PairSource(
                metadata.assign(expected_text=texts), data.source.references, data.source.store
            )
            predictions = predict(
                model,
                source,
                np.arange(len(rows)),
                device=device,
                dtype=compute_dtype(device, "float32"),
                progress=f"{form}, {name}",
            ).clips
            line[f"AUC, {name}"] = round(roc_auc_score(labels, predictions), 4)
            line[f"log loss, {name}"] = round(log_loss(labels, predictions), 4)
        lines.append(line)
    return pd.DataFrame(lines)


if __name__ == "__main__":
    cli.run(main)
