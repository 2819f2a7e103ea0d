"""The error that every step shows as one line instead of a traceback."""


class HearbackError(Exception):
    """Something that the person running a step can put right; the message says what to do."""
