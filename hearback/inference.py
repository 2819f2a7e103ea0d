"""From model_configs.json to scores, needing only what a competition runtime has."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from hearback.audio import Store
from hearback.budget import show_duration
from hearback.checkpoint import FoldFiles, read_runnable_story
from hearback.deadline import Deadline, Outcome, TimedRun
from hearback.devices import choose_device
from hearback.ensemble import EnsembleConfig
from hearback.errors import HearbackError
from hearback.models import Scorer
from hearback.pairs import Batch, PairSource
from hearback.partings import choose_fold, write_partings
from hearback.passes import (
    Crew,
    Measure,
    Member,
    PlannedBatch,
    Progress,
    Take,
    batch_seconds,
    describe_crew,
    group_members,
    load_crews,
    memory_for_models,
    plan_batches,
)
from hearback.precision import compute_dtype
from hearback.references import (
    OtherVoice,
    References,
    UnrenderedTexts,
    missing_texts,
    render_missing,
)
from hearback.tables import (
    BadInput,
    Problem,
    Report,
    metadata_path,
    read_metadata,
    read_submission_format,
    write_problems,
    write_table,
)
from hearback.voices import reopen_voice
from hearback.words import score_table

FOLDS = "submission_folds.json"


@dataclass(frozen=True)
class InferenceOptions:
    """What `infer.py`'s command line says."""

    data: Path
    tts_data: Path
    store: Path
    assets: Path
    config: Path
    submission: Path
    device: str | None
    workers: int
    precision: str = "auto"
    memory_gb: float | None = None  # that models may take at a time; None: half of what is free
    words: Path | None = None  # where to write word scores, if wanted
    partings: Path | None = None  # where to write where learner and reference part, likewise
    time_limit: float | None = None  # seconds from the process's start


def collect(
    model: Scorer,
    source: PairSource,
    rows: Sequence[int] | np.ndarray,
    measure: Measure,
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
    progress: str | None = None,
) -> np.ndarray:
    """Return what `measure` gives for each row's clip with its own text, (rows, …), float64.

    `measure` maps a batch to (batch, …). Every clip is heard in a window of its own length, so what
    is measured depends neither on its batch-mates nor on its place in the table. The model stays as
    it is, moved to the device and in evaluation mode.
    """
    crew = Crew(device, dtype)
    crew.add(model)
    planned = plan_batches(source, rows, model.recipe, batch_seconds(device))
    measured: dict[int, np.ndarray] = {}

    def take(places: list[int], values: dict[int, np.ndarray]) -> None:
        measured.update(zip(places, values[0], strict=True))

    cost = sum(batch.cost(model.encoder.shape) for batch in planned)
    with Progress(len(rows), cost, progress) as shown:
        crew.run(source, rows, planned, measure, take, n_workers=n_workers, progress=shown)
    return np.array([measured[place] for place in range(len(rows))])


@dataclass(frozen=True)
class Predictions:
    """Of each row's clip the probability that the learner said the text, `clips` (rows,), float64.

    `words` are the log-odds of the texts' words, (rows, places, 2), laid out as in
    `hearback.words`; None where the model has none.
    """

    clips: np.ndarray
    words: np.ndarray | None

    def as_tensors(self) -> dict[str, Tensor]:
        """Return the predictions as tensors by name, for a checkpoint."""
        words = {} if self.words is None else {"predictions.words": torch.from_numpy(self.words)}
        return {"predictions.clips": torch.from_numpy(self.clips), **words}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Predictions":
        """Return the predictions of `as_tensors`, among which there may be other tensors."""
        words = tensors.get("predictions.words")
        clips = tensors["predictions.clips"].numpy()
        return cls(clips, None if words is None else words.numpy())


def predict(
    model: Scorer,
    source: PairSource,
    rows: Sequence[int] | np.ndarray,
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
    progress: str | None = None,
) -> Predictions:
    """Return the scores of some rows' clips, and of their words if the model has those."""
    if not len(rows):
        return Predictions(np.empty(0), None)
    n_places = most_places(source, rows)
    measured = collect(
        model,
        source,
        rows,
        score_with_words(n_places),
        device=device,
        dtype=dtype,
        n_workers=n_workers,
        progress=progress,
    )
    clips, words = measured[:, 0], measured[:, 1:]
    return Predictions(clips, words.reshape(len(rows), n_places, 2) if words.size else None)


def most_places(source: PairSource, rows: Sequence[int] | np.ndarray) -> int:
    """Return how many places the longest text of some rows has: its words, and its end."""
    return 1 + max((len(source.texts[row].split()) for row in rows), default=0)


def score_with_words(n_places: int) -> Callable[[Scorer, Batch], Tensor]:
    """Return what maps a batch to probabilities and, laid out flat, the log-odds of words.

    (batch, 1 + 2 n_places), or (batch, 1) where the model scores no words.
    """

    def measure(model: Scorer, batch: Batch) -> Tensor:
        logits, words = model.forward_with_words(batch)
        clips = logits.sigmoid()[:, None]
        if words is None:
            return clips
        words = F.pad(words, (0, 0, 0, n_places - words.shape[1]), value=float("nan"))
        return torch.cat([clips, words.flatten(1)], dim=1)

    return measure


def predict_ensemble(
    config: EnsembleConfig,
    source: PairSource,
    grades: np.ndarray,
    assets: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
    memory_gb: float | None = None,
) -> Predictions:
    """Return the ensemble's predictions: of each model the mean of its folds'.

    Words have the mean of the log-odds of the models that score them, by their weights. `grades`,
    (rows,), are those of the metadata. Models that take in the same are run in one pass over the
    data, as many as fit in half of the device's free memory, or in `memory_gb`; with `torch.int8`
    as `dtype` their matrix products are quantised.
    """
    models, rows = config.models_to_run, np.arange(len(source))
    most_bytes = memory_for_models(device, memory_gb)
    groups, plans = _groups(config, source, assets, device)
    cost = sum(
        batch.cost(member.shape)
        for group, plan in zip(groups, plans, strict=True)
        for member in group
        for batch in plan
    )
    n_places = most_places(source, rows)
    measure = score_with_words(n_places)
    predictions = np.zeros((len(models), len(rows)))
    words = _WordMean(len(rows), n_places)

    def take_from(members: Sequence[Member]) -> Take:
        def take(places: list[int], values: dict[int, np.ndarray]) -> None:
            for number, member in enumerate(members):
                of_fold, model = values[number], models[member.model]
                predictions[member.model, places] += of_fold[:, 0] / len(model.folds)
                if config.words is not None and model.name in config.words.models:
                    words.add(places, of_fold[:, 1:], model.weight / len(model.folds))

        return take

    with Progress(len(rows) * sum(map(len, groups)), cost, "ensemble") as progress:
        for group, plan in zip(groups, plans, strict=True):
            for crew, members in load_crews(group, device, dtype, most_bytes):
                progress.say(describe_crew(crew, members, most_bytes))
                crew.run(
                    source,
                    rows,
                    plan,
                    measure,
                    take_from(members),
                    n_workers=n_workers,
                    progress=progress,
                )
    return Predictions(clips=config.predict(predictions, grades), words=words.mean())


def predict_within(
    deadline: Deadline,
    config: EnsembleConfig,
    source: PairSource,
    grades: np.ndarray,
    assets: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
    memory_gb: float | None = None,
) -> tuple[Predictions, Outcome]:
    """Return what `predict_ensemble` does, of the folds that there is time for, and which they are.

    With time for all of them the predictions are the same but for rounding. With time for not even
    one, the outcome says which clips were heard.
    """
    rows = np.arange(len(source))
    most_bytes = memory_for_models(device, memory_gb)
    groups, plans = _groups(config, source, assets, device)
    n_places = most_places(source, rows)
    measure = score_with_words(n_places)
    timed = TimedRun(config, groups, len(rows), deadline)
    with Progress(len(rows) * sum(map(len, groups)), 0.0, "ensemble") as progress:

        def load(members: Iterable[Member]) -> Iterator[tuple[Crew, list[Member]]]:
            for crew, loaded in load_crews(members, device, dtype, most_bytes):
                progress.say(describe_crew(crew, loaded, most_bytes))
                yield crew, loaded

        def hear(
            crew: Crew, group: int, take: Take, give_up: Callable[[float], Collection[int]]
        ) -> None:
            crew.run(
                source,
                rows,
                plans[group],
                measure,
                take,
                n_workers=n_workers,
                progress=progress,
                give_up=give_up,
            )

        outcome = timed.run(load, hear, grades)
    words = None if outcome.words is None else outcome.words.reshape(len(rows), n_places, 2)
    return Predictions(outcome.clips, words), outcome


class _WordMean:
    """A weighted mean of (rows, places, 2) log-odds, added up batch by batch."""

    def __init__(self, n_rows: int, n_places: int) -> None:
        self._shape = (n_rows, n_places, 2)
        self._sums: np.ndarray | None = None
        self._weights = np.zeros(n_rows)

    def add(self, places: list[int], log_odds: np.ndarray, weight: float) -> None:
        """Add some rows' log-odds, (rows, 2 × places), of none for a model that has none."""
        if not log_odds.size:
            return
        if self._sums is None:
            self._sums = np.zeros(self._shape)
        self._sums[places] += weight * log_odds.reshape(-1, *self._shape[1:])
        self._weights[places] += weight

    def mean(self) -> np.ndarray | None:
        """Return the mean, None where nothing was added."""
        return None if self._sums is None else self._sums / self._weights[:, None, None]


def _groups(
    config: EnsembleConfig, source: PairSource, assets: Path, device: torch.device
) -> tuple[list[list[Member]], list[list[PlannedBatch]]]:
    """Return the ensemble's folds by what they take in, and the batches of each such group."""
    groups = group_members(_members(config, assets))
    rows, seconds = np.arange(len(source)), batch_seconds(device)
    return groups, [plan_batches(source, rows, group[0].recipe, seconds) for group in groups]


def _members(config: EnsembleConfig, assets: Path) -> list[Member]:
    """Return all folds that the ensemble runs; HearbackError for what cannot be run."""
    members = []
    for number, model in enumerate(config.models_to_run):
        for fold in model.folds:
            files = FoldFiles(assets, model.name, fold)
            story = read_runnable_story(files, config.voice)
            members.append(Member(number, files, story))
    return members


def write_submission(options: InferenceOptions) -> None:
    """Score the test recordings and write the submission, with a score for every row.

    A row that cannot be scored gets the training base rate of its task; all of them are listed in a
    warning and in `submission_problems.csv` beside the submission. What concerns every row is a
    HearbackError or BadInput: no table, no configuration, no weights, another voice. With
    `options.words` the words of the texts are scored, too, and with `options.partings` it is said
    where in recording and text learner and reference part. With `options.time_limit`, what there is
    no time for is left out and listed likewise; the ensemble of the folds that were run is written
    to `submission_folds.json`, with which as --config the same scores come without a limit.
    """
    config = EnsembleConfig.load(options.config)
    if options.words is not None and config.words is None:
        raise HearbackError(
            f"{options.config}: none of its models scores words; --words needs a token scorer: "
            "python train.py --models modeltok, then python get_config.py"
        )
    if options.partings is not None and options.time_limit is not None:
        raise HearbackError(
            "--partings takes a pass of its own after the scores, which --time_limit does not "
            "count: run it again without the limit"
        )
    aligned = None if options.partings is None else choose_fold(config, options.assets)
    device = choose_device(options.device)
    dtype = compute_dtype(device, options.precision)
    report = Report()
    path = metadata_path(options.data, "test")
    metadata = read_metadata(path, report)
    if any(problem.row in (None, 1) for problem in report.errors):
        raise BadInput(report)
    format_path = options.data / "submission_format.csv"
    order = (
        read_submission_format(format_path, metadata, report)
        if format_path.exists()
        else metadata["filename"].tolist()
    )
    recordings = Store.build(metadata, options.data, path, options.store, "test", report=report)
    references = _references(metadata, options.tts_data, config, path, report)

    faulty = {problem.row for problem in report.errors if problem.file == str(path)}
    usable = metadata[~metadata["line"].isin(faulty)].reset_index(drop=True)
    source = PairSource(usable, references, recordings)
    config, predictions, heard = _score(
        options, config, source, usable, device=device, dtype=dtype, report=report
    )
    scores = {
        filename: score
        for filename, score, is_heard in zip(
            source.filenames, predictions.clips.tolist(), heard.tolist(), strict=True
        )
        if is_heard
    }
    tasks = dict(zip(metadata["filename"], metadata["task"], strict=True))
    submission = pd.DataFrame(
        {
            "filename": order,
            "score": [scores.get(name, config.base_rate(tasks.get(name))) for name in order],
        }
    )
    write_table(submission, options.submission)
    n_base_rate = sum(name not in scores for name in order)
    print(f"wrote {options.submission}: {len(order)} rows, {n_base_rate} of them at the base rate")
    rows = {filename: row for row, filename in enumerate(source.filenames)}
    scored = [rows[filename] for filename in order if filename in scores]
    if options.words is not None:
        write_word_scores(options.words, config, source, predictions, scored)
        if n_base_rate:
            print(f"{options.words} lacks {n_base_rate} rows that could not be scored")
    if options.partings is not None and aligned is not None:
        write_partings(options.partings, aligned, source, scored, device)
    write_problems(report, options.submission)


def _score(
    options: InferenceOptions,
    config: EnsembleConfig,
    source: PairSource,
    metadata: pd.DataFrame,
    *,
    device: torch.device,
    dtype: torch.dtype,
    report: Report,
) -> tuple[EnsembleConfig, Predictions, np.ndarray]:
    """Return the ensemble that was run, its predictions, and which rows it heard, (rows,) bool."""
    grades = metadata["grade"].to_numpy(dtype=str)
    folds = options.submission.with_name(FOLDS)
    if options.time_limit is None or not len(source):  # nothing takes no time
        predictions = predict_ensemble(
            config,
            source,
            grades,
            options.assets,
            device=device,
            dtype=dtype,
            n_workers=options.workers,
            memory_gb=options.memory_gb,
        )
        folds.unlink(missing_ok=True)  # those of an earlier run would mislead
        return config, predictions, np.ones(len(source), bool)
    predictions, outcome = predict_within(
        Deadline(options.time_limit),
        config,
        source,
        grades,
        options.assets,
        device=device,
        dtype=dtype,
        n_workers=options.workers,
        memory_gb=options.memory_gb,
    )
    limit = show_duration(options.time_limit)
    _report_outcome(options, outcome, metadata[~outcome.heard], limit, report)
    if outcome.config is None:
        folds.unlink(missing_ok=True)
        n_unheard = np.count_nonzero(~outcome.heard)
        print(f"within {limit} NOT ONE FOLD was finished: {n_unheard} rows have no score")
        return config, predictions, outcome.heard
    outcome.config.save(folds)
    run = [
        f"{model.name} {' '.join(map(str, model.folds))}" for model in outcome.config.models_to_run
    ]
    print(f"within {limit} these folds were run: {', '.join(run)}; written to {folds}")
    return outcome.config, predictions, outcome.heard


def _report_outcome(
    options: InferenceOptions,
    outcome: Outcome,
    unheard: pd.DataFrame,
    limit: str,
    report: Report,
) -> None:
    """Report what a time limit left no time for: folds, and the metadata's rows `unheard`."""
    for what in outcome.left_out:
        cure = f"raise --time_limit from {limit}, or accept what the others say"
        report.add(Problem(str(options.config), None, what, cure, "warning"))
    table = str(metadata_path(options.data, "test"))
    for row in unheard.to_dict("records"):
        what = f"not scored: the time limit of {limit} ended before a single fold had heard all"
        cure = "raise --time_limit, or take a faster model: python get_config.py --time_limit"
        report.add(Problem(table, row["line"], what, cure, filename=row["filename"]))


def write_word_scores(
    path: Path,
    config: EnsembleConfig,
    source: PairSource,
    predictions: Predictions,
    scored: Sequence[int],
) -> None:
    """Write a line for every word of the texts of the rows `scored`, in their order.

    Where there are rows, but a time limit left no time for a model that scores words, nothing is
    written.
    """
    if scored and predictions.words is None:
        path.unlink(missing_ok=True)  # one of an earlier run would mislead
        print(f"{path} is NOT WRITTEN: there was no time for a model that scores words")
        return
    assert config.words is not None
    filenames = [source.filenames[row] for row in scored]
    texts = [source.texts[row] for row in scored]
    log_odds = np.empty((0, 1, 2)) if predictions.words is None else predictions.words[scored]
    table = score_table(filenames, texts, config.words.apply(log_odds))
    write_table(table, path)
    print(f"wrote {path}: {len(table)} words of {len(scored)} rows")


def _references(
    metadata: pd.DataFrame, folder: Path, config: EnsembleConfig, path: Path, report: Report
) -> References:
    """Render what is missing in the ensemble's voice; report the rows whose text cannot be said."""
    texts = metadata["expected_text"][metadata["expected_text"] != ""]
    unsaid: dict[str, str] = {}
    if missing := missing_texts(texts, folder):
        try:
            with contextlib.closing(reopen_voice(config.voice)) as voice:
                render_missing(missing, voice, folder)
        except OtherVoice:
            raise
        except UnrenderedTexts as error:
            unsaid = error.failures
        except (HearbackError, OSError) as error:  # no such voice here; a read-only folder
            unsaid = dict.fromkeys(missing_texts(missing, folder), str(error))
    for row in metadata[metadata["expected_text"].isin(unsaid)].to_dict("records"):
        what = f"no reference speech for {row['expected_text']!r}: {unsaid[row['expected_text']]}"
        cure = "render it before, with python preprocess.py"
        report.add(Problem(str(path), row["line"], what, cure, filename=row["filename"]))
    references = References(folder)
    if references.voice != config.voice:
        raise HearbackError(
            f"{folder}: its voice is {references.voice}; the ensemble was trained with "
            f"{config.voice}. Render with that one, into another folder"
        )
    return references
