"""sitecustomize.py of a dry run: blocks the network and the project's own files.

`hearback.engine.submission.sandbox` copies it to a folder on PYTHONPATH, so that every process of
the dry run imports it first. Each refusal is also logged, because the caller may catch the error.
"""

import os
import sys
from pathlib import Path

LOG = Path(os.environ["HEARBACK_GUARD_LOG"])
PROJECT = os.environ["HEARBACK_GUARD_PROJECT"] + os.sep
ENVIRONMENT = sys.prefix + os.sep  # may be inside the project
NETWORK_EVENTS = {
    "socket.bind",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyaddr",
    "socket.gethostbyname",
    "socket.sendmsg",
    "socket.sendto",
}
# urllib3 binds a socket to the loopback on import, to test for IPv6.
LOOPBACK = {"::1", "127.0.0.1"}


def refused(event: str, arguments: tuple[object, ...]) -> str | None:
    """Return a description of an audited event that the runtime would not allow, or None."""
    if event in NETWORK_EVENTS:
        address = arguments[-1] if event in ("socket.bind", "socket.connect") else arguments
        # A local socket's address is a path; binding to the loopback reaches no other machine.
        reaches = isinstance(address, tuple) and not (
            event == "socket.bind" and address[0] in LOOPBACK
        )
        return f"network: {event} {address}" if reaches else None
    if event == "open" and isinstance(arguments[0], str):
        path = os.path.abspath(arguments[0])  # noqa: PTH100  (called for every file: Path is too slow)
        if path.startswith(PROJECT) and not path.startswith(ENVIRONMENT):
            return f"project: {path}"
    return None


def guard(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse and log an audited event that is not allowed."""
    if description := refused(event, arguments):
        descriptor = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{description}\n".encode())
        os.close(descriptor)
        raise PermissionError(f"not in the competition's runtime: {description}")


sys.addaudithook(guard)
