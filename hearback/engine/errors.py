"""The error that every step prints as one line instead of a traceback."""


class HearbackError(Exception):
    """An error that the user can fix; the message names the cure."""
