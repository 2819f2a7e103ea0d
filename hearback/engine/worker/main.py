"""The worker's side of `worker/host.py`: serves one script in the environment of its packages.

    .venv-x/bin/python -I hearback/engine/worker/main.py SCRIPT [the script's flags]

It imports nothing of Hearback and runs on Python 3.9 and later. SCRIPT has a function `start`:
given the remaining command-line arguments, it returns a description of itself (a dict) and a
function that answers requests (a dict in, a dict out). One JSON object per line, both ways:

    out  {"ready": true, ...}          with the description
    in   {...}
    out  {...}  or  {"error": "why this request failed"}

Bytes in a reply are sent as base64. If the script cannot start, it writes {"fatal": "why"} and ends
with status 1. It ends when its input ends.
"""

from __future__ import annotations

import base64
import json
import os
import runpy
import sys
from collections.abc import Callable
from typing import Any, TextIO


def reserve_stdout() -> TextIO:
    """Return the real standard output for the protocol; redirect printing to standard error."""
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)  # for C libraries, which bypass sys.stdout
    sys.stdout = sys.stderr
    return protocol


def encode(value: bytes) -> str:
    """Encode bytes, which JSON lacks, as base64."""
    return base64.b64encode(value).decode("ascii")


def reply_to(line: str, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Return the reply to one request; an exception becomes an error reply."""
    try:
        return answer(json.loads(line))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> int:
    """Start the script, then answer requests until the input ends."""
    script, *arguments = sys.argv[1:]
    protocol = reserve_stdout()

    def send(message: dict[str, Any]) -> None:
        protocol.write(json.dumps(message, default=encode) + "\n")
        protocol.flush()

    try:
        description, answer = runpy.run_path(script)["start"](arguments)
    except Exception as error:
        send({"fatal": f"{type(error).__name__}: {error}"})
        raise
    send({"ready": True, **description})
    for line in sys.stdin:
        send(reply_to(line, answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
