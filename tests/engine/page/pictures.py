"""Take the README's pictures: the published page, and a recording of the demo's page.

python -m tests.engine.page.pictures demo/report.html
"""

import sys
from pathlib import Path

from playwright.sync_api import Page as Tab

from hearback.engine.project import ROOT
from tests.engine.page.browser import chromium
from tests.engine.page.page_reader import read_page

PUBLISHED = ROOT / "docs" / "results" / "report.html"
PICTURES = ROOT / "docs" / "pictures"
RECORDING = "sample_00038.wav"  # of the sample corpus: one word is another one


def main(demo: Path) -> None:
    """Write models.png and recording.png."""
    PICTURES.mkdir(exist_ok=True)
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 1200, "height": 2400})
        tab.goto(PUBLISHED.as_uri())
        _take(tab, "models", "#models", "#reliability")
        tab = browser.new_page(viewport={"width": 1000, "height": 2400})
        index = read_page(demo)["recordings"]["filenames"].index(RECORDING)
        tab.goto(f"{demo.resolve().as_uri()}#clip={index}")
        tab.locator("#play").wait_for()
        tab.keyboard.press("c")
        tab.locator("#sound .spectrogram canvas").first.wait_for(state="attached")
        tab.wait_for_timeout(1000)  # until the waveforms are drawn
        _take(tab, "recording", "#recording", "#recording")


def _take(tab: Tab, name: str, first: str, last: str) -> None:
    """Take a picture from the top of one element to the end of another."""
    top, bottom = tab.locator(first).bounding_box(), tab.locator(last).bounding_box()
    assert top is not None and bottom is not None
    height = bottom["y"] + bottom["height"] - top["y"]
    clip = {"x": top["x"], "y": top["y"], "width": top["width"], "height": height}
    path = PICTURES / f"{name}.png"
    tab.screenshot(path=path, clip=clip, full_page=True)  # type: ignore[arg-type]
    print(f"wrote {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
