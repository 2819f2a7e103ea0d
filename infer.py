"""Score the test recordings with the ensemble and write submission.csv."""

from pathlib import Path

from hearback import cli
from hearback.inference import InferenceOptions, write_submission


def main() -> None:
    """Parse and run."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"), help="folder of the tables and recordings")
    add("--tts_data", type=Path, default=Path("tts_data"), help="folder of the reference speech")
    add("--store", type=Path, default=Path("store"), help="folder of the decoded recordings")
    add("--assets", type=Path, default=Path("assets"), help="folder of the trained folds")
    add("--config", type=Path, default=Path("model_configs.json"), help="the ensemble")
    add("--submission", type=Path, default=Path("submission.csv"), help="to write")
    add("--device", help="cpu, cuda, … (default: a GPU where there is one)")
    add("--workers", type=int, default=0, help="processes that load recordings")
    write_submission(InferenceOptions(**vars(parser.parse_args())))


if __name__ == "__main__":
    cli.run(main)
