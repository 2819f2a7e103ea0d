"""The songs' steps as one command: `python -m hearback.songs STEP`."""

from typing import NoReturn

from hearback.engine import cli

STEPS = {
    "sample": "hearback.songs.corpora.sample",
    "preprocess": "hearback.songs.steps.preprocess",
    "train": "hearback.songs.steps.train",
    "check_models": "hearback.songs.steps.check_models",
    "get_config": "hearback.songs.steps.get_config",
    "infer": "hearback.songs.steps.infer",
    "report": "hearback.songs.steps.report",
    "submission": "hearback.songs.submission.pack",
    "dry_run": "hearback.songs.submission.dry_run",
}


def main(program: str = "hearback songs") -> NoReturn:
    """Run the step that the command line names; `program` is the command as typed."""
    cli.run_steps(program, STEPS)


if __name__ == "__main__":
    main("python -m hearback.songs")
