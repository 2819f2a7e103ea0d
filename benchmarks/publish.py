"""Keep what trained folds predicted, without their weights: to be checked and compared with.

    python -m benchmarks.publish --assets assets --to docs/out_of_fold/trimmed

Each finished fold's story (recipe, history, fingerprints) and out-of-fold predictions are copied.
`check_models.py --assets FOLDER` reads them, also with `--against`, and so does `get_config.py`:
nobody has to train a model again to check a figure of it, or to pair another with it. The command
that a story keeps loses its folders, which are those of one machine.
"""

import shlex
import shutil
from itertools import pairwise
from pathlib import Path

from hearback import cli
from hearback.checkpoint import FoldFiles
from hearback.evaluation import read_out_of_fold
from hearback.files import whole_file, write_json

FOLDERS = ("--data", "--tts_data", "--store", "--assets", "--runs")


def main() -> None:
    """Copy what the command line asks for."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--assets", type=Path, default=Path("assets"), help="folder of the trained folds")
    add("--models", nargs="+", help="only these (default: all that are trained)")
    add("--to", type=Path, required=True, help="folder to copy into")
    asked = parser.parse_args()
    n_folds = publish(asked.assets, asked.to, asked.models)
    print(f"{n_folds} folds in {asked.to}")


def publish(assets: Path, to: Path, models: list[str] | None = None) -> int:
    """Copy the finished folds of `models`, or of all, and return how many they are.

    Raises HearbackError as `read_out_of_fold` does, before anything is written.
    """
    tables = read_out_of_fold(assets, models)
    for table in tables:
        for fold, story in table.stories.items():
            own, copy = (FoldFiles(folder, table.model, fold) for folder in (assets, to))
            copy.story.unlink(missing_ok=True)  # it must not vouch for other predictions
            with whole_file(copy.oof) as temporary:
                shutil.copyfile(own.oof, temporary)
            command = without_folders(story["command_again"])
            write_json(copy.story, {**story, "command_again": command})
    return sum(len(table.stories) for table in tables)


def without_folders(command: str) -> str:
    """Return a command that trains a fold, without the flags that name folders."""
    words = shlex.split(command)
    kept = [word for before, word in pairwise(["", *words]) if not {before, word} & set(FOLDERS)]
    return shlex.join(kept)


if __name__ == "__main__":
    cli.run(main)
