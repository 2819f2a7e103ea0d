"""What all pages of the reading competition say in the same words."""

from hearback.engine.page.building import Competition
from hearback.reading import step_command
from hearback.reading.scoring.status import STATUSES, UNSURE_ABOVE, UNSURE_BELOW
from hearback.reading.tables import GRADES, TASKS

LABEL_NAMES = ("not said", "said")
PEOPLE = "speaker"  # a column

READING = Competition(
    title="Did they say it?",
    kind="binary",
    label_names=LABEL_NAMES,
    people=PEOPLE,
    train_command=step_command("train"),
    unsure=(UNSURE_ABOVE, UNSURE_BELOW),
    status_range=(UNSURE_ABOVE, UNSURE_BELOW),
    status_note=f"Status: “ok” is at most {UNSURE_ABOVE} or at least {UNSURE_BELOW}, “unsure” is "
    "in between, or a low score of a passage. Any other says why there is no score, or what to be "
    "careful of.",
    bins_by="grade",
    order={"label": LABEL_NAMES, "status": STATUSES, "grade": GRADES, "task": TASKS},
)
