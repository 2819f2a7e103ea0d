"""Keep the out-of-fold predictions of trained folds, without their weights, in one small file.

    python -m benchmarks.publish --assets assets --to docs/out_of_fold/recipes --words
    python -m benchmarks.publish --songs --assets assets/songs --to docs/out_of_fold/songs

Writes `folds.tar.xz` into the folder `--to`: each finished fold's metadata (recipe, history,
fingerprints) and out-of-fold predictions, and with `--words` the word scores. The steps
check_models and get_config of both competitions read it with `--assets FOLDER`, check_models also
with `--against FOLDER`: no model has to be trained again to check its figures or to combine it with
another model.

Probabilities are rounded to seven significant digits of p and of 1 - p, log-odds of words to five
decimals. Losses and gradient norms of single steps are left out, as are the folders in the command
that trains a fold again.
"""

import hashlib
import json
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hearback.engine import cli
from hearback.engine.evaluation.oof import OutOfFold, read_tables
from hearback.engine.training.fold_archive import write_archive
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata
from hearback.reading.evaluation import ReadingOutOfFold
from hearback.reading.words import read_fold
from hearback.songs import SUBFOLDER
from hearback.songs.evaluation import PROBABILITIES, ClassOutOfFold

FOLDERS = ("--data", "--tts_data", "--store", "--assets", "--runs", "--backbones")
PROBABILITY_DIGITS = 7
LOG_ODDS_DECIMALS = 5


def main() -> None:
    """Write the archive."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--songs", action="store_true", help="publish the songs' folds instead of reading's")
    add("--assets", type=Path, help="folder of the trained folds (default: the competition's)")
    add("--models", nargs="+", help="only these models (default: all trained models)")
    add("--words", action="store_true", help="include word scores, of models that have them")
    add("--to", type=Path, required=True, help="folder of the archive; an old one is replaced")
    arguments = parser.parse_args()
    kind = ClassOutOfFold if arguments.songs else ReadingOutOfFold
    assets = arguments.assets or Path("assets", SUBFOLDER if arguments.songs else "")
    n_folds = publish(assets, arguments.to, arguments.models, kind, with_words=arguments.words)
    print(f"{n_folds} folds in {arguments.to}")


def publish(
    assets: Path,
    to: Path,
    models: list[str] | None = None,
    kind: type[OutOfFold] = ReadingOutOfFold,
    *,
    with_words: bool = False,
) -> int:
    """Write the finished folds of `models`, or of all, into one archive; return their number.

    `kind` is the competition's. Raises HearbackError as `read_tables` does, before anything is
    written.
    """
    contents: dict[str, bytes] = {}
    for table in read_tables(kind, assets, models):
        for fold, metadata in table.metadata_by_fold.items():
            files = FoldFiles(assets, table.model, fold)
            contents |= published_files(files, metadata, table, with_words=with_words)
    write_archive(to, contents)
    return sum(name.endswith(".json") for name in contents)


def published_files(
    files: FoldFiles, metadata: FoldMetadata, table: OutOfFold, *, with_words: bool
) -> dict[str, bytes]:
    """Return the files of one published fold by name."""
    oof = table.rows[table.rows["fold"] == files.fold].drop(columns=["fold", "base"])
    tables = {files.oof.name: as_csv(with_rounded_probabilities(oof))}
    digests = {**metadata["sha256"], "oof": sha256(tables[files.oof.name])}
    if digests.pop("words", None) and with_words:
        tables[files.table("words").name] = as_csv(
            read_fold(files, metadata).round(LOG_ODDS_DECIMALS)
        )
        digests["words"] = sha256(tables[files.table("words").name])
    kept = {
        **metadata,
        "epochs": [without_steps(epoch) for epoch in metadata["epochs"]],
        "retrain_command": without_folders(metadata["retrain_command"]),
        "sha256": digests,
    }
    return {**tables, files.metadata.name: json.dumps(kept, ensure_ascii=False).encode()}


def as_csv(table: pd.DataFrame) -> bytes:
    """Return a table as the bytes of a CSV file."""
    return table.to_csv(index=False, lineterminator="\n").encode()


def sha256(content: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def with_rounded_probabilities(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with its probabilities rounded, of reading or of songs."""
    columns = [name for name in ("pred", *PROBABILITIES) if name in table]
    return table.assign(**{name: rounded(table[name].to_numpy()) for name in columns})


def rounded(probabilities: np.ndarray) -> np.ndarray:
    """Round to `PROBABILITY_DIGITS` significant digits of p and of 1 - p, whichever is smaller."""
    smaller = np.minimum(probabilities, 1 - probabilities)
    decimals = PROBABILITY_DIGITS - 1 - np.floor(np.log10(np.maximum(smaller, 1e-15)))
    return np.array([round(p, int(n)) for p, n in zip(probabilities, decimals, strict=True)])


def without_steps(epoch: dict[str, Any]) -> dict[str, Any]:
    """Return an epoch's record without its lists, which have a number for every step."""
    return {name: value for name, value in epoch.items() if not isinstance(value, list)}


def without_folders(command: str) -> str:
    """Return a command that trains a fold, without the flags that name folders."""
    words = shlex.split(command)
    kept = [word for before, word in pairwise(["", *words]) if not {before, word} & set(FOLDERS)]
    return shlex.join(kept)


if __name__ == "__main__":
    cli.run(main)
