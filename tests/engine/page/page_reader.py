"""Reads what a written page holds."""

import json
import re
from pathlib import Path
from typing import Any

_JSON = re.compile(r'<script type="application/json" id="([\w-]+)"[^>]*>(.*?)</script>', re.DOTALL)


def read_page(path: Path) -> dict[str, Any]:
    """Return the `Page` of a report, as JSON, with its clips."""
    found = dict(_JSON.findall(path.read_text(encoding="utf-8")))
    page: dict[str, Any] = json.loads(found.pop("page-data"))
    page["recordings"]["clips"] = {
        name.removeprefix("clip-"): json.loads(content) for name, content in found.items()
    }
    return page
