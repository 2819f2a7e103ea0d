"""The reading competition: did a learner say the expected text?"""

from hearback.engine.project import IS_INSTALLED


def step_command(step: str) -> str:
    """Return the command that runs a step, for messages: a script, or `hearback` if installed."""
    return f"hearback {step}" if IS_INSTALLED else f"python {step}.py"
