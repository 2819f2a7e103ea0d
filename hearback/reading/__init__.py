"""The reading competition: did a learner say the expected text?"""

from hearback.engine.project import IS_INSTALLED

DIVERGENCES = "divergences.csv"  # a table of infer.py, beside the submission

GROUPINGS = ("speaker", "expected_text")  # columns by which rows can be grouped into folds

# The folders that a step's flags name, and their help texts.
FOLDERS = {
    "data": "folder of the tables and recordings",
    "tts_data": "folder of the reference speech",
    "store": "folder of the decoded recordings",
    "assets": "folder of the trained folds",
}


def step_command(step: str) -> str:
    """Return the command that runs a step, for messages: a script, or `hearback` if installed."""
    return f"hearback {step}" if IS_INSTALLED else f"python {step}.py"
