"""What all pages of the songs say in the same words."""

from hearback.engine.page.building import Competition
from hearback.songs.evaluation import ClassOutOfFold
from hearback.songs.report.verdict import CLASS, OK, UNSURE, UNSURE_BELOW
from hearback.songs.tables import CLASSES

SINGERS = "singers"  # a column that names people
KNOWN = "several singers"  # column: whether one of them is also in the training rows
KNOWN_VALUES = ("none in training", "one in training")

SONGS = Competition(
    title="Who sings?",
    kind="classes",
    label_names=CLASSES,
    people=SINGERS,
    train_command=ClassOutOfFold.TRAIN_COMMAND,
    status_range=(0.0, UNSURE_BELOW),
    status_note=f"Status: “unsure” is where no class has a probability of at least {UNSURE_BELOW}.",
    order={CLASS: CLASSES, "status": (OK, UNSURE), KNOWN: KNOWN_VALUES},
)
