"""A process of a cluster's machine that holds an object of the project, and calls its methods.

Uses only the standard library until the project can be imported: `pool` sends this module's class
to machines that may be unable to import the project.
"""

import importlib
import os
import pickle
import socket
import sys
from typing import Any


class Host:
    """Holds an object, which is made at the first call.

    Args:
        root: the project's folder, from which it is imported.
        folder: to run in.
        needed: paths that this machine must have.
        factory: "module:Class" of the object.
        arguments: of the class, pickled, so that this process can read them once it can import the
            project.
    """

    def __init__(
        self, root: str, folder: str, needed: list[str], factory: str, arguments: bytes
    ) -> None:
        self._missing = [path for path in (folder, *needed) if not os.path.exists(path)]  # noqa: PTH110
        self._factory, self._arguments = factory, arguments
        self._made: Any = None
        if not self._missing:
            os.chdir(folder)
        sys.path.insert(0, root)

    def check(self) -> str | None:
        """Return what this machine lacks, None if nothing."""
        if not self._missing:
            return None
        return f"{socket.gethostname()} does not see {', '.join(self._missing)}: share the folder"

    def call(self, method: str, argument: bytes) -> tuple[bool, bytes]:
        """Call a method with one pickled argument.

        Return True and the pickled result, or False and the message of a HearbackError, encoded.
        """
        from hearback.engine.errors import HearbackError  # noqa: PLC0415  (after __init__)

        try:
            if self._made is None:
                module, _, name = self._factory.partition(":")
                made = getattr(importlib.import_module(module), name)
                self._made = made(*pickle.loads(self._arguments))
            result = getattr(self._made, method)(pickle.loads(argument))
        except HearbackError as error:
            return False, str(error).encode()
        return True, pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL)
