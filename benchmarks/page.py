"""How long does a page take to open? Loads it in Chromium and prints the times.

    python -m benchmarks.page docs/results/report.html --runs 5

Prints the page's size, and the median and range of the seconds until its scripts have drawn it.
Needs playwright and Chromium, as the tests of the page do.
"""

import statistics
import time
from pathlib import Path

from hearback.engine import cli
from hearback.engine.errors import HearbackError

READY = "document.querySelector('#models .chosen') !== null"


def main() -> None:
    """Open each page several times, and print how long it took."""
    parser = cli.parser(__doc__)
    parser.add_argument("pages", nargs="+", type=Path, help="pages to open")
    parser.add_argument("--runs", type=cli.int_of_at_least(1), default=5, help="times to open each")
    flags = parser.parse_args()
    for page in flags.pages:
        if not page.is_file():
            raise HearbackError(f"{page}: no such file; python report.py writes one")
        times = sorted(open_times(page, flags.runs))
        megabytes = page.stat().st_size / 1e6
        print(
            f"{page}: {megabytes:.1f} MB, opens in {statistics.median(times):.2f} s "
            f"[{times[0]:.2f}, {times[-1]:.2f}] ({flags.runs} runs)"
        )


def open_times(page: Path, n_runs: int) -> list[float]:
    """Return the seconds until the page is drawn, each in a new tab."""
    # Only here: the package's users do not have them.
    from tests.engine.page.browser import chromium  # noqa: PLC0415

    times = []
    with chromium() as browser:
        for _ in range(n_runs):
            tab = browser.new_page()
            start = time.monotonic()
            tab.goto(page.resolve().as_uri())
            assert tab.evaluate(READY)  # the scripts run before the page counts as loaded
            times.append(time.monotonic() - start)
            tab.close()
    return times


if __name__ == "__main__":
    cli.run(main)
