"""Write report.html: one page to look at results and to listen to recordings, offline."""

from hearback.engine import cli
from hearback.reading.steps.report import main

if __name__ == "__main__":
    cli.run(main)
