"""submission.zip: all that a competition's runtime needs to classify data/, and nothing more.

    python -m hearback.songs.submission.pack

As `hearback.engine.submission.archive` lays it out: main.py (hearback/songs/submission/main.py), the code of hearback.songs.steps.infer, the
ensemble and its folds. `python main.py` classifies the audio files of the folder data/ beside it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.project import PACKAGE, ROOT
from hearback.engine.submission.archive import (
    RUNTIME,
    Faults,
    check_weights,
    declare,
    find_code,
    find_folds,
    lay_out,
    listed_packages,
    write_submission,
)
from hearback.engine.training.fold_files import FoldFiles
from hearback.songs import SUBFOLDER
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.evaluation import ClassOutOfFold
from hearback.songs.inference import Member, load_model, read_runnable_metadata

SCRIPT = PACKAGE / "songs" / "steps" / "infer.py"
MAIN = Path(__file__).with_name("main.py")
NEEDS_AN_ENVIRONMENT = ("demucs",)  # of its own, which a runtime does not have


@dataclass(frozen=True)
class PackingOptions:
    """What the command line says."""

    assets: Path
    config: Path
    submission: Path
    limit_gb: float | None = None


def pack(options: PackingOptions) -> Path:
    """Write the zip and return its path; HearbackError says all that is missing or wrong."""
    config = SongEnsemble.load(options.config)
    faults = Faults()
    code = find_code([MAIN, SCRIPT], ROOT, listed_packages(RUNTIME), faults)
    folds = find_folds(config.models_to_run, options.assets, files_of_fold, faults)
    faults.raise_if_any()
    cure = "Run fewer models: python -m hearback.songs.steps.get_config --models"
    entries = {**lay_out(MAIN, code, options.config), **folds}
    write_submission(entries, options.submission, options.limit_gb, cure)
    return options.submission


def files_of_fold(files: FoldFiles) -> Iterable[Path]:
    """Return what hearback.songs.steps.infer reads of a fold: its weights and its metadata.

    Raises HearbackError where the runtime could not run the fold, which is loaded as it is there.
    """
    fold_metadata = read_runnable_metadata(files)
    check_weights(files, fold_metadata, ClassOutOfFold.TRAIN)
    member = Member(0, files, fold_metadata)
    if member.recipe.separate in NEEDS_AN_ENVIRONMENT:
        raise HearbackError(
            f"{files.metadata}: hears voices separated by {member.recipe.separate}, which needs an "
            "environment that the runtime does not have; leave the model out with "
            "python -m hearback.songs.steps.get_config --models"
        )
    load_model(member)
    return files.weights, files.metadata


def main() -> None:
    """Parse and pack."""
    parser = cli.parser(__doc__)
    declare(parser, SUBFOLDER)
    parser.add_argument(
        "--config", type=Path, help="the ensemble (default: model_configs.json in the assets)"
    )
    asked = parser.parse_args()
    config = asked.config or asked.assets / "model_configs.json"
    pack(PackingOptions(asked.assets, config, asked.submission, asked.limit_gb))


if __name__ == "__main__":
    cli.run(main)
