"""Pack submission.zip: everything that the competition's runtime needs to classify data/.

    python -m hearback.songs submission

`hearback.engine.submission.archive` describes the layout: main.py (a copy of
hearback/songs/submission/main.py), the modules that the step infer imports, the ensemble and its
folds. `python main.py` classifies the audio files of the folder data/ beside it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.submission.archive import (
    RUNTIME,
    Faults,
    add_arguments,
    check_weights,
    common_entries,
    find_code,
    find_folds,
    listed_packages,
    write_submission,
)
from hearback.engine.training.fold_files import FoldFiles
from hearback.songs import SUBFOLDER
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.evaluation import ClassOutOfFold

MAIN = Path(__file__).with_name("main.py")
OWN_ENVIRONMENT = ("demucs",)  # separations that need an environment of their own


@dataclass(frozen=True)
class PackingOptions:
    """The command line's options."""

    assets: Path
    config: Path
    submission: Path
    limit_gb: float | None = None


def pack(options: PackingOptions) -> Path:
    """Write the zip and return its path; HearbackError lists everything missing or wrong."""
    config = SongEnsemble.load(options.config)
    faults = Faults()
    code = find_code(MAIN, listed_packages(RUNTIME), faults)
    folds = find_folds(config.models_to_run, options.assets, files_of_fold, faults)
    faults.raise_if_any()
    cure = "Run fewer models: python -m hearback.songs get_config --models"
    entries = {**common_entries(MAIN, code, options.config), **folds}
    write_submission(entries, options.submission, options.limit_gb, cure)
    return options.submission


def files_of_fold(files: FoldFiles) -> Iterable[Path]:
    """Return the files of a fold that infer reads, after loading it as the runtime will.

    Raises HearbackError if the runtime cannot run it.
    """
    # Not for --help: it imports torch.
    from hearback.songs.inference import (  # noqa: PLC0415
        EnsembleFold,
        load_model,
        read_runnable_metadata,
    )

    fold_metadata = read_runnable_metadata(files)
    check_weights(files, fold_metadata, ClassOutOfFold.TRAIN_COMMAND)
    fold = EnsembleFold(0, files, fold_metadata)
    if fold.recipe.separate in OWN_ENVIRONMENT:
        raise HearbackError(
            f"{files.metadata}: needs the separation {fold.recipe.separate}, but the runtime lacks "
            "its packages; leave the model out with "
            "python -m hearback.songs get_config --models"
        )
    load_model(fold)
    return files.weights, files.metadata


def main() -> None:
    """Parse the command line and pack."""
    parser = cli.parser(__doc__)
    add_arguments(parser, SUBFOLDER)
    parser.add_argument(
        "--config", type=Path, help="the ensemble (default: model_configs.json in the assets)"
    )
    arguments = parser.parse_args()
    config = arguments.config or arguments.assets / "model_configs.json"
    pack(PackingOptions(arguments.assets, config, arguments.submission, arguments.limit_gb))


if __name__ == "__main__":
    cli.run(main)
