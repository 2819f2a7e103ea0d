"""What the pages of all competitions have in common."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hearback.engine.data.corrections import Corrections
from hearback.engine.data.problems import Problem
from hearback.engine.page.content import (
    DataSummary,
    ModelResult,
    Page,
    Recordings,
    Refused,
    Verdict,
)
from hearback.engine.page.curves import learning_curves
from hearback.engine.page.maker import describe_maker
from hearback.engine.page.predictions import Predictions, Table
from hearback.engine.page.wording import describe_models, general_warnings, refused


@dataclass(frozen=True)
class Competition:
    """What all pages of a competition say in the same words; see `Page`."""

    title: str
    kind: str
    label_names: Sequence[str]
    people: str
    train_command: str
    unsure: tuple[float, float] | None = None
    status_range: tuple[float, float] | None = None
    status_note: str = ""
    bins_by: str = ""
    order: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def page_of_models(
        self,
        found: Predictions[Table],
        models: Sequence[ModelResult],
        recordings: Recordings,
        data: DataSummary,
        *,
        sentences: Sequence[str],
        kind_of: Callable[[Table], str],
        corrected: Corrections,
        warnings: Sequence[str] = (),
    ) -> Page:
        """Return the page of trained models, without sound.

        Args:
            found: the predictions.
            models: their results, the first to be shown first.
            recordings: the rows of `found`.
            data: what they are.
            sentences: the verdict's.
            kind_of: what a model is, in words.
            corrected: what corrections of labels have changed.
            warnings: further ones than those of `found`.
        """
        card = describe_models(models, found.tables, kind_of)
        verdict = Verdict(sentences, [*found.warnings, *warnings], card)
        if corrected.path is not None:
            data = replace(data, facts=[*data.facts, ("corrections", str(corrected))])
            note = f"label corrected by {corrected.path.name}"
            notes = [note if name in corrected.labels else "" for name in recordings.filenames]
            recordings = replace(recordings, notes=notes)
        return Page(
            **vars(self),
            made_by=describe_maker(),
            verdict=verdict,
            data=data,
            models=models,
            recordings=recordings,
            corrections=corrected.rows(),
            base_rate_log_loss=found.base_loss(models[0].name),
            curves=learning_curves(found.tables),
        )

    def page_of_new_recordings(
        self,
        model: ModelResult,
        recordings: Recordings,
        data: DataSummary,
        *,
        sentences: Sequence[str],
        card: Sequence[tuple[str, str]],
        problems: Sequence[Problem],
        further: Sequence[Refused] = (),
    ) -> Page:
        """Return the page of recordings without labels, without sound.

        Args:
            model: what scored them.
            recordings: the recordings.
            data: what they are, without what was refused.
            sentences: the verdict's.
            card: facts of the model card.
            problems: of the input.
            further: recordings that were not used, of which the problems say nothing.
        """
        rejected = [*data.refused, *refused(problems), *further]
        # The status says also why there is no score.
        return Page(
            **vars(replace(self, status_range=None)),
            made_by=describe_maker(),
            verdict=Verdict(sentences, general_warnings(problems), card),
            data=replace(data, refused=rejected),
            models=[model],
            recordings=recordings,
        )
