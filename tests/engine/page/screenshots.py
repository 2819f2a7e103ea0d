"""Take pictures of made-up pages, to look at: python -m tests.engine.page.screenshots FOLDER."""

import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from PIL import Image

from hearback.engine.page.render import render
from tests.engine.page.browser import chromium
from tests.engine.page.pages import binary_page, classes_page

WIDTHS = (360, 1280)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def main(out: Path) -> None:
    """Write a picture of each page, width and colour scheme, with a recording open."""
    out.mkdir(parents=True, exist_ok=True)
    pages = {
        "readings": binary_page(300),
        "unlabelled": binary_page(60, labelled=False),
        "songs": classes_page(),
    }
    with TemporaryDirectory() as folder, chromium() as browser:
        for name, page in pages.items():
            file = Path(folder) / f"{name}.html"
            file.write_text(render(page), encoding="utf-8")
            for width in WIDTHS:
                for scheme in SCHEMES:
                    tab = browser.new_page(
                        viewport={"width": width, "height": 900}, color_scheme=scheme
                    )
                    tab.goto(f"{file.as_uri()}#clip=0")
                    tab.locator("#play").wait_for()
                    tab.keyboard.press("c")
                    tab.locator("#sound .spectrogram canvas").first.wait_for(state="attached")
                    tab.wait_for_timeout(500)  # until the waveforms are drawn
                    path = out / f"{name}-{width}-{scheme}.png"
                    picture = Image.open(BytesIO(tab.screenshot(full_page=True)))
                    picture.quantize(128).save(path, optimize=True)  # a quarter of the size
                    tab.close()
                    print(f"wrote {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots"))
