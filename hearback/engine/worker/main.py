"""The worker's half of `worker.py`: it serves one script, on the Python that has its packages.

    .venv-x/bin/python -I hearback/worker_main.py SCRIPT --the_script_s flags

It imports nothing of Hearback and runs on Python 3.9 and later. SCRIPT has a function `start`:
given the command line's other arguments it returns what to tell of itself (a dict) and a function
that answers requests (a dict in, a dict out). One JSON object a line, both ways:

    out  {"ready": true, ...}          what `start` told
    in   {...}
    out  {...}  or  {"error": "why this request has no answer"}

Bytes in a reply travel as base64. When the script cannot start it writes {"fatal": "why"} and ends
with status 1. It ends when its input does.
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
    """Return the real standard output for the protocol; whatever is printed goes to stderr."""
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)  # output of C libraries too, which know nothing of sys.stdout
    sys.stdout = sys.stderr
    return protocol


def encode(value: bytes) -> str:
    """Return what JSON has no word for, which is bytes, as base64."""
    return base64.b64encode(value).decode("ascii")


def reply_to(line: str, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Return the reply to one request; that it has no answer is a reply too."""
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
        told, answer = runpy.run_path(script)["start"](arguments)
    except Exception as error:
        send({"fatal": f"{type(error).__name__}: {error}"})
        raise
    send({"ready": True, **told})
    for line in sys.stdin:
        send(reply_to(line, answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
