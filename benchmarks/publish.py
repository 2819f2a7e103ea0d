"""Keep what trained folds predicted, without their weights: to be checked and compared with.

    python -m benchmarks.publish --assets assets --to docs/out_of_fold/recipes
    python -m benchmarks.publish --songs --assets assets/songs --to docs/out_of_fold/songs

Each finished fold's metadata (recipe, history, fingerprints) and out-of-fold predictions are copied,
those of words too. `check_models.py --assets FOLDER` reads them, also with `--against`, and so do
`get_config.py` and, of the songs, `hearback.songs.steps.check_models` and `hearback.songs.steps.get_config`: nobody has to train
a model again to check a figure of it, or to pair another with it. The command that a metadata keeps
loses its folders, which are those of one machine.
"""

import shlex
import shutil
from itertools import pairwise
from pathlib import Path

from hearback.engine import cli
from hearback.engine.evaluation.oof import OutOfFold, read_tables
from hearback.engine.io import atomic_write, write_json
from hearback.engine.training.fold_files import FoldFiles
from hearback.songs import SUBFOLDER
from hearback.songs.evaluation import ClassOutOfFold

FOLDERS = ("--data", "--tts_data", "--store", "--assets", "--runs", "--backbones")


def main() -> None:
    """Copy what the command line asks for."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--songs", action="store_true", help="the songs' folds, not the reading competition's")
    add("--assets", type=Path, help="folder of the trained folds (default: where they are trained)")
    add("--models", nargs="+", help="only these (default: all that are trained)")
    add("--to", type=Path, required=True, help="folder to copy into")
    asked = parser.parse_args()
    kind = ClassOutOfFold if asked.songs else OutOfFold
    assets = asked.assets or Path("assets", SUBFOLDER if asked.songs else "")
    n_folds = publish(assets, asked.to, asked.models, kind)
    print(f"{n_folds} folds in {asked.to}")


def publish(
    assets: Path,
    to: Path,
    models: list[str] | None = None,
    kind: type[OutOfFold] = OutOfFold,
) -> int:
    """Copy the finished folds of `models`, or of all, and return how many they are.

    `kind` is the competition's. Raises HearbackError as `read_tables` does, before anything is
    written.
    """
    tables = read_tables(kind, assets, models)
    for table in tables:
        for fold, fold_metadata in table.metadata_by_fold.items():
            own, copy = (FoldFiles(folder, table.model, fold) for folder in (assets, to))
            copy.metadata.unlink(missing_ok=True)  # it must not vouch for other predictions
            copied = {own.oof: copy.oof}
            if "words" in fold_metadata["sha256"]:
                copied[own.words] = copy.words
            for source, target in copied.items():
                with atomic_write(target) as temporary:
                    shutil.copyfile(source, temporary)
            command = without_folders(fold_metadata["retrain_command"])
            write_json(copy.metadata, {**fold_metadata, "retrain_command": command})
    return sum(len(table.metadata_by_fold) for table in tables)


def without_folders(command: str) -> str:
    """Return a command that trains a fold, without the flags that name folders."""
    words = shlex.split(command)
    kept = [word for before, word in pairwise(["", *words]) if not {before, word} & set(FOLDERS)]
    return shlex.join(kept)


if __name__ == "__main__":
    cli.run(main)
