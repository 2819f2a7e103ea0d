"""The options of infer.py, the rows that it scores, and the tables that it writes.

Without torch: on a cluster, the process that writes these tables has no models (`cluster.run`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.data.filenames import match_names
from hearback.engine.data.problems import BadInputError, Problem, Report
from hearback.engine.data.tables import problems_path, write_problems, write_table
from hearback.engine.ensemble.prior import prior_on_failure, report_no_models
from hearback.engine.io import check_apart, check_not_read, check_writable
from hearback.engine.page.origin import origin_path
from hearback.reading import step_command
from hearback.reading.ensemble import EnsembleConfig, base_rate, salvage_base_rates
from hearback.reading.scoring import status
from hearback.reading.tables import metadata_path, read_metadata, read_submission_format

SUBMISSION_FORMAT = "submission_format.csv"
FOLDS = "submission_folds.json"
_OUTPUT_FLAGS = "--submission, --words, --divergences or --page"

# Score of all rows where no model and no base rate is known: it says nothing.
UNKNOWN_BASE_RATE = 0.5


@dataclass(frozen=True)
class InferenceOptions:
    """The options of `infer.py`.

    `memory_gb` is the memory budget for loaded models, in GB (None: half of the free memory).
    `words` and `divergences` are files for the word scores and divergences (None: not written);
    `page` is the page that is written afterwards.
    `time_limit` is in seconds from the start of the process (None: no limit).
    """

    data: Path
    tts_data: Path
    store: Path
    assets: Path
    config: Path
    submission: Path
    device: str | None
    workers: int
    precision: str = "auto"
    memory_gb: float | None = None
    words: Path | None = None
    divergences: Path | None = None
    page: Path | None = None
    time_limit: float | None = None


def read_rows(data: Path, report: Report) -> tuple[pd.DataFrame, list[str]]:
    """Return the test metadata, and the filenames of the submission's rows in order.

    Raises BadInputError if a table cannot be read.
    """
    metadata = read_metadata(metadata_path(data, "test"), report)
    if report.table_errors:
        raise BadInputError(report)
    format_path = data / SUBMISSION_FORMAT
    order = read_submission_format(format_path, metadata, report) if format_path.exists() else []
    return metadata, order or metadata["filename"].tolist()  # the report says why none is listed


def report_unrendered(
    metadata: pd.DataFrame, failures: Mapping[str, str], path: Path, report: Report
) -> None:
    """Report the rows of the table at `path` whose text has no reference; `failures` by text."""
    for row in metadata[metadata["expected_text"].isin(failures)].to_dict("records"):
        text = row["expected_text"]
        what = f"no reference speech for {text!r}: {failures[text]}"
        cure = f"render it first, with {step_command('preprocess')}"
        report.add(Problem(str(path), row["line"], what, cure, filename=row["filename"]))


@dataclass(frozen=True)
class SubmissionRows:
    """The rows of a submission.

    `order` are their filenames, in order, and `tasks` the tasks by filename of the metadata.
    `metadata_names` are the metadata's filenames of those that `order` spells otherwise.
    """

    order: list[str]
    tasks: Mapping[str, str]
    metadata_names: Mapping[str, str]


def check_outputs(options: InferenceOptions) -> None:
    """Raise HearbackError if an output cannot be written, or would replace another or an input."""
    submission, data = options.submission, options.data
    tables = [submission, *filter(None, (options.words, options.divergences))]
    for table in tables:
        check_writable(table)
    beside = [problems_path(submission), origin_path(submission), submission.with_name(FOLDS)]
    outputs = [*tables, *beside, *filter(None, [options.page])]
    check_apart(outputs, _OUTPUT_FLAGS)
    read = (metadata_path(data, "test"), data / SUBMISSION_FORMAT, options.config)
    check_not_read(outputs, read, _OUTPUT_FLAGS)


def submit(options: InferenceOptions, score: Callable[[EnsembleConfig, Report], None]) -> None:
    """Write a submission with `score`, or of base rates without models; then its problems.

    If `score` fails before it has written a submission, and none is there, one of base rates is
    written; the error is raised again.
    """
    report = Report()
    with prior_on_failure(options.submission, lambda: _write_prior(options)):
        config = EnsembleConfig.load(options.config)
        if config.models_to_run:
            score(config, report)
        else:
            _write_base_rates(options, config.base_rates, report)
            rows, command = "every row has its base rate", step_command("get_config")
            report.add(report_no_models(options.config, rows, "the base rate", command))
            skip_tables(options, report, words="no model", divergences="no model")
    write_problems(_with_statuses(report, options.data), options.submission)


def _with_statuses(report: Report, data: Path) -> Report:
    """Return the problems in the order of the rows; rows of the test table have their status."""
    table = str(metadata_path(data, "test"))
    faults = status.faults_by_row(each for each in report.problems if each.file == table)
    rows = {key: fault.status for key, fault in faults.items() if key[0] is not None}
    return status.with_row_status(report, rows)


def check_folds(options: InferenceOptions) -> None:
    """Raise HearbackError, with base rates as in `submit`, if a fold to run is not trained."""
    with prior_on_failure(options.submission, lambda: _write_prior(options)):
        EnsembleConfig.load(options.config).check_folds(options.assets)


def _write_prior(options: InferenceOptions) -> str:
    """Write a submission of base rates; return what the rows have.

    The configuration may be missing or damaged.
    """
    rates = salvage_base_rates(options.config)
    _write_base_rates(options, rates or {"all": UNKNOWN_BASE_RATE}, Report())
    unknown = f"{UNKNOWN_BASE_RATE}, because no base rates are in {options.config}"
    return "their base rate" if rates else unknown


def _write_base_rates(
    options: InferenceOptions, rates: Mapping[str, float], report: Report
) -> None:
    """Write a submission in which every row has the base rate of its task.

    Raises BadInputError if a test table cannot be read.
    """
    metadata, order = read_rows(options.data, report)
    tasks = dict(zip(metadata["filename"], metadata["task"], strict=True))
    names = match_names(order, tasks)
    scores = [base_rate(rates, tasks.get(names.get(name, name))) for name in order]
    write_table(pd.DataFrame({"filename": order, "score": scores}), options.submission)
    options.submission.with_name(FOLDS).unlink(missing_ok=True)  # of an earlier run
    print(f"wrote {options.submission}: {len(order)} rows, {len(order)} of them at the base rate")


def skip_tables(
    options: InferenceOptions, report: Report, *, words: str | None, divergences: str | None
) -> None:
    """Report and delete the tables that the ensemble cannot fill.

    `words` and `divergences` say what it lacks, such as "no aligned model"; None: it can fill them.
    """
    for path, flag, model, has in (
        (options.words, "--words", "modeltok", words),
        (options.divergences, "--divergences", "modelali", divergences),
    ):
        if path is None or has is None:
            continue
        path.unlink(missing_ok=True)
        print(f"{path} is NOT WRITTEN: the ensemble has {has}")
        what = f"{flag}: {path} is not written, because the ensemble has {has}"
        train, configure = step_command("train"), step_command("get_config")
        cure = f"{train} --models {model}, then {configure}; the submission is complete without it"
        report.add(Problem(str(options.config), None, what, cure, "warning"))


def write_submission_table(
    path: Path,
    config: EnsembleConfig,
    rows: SubmissionRows,
    scored: Mapping[str, int],
    probabilities: np.ndarray,
) -> list[int]:
    """Write the submission; return the scored rows in its order.

    Args:
        path: file to write.
        config: has the base rates of the other rows.
        rows: those of the submission.
        scored: the row of each filename of the metadata that has a score.
        probabilities: (rows,).
    """
    names = [rows.metadata_names.get(name, name) for name in rows.order]
    scores = [
        float(probabilities[scored[name]])
        if name in scored
        else config.base_rate(rows.tasks.get(name))
        for name in names
    ]
    write_table(pd.DataFrame({"filename": rows.order, "score": scores}), path)
    found = [scored[name] for name in names if name in scored]
    n_base_rate = len(rows.order) - len(found)
    print(f"wrote {path}: {len(rows.order)} rows, {n_base_rate} of them at the base rate")
    return found
