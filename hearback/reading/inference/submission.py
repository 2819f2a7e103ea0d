"""From `model_configs.json` to `submission.csv`, with only the packages of the runtime."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hearback.engine.data.problems import Problem, Report, count_noun
from hearback.engine.data.tables import write_table
from hearback.engine.devices import choose_device, compute_dtype
from hearback.engine.ensemble.budget import show_duration
from hearback.engine.errors import HearbackError
from hearback.reading import step_command
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.divergences import choose_fold, write_divergences
from hearback.reading.inference.ensemble_run import EnsembleRun, predict_ensemble
from hearback.reading.inference.folds import (
    EnsembleFold,
    coverages_of_folds,
    longest_window,
    read_folds,
)
from hearback.reading.inference.outputs import (
    FOLDS,
    InferenceOptions,
    SubmissionRows,
    check_outputs,
    skip_tables,
    submit,
    write_submission_table,
)
from hearback.reading.inference.scoring_data import ScoringData, read_scoring_data
from hearback.reading.inference.statuses import find_statuses, report_unlike
from hearback.reading.inference.time_limit import Deadline
from hearback.reading.passages.length import correct_longer, most_words_corrected
from hearback.reading.tables import metadata_path
from hearback.reading.window_coverage import report_uncovered
from hearback.reading.words import word_score_table


def write_submission(options: InferenceOptions) -> None:
    """Score the test recordings and write the submission, with a score for every row.

    A row that cannot be scored gets the training base rate of its task and is listed in a warning
    and in `submission_problems.csv` beside the submission. With `options.time_limit`, folds that do
    not fit are left out and listed there too; `submission_folds.json` is the configuration of the
    folds that were run. Passed as --config, for a submission in another folder, it gives the same
    scores without a limit.

    Raises HearbackError or BadInputError for problems of all rows: a missing table,
    configuration or weights, or another voice. If it is not the tables', and no submission is
    there, one of base rates is written first: those of the configuration, or `UNKNOWN_BASE_RATE` if
    it has none. A configuration without a model that has a weight gives base rates, too. Tables
    that the ensemble's models cannot fill (`words`, `divergences`) are not written; a warning says
    so.
    """
    if options.divergences is not None and options.time_limit is not None:
        raise HearbackError(
            "--divergences needs another pass after the scores, which --time_limit does not "
            "include: run it without the limit"
        )
    check_outputs(options)
    device = choose_device(options.device)
    dtype = compute_dtype(device, options.precision)
    submit(
        options,
        lambda config, report: _score_and_write(options, config, device, dtype, report),
    )


def _score_and_write(
    options: InferenceOptions,
    config: EnsembleConfig,
    device: torch.device,
    dtype: torch.dtype,
    report: Report,
) -> None:
    """Score the test recordings; write the submission and the other tables that are asked for."""
    aligned_fold = None if options.divergences is None else choose_fold(config, options.assets)
    folds = read_folds(config, options.assets)
    hear = aligned_fold is not None or any(fold.recipe.hears_reference for fold in folds)
    voice = config.voice if hear else None
    data = read_scoring_data(options.data, options.tts_data, options.store, voice, report)
    data = data.with_longest(longest_window(folds))
    data = _leave_out_uncovered(options, folds, data, report)
    run = _score(options, config, folds, data, device=device, dtype=dtype)
    if options.time_limit is not None:
        _report_time_limit(options, run, data, report)
    _save_folds(options, run, data)
    rows = SubmissionRows(data.order, data.tasks, data.metadata_names)
    with_score = {data.source.filenames[row]: row for row in np.flatnonzero(run.is_scored).tolist()}
    scored = write_submission_table(
        options.submission, config, rows, with_score, run.predictions.clips
    )
    table = metadata_path(options.data, "test")
    statuses = find_statuses(data, run.predictions.clips, run.evidence, table, report)
    report_unlike(options.assets, folds, data, table, report)
    if options.words is not None and config.words is not None:
        used = run.config or config
        _write_word_scores(options.words, used, run, data, scored=scored, statuses=statuses)
    if options.divergences is not None and aligned_fold is not None:
        write_divergences(
            options.divergences,
            aligned_fold,
            data.source,
            scored,
            data.written(scored),
            device=device,
        )
    skip_tables(
        options,
        report,
        words="no model that scores words" if config.words is None else None,
        divergences="no aligned model" if aligned_fold is None else None,
    )


def _leave_out_uncovered(
    options: InferenceOptions,
    folds: Sequence[EnsembleFold],
    data: ScoringData,
    report: Report,
) -> ScoringData:
    """Report the rows that the models' windows do not cover; leave out those with too little."""
    coverages = coverages_of_folds(folds)
    table = str(metadata_path(options.data, "test"))
    rows = report_uncovered(data.source, data.usable, table, coverages, report, is_scoring=True)
    return data.without(rows) if rows else data


def _score(
    options: InferenceOptions,
    config: EnsembleConfig,
    folds: Sequence[EnsembleFold],
    data: ScoringData,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> EnsembleRun:
    """Score the usable rows with the ensemble, within the time limit if there is one."""
    limit = options.time_limit if len(data.source) else None  # no clips, nothing to schedule
    run = predict_ensemble(
        config,
        data.source,
        data.grades,
        folds,
        deadline=None if limit is None else Deadline(limit),
        device=device,
        dtype=dtype,
        n_workers=options.workers,
        memory_gb=options.memory_gb,
    )
    if any(fold.recipe.pair == "tokens" for fold in folds):  # the correction is fitted to them
        most_words = most_words_corrected(run.config)
        run = replace(run, predictions=correct_longer(run.predictions, data.source, most_words))
    return run


def _report_time_limit(
    options: InferenceOptions, run: EnsembleRun, data: ScoringData, report: Report
) -> None:
    """Report the folds and rows that the time limit left out."""
    assert options.time_limit is not None
    limit = show_duration(options.time_limit)
    for what in run.left_out:
        cure = f"raise --time_limit from {limit}, or accept the scores of the other folds"
        report.add(Problem(str(options.config), None, what, cure, "warning"))
    table = str(metadata_path(options.data, "test"))
    for row in data.usable[~run.is_scored].to_dict("records"):
        what = f"not scored: no fold was finished within the time limit of {limit}"
        command = f"{step_command('get_config')} --time_limit"
        cure = f"raise --time_limit, or use a faster model: {command}"
        report.add(Problem(table, row["line"], what, cure, filename=row["filename"]))


def _save_folds(options: InferenceOptions, run: EnsembleRun, data: ScoringData) -> None:
    """Write which folds ran within a time limit, or remove the file of an earlier run."""
    path = options.submission.with_name(FOLDS)
    if options.time_limit is None or not len(data.source):
        path.unlink(missing_ok=True)
        return
    limit = show_duration(options.time_limit)
    if run.config is None:
        path.unlink(missing_ok=True)
        n_missing = np.count_nonzero(~run.is_scored)
        print(f"NO FOLD was finished within {limit}: {n_missing} rows have no score")
        return
    run.config.save(path)
    folds = [
        f"{model.name} {' '.join(map(str, model.folds))}" for model in run.config.models_to_run
    ]
    print(f"folds run within {limit}: {', '.join(folds)}; written to {path}")


def _write_word_scores(
    path: Path,
    config: EnsembleConfig,
    run: EnsembleRun,
    data: ScoringData,
    *,
    scored: Sequence[int],
    statuses: Sequence[str],
) -> None:
    """Write a line for every word of the `scored` rows' texts, in their order.

    Nothing is written if a time limit left no time for a model that scores words.
    """
    words = run.predictions.words
    n_missing = len(data.order) - len(scored)
    if scored and words is None:
        path.unlink(missing_ok=True)  # delete the file of an earlier run: it has other scores
        print(f"{path} is NOT WRITTEN: no time was left for a model that scores words")
    else:
        assert config.words is not None
        filenames = [data.source.filenames[row] for row in scored]
        texts = [data.source.texts[row] for row in scored]
        log_odds = np.empty((0, 1, 2)) if words is None else words[scored]
        probabilities, of_scored = config.words.apply(log_odds), [statuses[row] for row in scored]
        table = word_score_table(filenames, texts, probabilities, data.written(scored), of_scored)
        write_table(table, path)
        print(f"wrote {path}: {len(table)} words of {len(scored)} rows")
        if n_missing:
            print(f"{path} lacks {count_noun(n_missing, 'row')} that could not be scored")
