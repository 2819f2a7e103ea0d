"""Python's sitecustomize.py in a dry run: it refuses the network and the project's own files.

`hearback.reading.submission.dry_run` copies it to a folder that PYTHONPATH names, so that every process of the
dry run imports it first. What is refused is also written down, as whoever tried may carry on.
"""

import os
import sys
from pathlib import Path

LOG = Path(os.environ["HEARBACK_GUARD_LOG"])
PROJECT = os.environ["HEARBACK_GUARD_PROJECT"] + os.sep
ENVIRONMENT = sys.prefix + os.sep  # it may lie in the project
NETWORK_EVENTS = {
    "socket.bind",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyaddr",
    "socket.gethostbyname",
    "socket.sendmsg",
    "socket.sendto",
}
# urllib3 binds a socket here when it is imported, to see whether the system knows IPv6.
LOOPBACK = {"::1", "127.0.0.1"}


def refused(event: str, arguments: tuple[object, ...]) -> str | None:
    """Return what an audited event tries that the runtime has not, or None."""
    if event in NETWORK_EVENTS:
        address = arguments[-1] if event in ("socket.bind", "socket.connect") else arguments
        # A local socket's address is a path; what binds to the loopback reaches nobody.
        reaches = isinstance(address, tuple) and not (
            event == "socket.bind" and address[0] in LOOPBACK
        )
        return f"network: {event} {address}" if reaches else None
    if event == "open" and isinstance(arguments[0], str):
        path = os.path.abspath(arguments[0])  # noqa: PTH100  (called for every file; no Path)
        if path.startswith(PROJECT) and not path.startswith(ENVIRONMENT):
            return f"project: {path}"
    return None


def guard(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse an audited event, and write it down."""
    if what := refused(event, arguments):
        descriptor = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{what}\n".encode())
        os.close(descriptor)
        raise PermissionError(f"not in the competition's runtime: {what}")


sys.addaudithook(guard)
