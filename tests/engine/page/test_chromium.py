"""Where there is no browser, the tests of the page fail, and say what to install."""

import pytest

from tests.engine.page.browser import find_chromium


def test_a_missing_chromium_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="apt-get install chromium"):
        find_chromium()
