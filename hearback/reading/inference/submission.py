"""From model_configs.json to scores, needing only what a competition runtime has."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hearback.engine.audio.store import Store
from hearback.engine.data.problems import BadInput, Problem, Report
from hearback.engine.data.tables import write_problems, write_table
from hearback.engine.devices import choose_device, compute_dtype
from hearback.engine.ensemble.budget import show_duration
from hearback.engine.errors import HearbackError
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.deadline import Deadline, Outcome
from hearback.reading.inference.divergences import choose_fold, write_divergences
from hearback.reading.inference.predict import Predictions, predict_ensemble, predict_within
from hearback.reading.pairs import PairSource
from hearback.reading.references import (
    OtherVoice,
    References,
    UnrenderedTexts,
    missing_texts,
    render_missing,
)
from hearback.reading.tables import metadata_path, read_metadata, read_submission_format
from hearback.reading.voices import reopen_voice
from hearback.reading.words import score_table

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
    divergences: Path | None = None  # where to write where learner and reference part, likewise
    time_limit: float | None = None  # seconds from the process's start


def write_submission(options: InferenceOptions) -> None:
    """Score the test recordings and write the submission, with a score for every row.

    A row that cannot be scored gets the training base rate of its task; all of them are listed in a
    warning and in `submission_problems.csv` beside the submission. What concerns every row is a
    HearbackError or BadInput: no table, no configuration, no weights, another voice. With
    `options.words` the words of the texts are scored, too, and with `options.divergences` it is said
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
    if options.divergences is not None and options.time_limit is not None:
        raise HearbackError(
            "--divergences takes a pass of its own after the scores, which --time_limit does not "
            "count: run it again without the limit"
        )
    aligned = None if options.divergences is None else choose_fold(config, options.assets)
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
    if options.divergences is not None and aligned is not None:
        write_divergences(options.divergences, aligned, source, scored, device)
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
