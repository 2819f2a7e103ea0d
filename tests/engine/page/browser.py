"""The browser that tests pages: Debian's Chromium, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources

from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Page as Tab

NAMES = ("chromium", "google-chrome")
INSTALL = "the tests of the page need Chromium: apt-get install chromium"
# Impacts of axe-core's findings that no page may have.
GRAVE = ("serious", "critical")


def find_chromium() -> str:
    """Return the path of Chromium."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise FileNotFoundError(INSTALL)
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium; it is closed at the end."""
    # The sandbox cannot be used by root, as which CI runs.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=arguments)
        yield browser
        browser.close()


def grave_findings(tab: Tab) -> list[str]:
    """Return what axe-core finds serious or critical: rule and elements."""
    axe = resources.files("axe_playwright_python") / "axe.min.js"
    tab.evaluate(axe.read_text(encoding="utf-8"))
    # Its preload of style sheets copies those of shadow trees, which the page's policy forbids.
    results = tab.evaluate("axe.run(document, { resultTypes: ['violations'], preload: false })")
    return [
        f"{each['id']}: {'; '.join(node['html'][:120] for node in each['nodes'][:3])}"
        for each in results["violations"]
        if each["impact"] in GRAVE
    ]
