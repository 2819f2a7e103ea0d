"""The shipped scorers as commands: `python -m hearback.reading.pretrained STEP`."""

from hearback.engine import cli

STEPS = {
    "list": "hearback.reading.pretrained.listing",
    "show": "hearback.reading.pretrained.show",
    "build": "hearback.reading.pretrained.build",
}


def main() -> None:
    """Run the step that the command line names."""
    cli.run_steps("python -m hearback.reading.pretrained", STEPS)


if __name__ == "__main__":
    main()
