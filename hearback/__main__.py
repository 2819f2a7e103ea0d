"""All steps as one command: `hearback STEP`, or `python -m hearback STEP`."""

import sys
from pathlib import Path

from hearback.engine import cli

STEPS = {
    "score": "hearback.reading.steps.score",
    "preprocess": "hearback.reading.steps.preprocess",
    "train": "hearback.reading.steps.train",
    "check_models": "hearback.reading.steps.check_models",
    "get_config": "hearback.reading.steps.get_config",
    "infer": "hearback.reading.steps.infer",
    "report": "hearback.reading.steps.report",
    "backbone": "hearback.engine.whisper.pretrained",
    "sample": "hearback.reading.corpora.sample",
    "speechocean762": "hearback.reading.corpora.speechocean762",
    "pretrained": "hearback.reading.pretrained.__main__",
    "submission": "hearback.reading.submission.pack",
    "dry_run": "hearback.reading.submission.dry_run",
    "baselines": "hearback.reading.baselines.train",
    "ablation": "hearback.reading.baselines.ablation",
    "songs": "hearback.songs.__main__",
}


def main() -> None:
    """Run the step that the command line names."""
    as_module = Path(sys.argv[0]).name == "__main__.py"
    cli.run_steps("python -m hearback" if as_module else "hearback", STEPS)


if __name__ == "__main__":
    main()
