"""What a page shows, as plain values: the template and the scripts of the page read these as JSON.

A competition fills in a `Page`; `render.render` makes HTML of it. Numbers are rounded when the page
is written. Whatever has a value per recording is a list in the order of the recordings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Estimate(NamedTuple):
    """A number with its 95 % interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None


NO_ESTIMATE = Estimate(None)


@dataclass(frozen=True)
class Verdict:
    """How good the models are, for whom not, and what to do.

    Attributes:
        sentences: three, in plain text.
        warnings: ways in which the recordings are unlike those of the training, in plain text.
        card: facts of the model card, (name, value) each.
    """

    sentences: Sequence[str]
    warnings: Sequence[str] = ()
    card: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Distribution:
    """How many recordings have each value; `unit` of the values, "" for names."""

    title: str
    values: Sequence[str]
    counts: Sequence[int]
    unit: str = ""


@dataclass(frozen=True)
class Refused:
    """A recording or a row that was not used, and what to do about it."""

    filename: str
    row: int | None
    what: str
    cure: str


@dataclass(frozen=True)
class DataSummary:
    """What the recordings are.

    Attributes:
        facts: (name, value) each.
        distributions: of the recordings.
        refused: recordings and rows that were not used.
        notes: what else there is to say, sentences in plain text.
    """

    facts: Sequence[tuple[str, str]]
    distributions: Sequence[Distribution] = ()
    refused: Sequence[Refused] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Bin:
    """The recordings whose predictions are in [low, high), the last bin also at 1.

    `mean_prediction` is None, and `share` (of label 1) empty, if there is no recording.
    """

    low: float
    high: float
    n: int
    mean_prediction: float | None
    share: Estimate


@dataclass(frozen=True)
class GroupResult:
    """Results of the recordings of which the column `by` has the value `value`.

    `false_alarms` is the share of recordings of label 1 with a prediction below 0.5, `misses` that
    of recordings of label 0 with one of at least 0.5; for classes, `errors` is the share of wrong
    classes and the two are empty. `auc` is that of all recordings of label 1 against those of label
    0 in the group, for groups by cause; the last of these, "all", has all recordings. An interval
    by speakers where there are several, else none.
    """

    by: str
    value: str
    n: int
    log_loss: Estimate
    false_alarms: Estimate = NO_ESTIMATE
    misses: Estimate = NO_ESTIMATE
    errors: Estimate = NO_ESTIMATE
    auc: Estimate = NO_ESTIMATE


@dataclass(frozen=True)
class ModelResult:
    """Results of one model, or of the ensemble.

    Attributes:
        name: "ensemble" for the ensemble.
        is_ensemble: whether it is the ensemble.
        weight: in the ensemble; None if it is not in it, or is it.
        n: number of labelled recordings that it predicted.
        log_loss: in nats; empty without labels.
        metrics: further ones by name, such as AUC.
        reliability: bins by group, first "all"; empty without labels, and for classes.
        groups: results by grade, task, cause, speaker, …; empty without labels.
        confusion: (true classes, predicted classes) counts; None unless there are classes.
    """

    name: str
    is_ensemble: bool = False
    weight: float | None = None
    n: int = 0
    log_loss: Estimate = NO_ESTIMATE
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    reliability: Mapping[str, Sequence[Bin]] = field(default_factory=dict)
    groups: Sequence[GroupResult] = ()
    confusion: Sequence[Sequence[int]] | None = None


@dataclass(frozen=True)
class Attempt:
    """One attempt to train a fold: `outcome` is "finished", "stalled", …; `reason` in words."""

    outcome: str
    reason: str = ""


@dataclass(frozen=True)
class Curve:
    """Learning curve of one fold: log loss in nats after epoch 0 (before training), 1, 2, …

    None where it was not computed. `best_epoch` is the one that was kept.
    """

    model: str
    fold: int
    validation: Sequence[float | None]
    train: Sequence[float | None]
    best_epoch: int
    attempts: Sequence[Attempt] = ()


@dataclass(frozen=True)
class Words:
    """The words of one recording's text; lists of equal length, or empty if unknown.

    `scores` are probabilities that the word was said. Times are in seconds: `starts` and `ends` in
    the learner's recording, `reference_starts` and `reference_ends` in the reference. `diverges` is
    1 for the word where learner and reference differ most.
    """

    words: Sequence[str]
    scores: Sequence[float | None] = ()
    starts: Sequence[float | None] = ()
    ends: Sequence[float | None] = ()
    reference_starts: Sequence[float | None] = ()
    reference_ends: Sequence[float | None] = ()
    diverges: Sequence[int] = ()


@dataclass(frozen=True)
class Clip:
    """Sound of one recording: MP3 files in base64; "" if there is none."""

    learner: str = ""
    reference: str = ""

    @property
    def n_bytes(self) -> int:
        """Its size in a page."""
        return len(self.learner) + len(self.reference)


@dataclass(frozen=True)
class Recordings:
    """The recordings, by column.

    Attributes:
        filenames: one per recording.
        texts: expected texts, "" for none.
        fields: further columns of text to show and filter by, by name: grade, task, status, …
            With `Page.status_range`, the status is that of the first model.
        labels: 0 or 1, or the index of a class; None without labels.
        predictions: by model: the probability of label 1, or of the predicted class; None if the
            model has none.
        losses: log loss by model, in nats; empty without labels.
        predicted_classes: indices of classes, by model; empty unless there are classes.
        seconds: lengths of the recordings; None if unknown.
        notes: what is known about a recording, in words.
        words: by the index of the recording, as text.
        words_by: the models that scored the words, whichever is chosen; "" if there is no choice.
        clips: by the index of the recording, as text.
    """

    filenames: Sequence[str]
    texts: Sequence[str]
    fields: Mapping[str, Sequence[str]]
    labels: Sequence[int] | None
    predictions: Mapping[str, Sequence[float | None]]
    losses: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    predicted_classes: Mapping[str, Sequence[int | None]] = field(default_factory=dict)
    seconds: Sequence[float | None] = ()
    notes: Sequence[str] = ()
    words: Mapping[str, Words] = field(default_factory=dict)
    words_by: str = ""
    clips: Mapping[str, Clip] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of recordings."""
        return len(self.filenames)


@dataclass(frozen=True)
class Page:
    """Everything that a page shows.

    Attributes:
        title: heading of the page.
        made_by: version, command and date, in one line.
        kind: "binary" (did they say it?) or "classes".
        verdict: see `Verdict`.
        data: see `DataSummary`.
        models: the ensemble first, then the others by log loss; the first is shown at the start.
        recordings: see `Recordings`.
        label_names: what the labels 0, 1, … mean.
        people: the column of fields that names who is heard; anonymous pages leave it out.
        train_command: trains models; the page says how it takes corrections.
        report_command: writes this page; the page says how to put more sound into it. "" if there
            is no more.
        base_rate_log_loss: that of always predicting the base rate, in nats; None without labels.
        unsure: predictions inside of this range should be checked by a person; None if there is
            no range.
        status_range: predictions inside of it are "unsure", others "ok": the status follows the
            chosen model. None where the status is a fact of the recording.
        status_note: what the column `status` means, in plain text; "" without one.
        curves: see `Curve`.
        clip_scripts: scripts in a folder beside the page that hold the clips, in place of
            `recordings.clips`: the indices of the recordings in each, by its path from the page.
            Loaded when one of them is opened; each calls `hearback.addClips("KEY", {"12":
            {"learner": "…", "reference": "…"}, …})`.
        clip_key: of these scripts: the page refuses those of another one.
        bins_by: the column whose values are the groups of `ModelResult.reliability`; "" for none.
        order: values of columns in the order to show them in; others are sorted.
        is_anonymous: whether names were taken out (`writing.anonymize`).
        corrections: what corrections have changed already: filename, verdict, score and note each.
            A page exports these with its own, whose labels are relative to them.
        file_names: names of files that sentences, warnings and facts state; anonymous pages leave
            them out.
    """

    title: str
    made_by: str
    kind: str
    verdict: Verdict
    data: DataSummary
    models: Sequence[ModelResult]
    recordings: Recordings
    label_names: Sequence[str]
    people: str
    train_command: str = "python train.py"
    report_command: str = ""
    base_rate_log_loss: float | None = None
    unsure: tuple[float, float] | None = None
    status_range: tuple[float, float] | None = None
    status_note: str = ""
    curves: Sequence[Curve] = ()
    clip_scripts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    clip_key: str = ""
    bins_by: str = ""
    order: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_anonymous: bool = False
    corrections: Sequence[tuple[str, str, str, str]] = ()
    file_names: Sequence[str] = ()

    @property
    def labelled(self) -> bool:
        """Whether the recordings have labels."""
        return self.recordings.labels is not None
