"""Step 5: classify the snippets of a folder and write submission.csv; no network.

    python -m hearback.songs.steps.infer --data FOLDER

FOLDER is any with audio files, also in folders of its own. Writes submission.csv (filename, label:
0 no voice, 1 male, 2 female, 3 several) and submission_probabilities.csv beside it.
"""

from pathlib import Path

from hearback.engine import cli
from hearback.engine.devices import TRAINING_PRECISIONS
from hearback.songs import SUBFOLDER
from hearback.songs.inference import InferenceOptions, write_submission
from hearback.songs.separation import methods


def main() -> None:
    """Parse and run."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=Path("data", SUBFOLDER, "test"), help="folder of the snippets")
    add("--store", type=Path, default=Path("store", SUBFOLDER), help="sounds and features")
    add(
        "--assets", type=Path, default=Path("assets", SUBFOLDER), help="folder of the trained folds"
    )
    add("--config", type=Path, help="the ensemble (default: model_configs.json in the assets)")
    add("--submission", type=Path, default=Path("submission.csv"), help="to write")
    add("--device", help="cpu, cuda, … (default: a GPU where there is one)")
    add(
        "--precision",
        choices=TRAINING_PRECISIONS,
        default="auto",
        help="of the matrix products; auto is half where the device computes in it, else float32",
    )
    methods.add_options(parser)
    asked = parser.parse_args()
    write_submission(
        InferenceOptions(
            data=asked.data,
            store=asked.store,
            assets=asked.assets,
            config=asked.config or asked.assets / "model_configs.json",
            submission=asked.submission,
            device=asked.device,
            precision=asked.precision,
            separations=methods.options_from(asked),
        )
    )


if __name__ == "__main__":
    cli.run(main)
