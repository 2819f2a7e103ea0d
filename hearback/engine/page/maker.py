"""Which version made a page, and when."""

from datetime import datetime

import hearback


def describe_maker() -> str:
    """Return e.g. "Hearback 0.3.0, 2026-11-29 12:04"; no paths, for they may have names."""
    return f"Hearback {hearback.__version__}, {datetime.now().astimezone():%Y-%m-%d %H:%M}"
