"""Out-of-fold predictions of the reading competition, and the tables that evaluate them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from hearback.engine.data.corrections import Corrections
from hearback.engine.data.problems import Problem, Report
from hearback.engine.evaluation.bootstrap import bootstrap_interval, bootstrap_standard_error
from hearback.engine.evaluation.metrics import (
    N_BINS,
    area_under_curve,
    calibration_line,
    expected_calibration_error,
    row_log_loss,
)
from hearback.engine.evaluation.oof import (
    BinaryOutOfFold,
    common_rows,
    read_tables,
)
from hearback.reading import step_command
from hearback.reading.tables import (
    AGE_GROUPS,
    GRADES,
    TASKS,
    YOUNGEST,
    read_corrections,
    read_labelled,
)

BASELINE = "baseline"
CORRECTED = "corrected label"  # the cause of a score that corrections change
_FAMILIES = {  # by a recipe's `pair`
    "tokens": "token scorer",
    "phones": "phone scorer",
    "segments": "segment scorer",
    "aligned": "aligned comparison",
}


@dataclass(frozen=True)
class ReadingOutOfFold(BinaryOutOfFold):
    """Out-of-fold predictions of one model, or of an ensemble, for the reading competition.

    `rows` has the columns filename, score (the label, 0 or 1), pred (the probability of 1), fold
    and base (the mean label of the fold's training rows).
    """

    LABEL_COLUMN: ClassVar[str] = "score"
    TRAIN_COMMAND: ClassVar[str] = step_command("train")

    @property
    def family(self) -> str:
        """How the model relates learner and expected text, or `BASELINE`."""
        metadata = next(iter(self.metadata_by_fold.values()))
        if "baseline" in metadata:
            return BASELINE
        return _FAMILIES.get(metadata["recipe"]["pair"], "comparison")


def read_out_of_fold(
    assets: Path, models: Sequence[str] | None = None, corrected: Corrections | None = None
) -> list[ReadingOutOfFold]:
    """Read the out-of-fold predictions of `models`, or of all; see `oof.read_tables`."""
    return read_tables(ReadingOutOfFold, assets, models, corrected)


def row_gains_over_base_rate(rows: pd.DataFrame, predictions: pd.Series) -> pd.Series:
    """Return the log loss of `base` minus that of `predictions`, per row, in nats."""
    return row_log_loss(rows["score"], rows["base"]) - row_log_loss(rows["score"], predictions)


def group_unit(rows: pd.DataFrame) -> str:
    """Return the column of groups to resample and hold out: speaker if present, else filename."""
    return "speaker" if "speaker" in rows else "filename"


def _groups(rows: pd.DataFrame) -> np.ndarray:
    return rows[group_unit(rows)].to_numpy(dtype=str)


def gain_with_error(rows: pd.DataFrame, predictions: pd.Series) -> tuple[float, float]:
    """Return the mean gain over the base rate, in nats, and its standard error by `group_unit`."""
    gains = row_gains_over_base_rate(rows, predictions)
    error = bootstrap_standard_error(gains.to_numpy(), _groups(rows), np.random.default_rng(0))
    return float(gains.mean()), error


def log_loss_with_interval(
    rows: pd.DataFrame, predictions: np.ndarray
) -> tuple[float, tuple[float, float]]:
    """Return the mean log loss, in nats, and its 95 % bootstrap interval by `group_unit`."""
    losses = row_log_loss(rows["score"], pd.Series(predictions, index=rows.index)).to_numpy()
    return float(losses.mean()), bootstrap_interval(losses, _groups(rows), np.random.default_rng(0))


def intervals_by_part(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the log loss of `pred` with its interval by grade, and by `cause` if there is one."""
    lines = {}
    for name, part in parts_by_grade_and_cause(rows).items():
        loss, (low, high) = log_loss_with_interval(part, part["pred"].to_numpy())
        lines[name] = {"rows": len(part), "log loss": loss, "low": low, "high": high}
    return pd.DataFrame.from_dict(lines, orient="index").astype({"rows": int})


def by_model_and_part(
    lines: Mapping[tuple[str, str], Mapping[str, Any]], part: str = "part"
) -> pd.DataFrame:
    """Return a table of lines by model and `part` of the rows; there must be at least one."""
    frame = pd.DataFrame.from_dict(lines, orient="index")
    frame.index = pd.MultiIndex.from_tuples(list(lines), names=["model", part])
    return frame


def summary(tables: Sequence[ReadingOutOfFold], metadata: pd.DataFrame) -> pd.DataFrame:
    """Return a row per model: number of rows, log losses in nats, AUC, training minutes.

    The log losses are: of all rows; with each fold's epoch chosen on the other folds; the mean over
    texts; and the gain over the base rate with its bootstrap standard error by `group_unit`.
    """
    unit = group_unit(metadata)
    lines = []
    for table in tables:
        rows = table.rows_with(metadata)
        losses = row_log_loss(rows["score"], rows["pred"])
        gain, error = gain_with_error(rows, rows["pred"])
        seconds = [fold_metadata["seconds"] for fold_metadata in table.metadata_by_fold.values()]
        lines.append(
            {
                "model": table.model,
                "rows": len(rows),
                "log loss": losses.mean(),
                "cross-fitted epoch": table.cross_fitted_epoch_log_loss(),
                "mean over texts": losses.groupby(rows["expected_text"]).mean().mean(),
                "below base rate": gain,
                f"± (by {unit})": error,
                "AUC": _area(rows),
                "minutes": sum(seconds) / 60,
            }
        )
    return pd.DataFrame(lines).set_index("model")


def _area(rows: pd.DataFrame) -> float:
    return area_under_curve(rows["score"].to_numpy(), rows["pred"].to_numpy())


def by_column(
    tables: Sequence[ReadingOutOfFold], metadata: pd.DataFrame, column: str
) -> pd.DataFrame:
    """Return the log loss by a column of the metadata: a row per value, a column per model.

    A table by grade ends with a row for the youngest grades together.
    """
    columns: dict[str, pd.Series] = {}
    all_rows = pd.concat([table.rows for table in tables]).drop_duplicates("filename")
    parts = parts_of(ReadingOutOfFold.join_rows(all_rows, metadata), column)
    columns["rows"] = pd.Series({name: len(rows) for name, rows in parts.items()}, dtype=int)
    columns["base rate"] = _log_losses(parts, "base")
    for table in tables:
        columns[table.model] = _log_losses(parts_of(table.rows_with(metadata), column), "pred")
    # The explicit index keeps the order; pandas would sort the rows.
    return pd.DataFrame(columns, index=columns["rows"].index).rename_axis(column)


def auc_by_grade(tables: Sequence[ReadingOutOfFold], metadata: pd.DataFrame) -> pd.DataFrame:
    """Return the AUC by grade, of the youngest grades and of all rows, with a column per model."""
    areas = {}
    for table in tables:
        rows = table.rows_with(metadata)
        parts = {**parts_of(rows, "grade"), "all": rows}
        areas[table.model] = pd.Series({name: _area(part) for name, part in parts.items()})
    order = [*GRADES, YOUNGEST, "all"]
    frame = pd.DataFrame(areas).rename_axis("grade")
    return frame.loc[[grade for grade in order if grade in frame.index]]


def parts_of(rows: pd.DataFrame, column: str) -> dict[str, pd.DataFrame]:
    """Return the rows by value of a column; by grade, also those of the youngest grades."""
    values = {str(value): part for value, part in rows.groupby(column)}
    order = {"task": TASKS, "grade": GRADES}.get(column, tuple(values))
    parts = {value: values[value] for value in order if value in values}
    if column == "grade":
        youngest = rows[rows["grade"].isin(AGE_GROUPS[YOUNGEST])]
        if len(youngest):
            parts[YOUNGEST] = youngest
    return parts


def parts_by_grade_and_cause(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows by grade and, where there is a column `cause`, those of each cause.

    A cause that has the name of a grade, or "all", is "cause NAME". Rows without one are left out.
    """
    parts = parts_of(rows, "grade")
    if "cause" not in rows:
        return parts
    taken = {*parts, "all"}
    causes = parts_of(rows[rows["cause"] != ""], "cause")
    return parts | {f"cause {each}" if each in taken else each: x for each, x in causes.items()}


def _log_losses(parts: Mapping[str, pd.DataFrame], prediction: str) -> pd.Series:
    losses = {name: row_log_loss(x["score"], x[prediction]).mean() for name, x in parts.items()}
    return pd.Series(losses, dtype=float)


def calibration_by_grade(
    tables: Sequence[ReadingOutOfFold], metadata: pd.DataFrame
) -> pd.DataFrame:
    """Return calibration metrics: a row per model and grade."""
    lines = {}
    for table in tables:
        rows = table.rows_with(metadata)
        for grade, part in {**parts_of(rows, "grade"), "all": rows}.items():
            labels, predictions = part["score"].to_numpy(), part["pred"].to_numpy()
            slope, intercept = calibration_line(labels, predictions)
            lines[table.model, grade] = {
                "rows": len(part),
                "mean label": labels.mean(),
                "mean prediction": predictions.mean(),
                "ECE": expected_calibration_error(labels, predictions),
                "slope": slope,
                "intercept": intercept,
            }
    return by_model_and_part(lines, "grade")


def read_labelled_metadata(
    data: Path, causes_path: Path | None
) -> tuple[pd.DataFrame, pd.Series | None]:
    """Read the training table of the folder `data` with its labels as `score`, and the causes.

    The causes, from `read_causes`, are None without a path. Raises BadInputError, which lists all
    problems.
    """
    metadata, causes, _ = read_corrected_metadata(data, causes_path, None)
    return metadata, causes


def read_corrected_metadata(
    data: Path, causes_path: Path | None, corrections_path: Path | None
) -> tuple[pd.DataFrame, pd.Series | None, Corrections]:
    """Read the training table as `read_labelled_metadata` does, with corrections applied.

    The cause of a score that they change is `CORRECTED`.
    """
    report = Report()
    metadata, labels = read_labelled(data, report)
    corrections = read_corrections(corrections_path, data, metadata, labels, report)
    causes = None
    if causes_path is not None:
        causes = read_causes(causes_path, metadata.assign(score=labels), report)
        causes = causes.where(~corrections.changed(metadata), CORRECTED)
        causes = causes[corrections.kept(metadata)].reset_index(drop=True)
    report.raise_if_errors()
    metadata, labels = corrections.apply(metadata, labels)
    return metadata.assign(score=labels), causes, corrections


def base_rates(metadata: pd.DataFrame) -> dict[str, float]:
    """Return the mean `score` of all rows, under "all", and by task."""
    by_task = metadata.groupby("task")["score"].mean()
    return {"all": float(metadata["score"].to_numpy().mean()), **by_task.astype(float).to_dict()}


def read_causes(path: Path, metadata: pd.DataFrame, report: Report) -> pd.Series:
    """Read the cause of each score in `metadata` from a CSV with the columns filename and why.

    Causes are used for error analysis only, never for training, weights or scores. Returns `why`
    with the index of `metadata`, "" where unknown. Rows of unknown recordings and further columns
    are ignored. Problems are added to `report`; only rows of score 0 need a cause.
    """
    causes = pd.Series("", index=metadata.index, name="why")
    frame = _read_causes_file(path, report)
    if frame is None:
        return causes
    for filename in frame["filename"][frame["filename"].duplicated()].unique():
        report.add(
            Problem(str(path), None, "duplicated filename", "keep one row", filename=filename)
        )
    why = frame.drop_duplicates("filename").set_index("filename")["why"]
    causes = metadata["filename"].map(why).fillna("").rename("why")
    for filename in metadata["filename"][(causes == "") & (metadata["score"] < 0.5)]:
        what = "no cause for a recording of score 0"
        cure = "add it in the column 'why'"
        report.add(Problem(str(path), None, what, cure, filename=filename))
    return causes


def _read_causes_file(path: Path, report: Report) -> pd.DataFrame | None:
    """Return the columns filename and why, stripped; None if they cannot be read."""
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        report.add(Problem(str(path), None, "no such file", "put it there"))
        return None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, empty, not CSV
        what = f"the file cannot be read: {' '.join(str(error).split())}"
        report.add(Problem(str(path), None, what, "save it as CSV in UTF-8"))
        return None
    missing = [column for column in ("filename", "why") if column not in frame]
    for column in missing:
        cure = f"the file has the columns {', '.join(repr(name) for name in frame.columns)}"
        report.add(Problem(str(path), None, f"the column {column!r} is missing", cure))
    if missing:
        return None
    return frame[["filename", "why"]].apply(lambda column: column.str.strip())


def by_cause(
    tables: Sequence[ReadingOutOfFold], metadata: pd.DataFrame, causes: pd.Series
) -> pd.DataFrame:
    """Return the AUC of all rows of score 1 against the rows of score 0 of one cause.

    `causes` is from `read_causes`. A row per cause with its number of rows, a column per model; the
    last row is of all causes.
    """
    metadata = metadata.assign(why=causes)
    columns = {"rows": pd.Series({c: len(part) for c, part in _wrong_by_cause(metadata).items()})}
    for table in tables:
        rows = table.rows_with(metadata)
        right = rows[rows["score"] > 0.5]
        wrong = _wrong_by_cause(rows)
        areas = {cause: _area(pd.concat([right, part])) for cause, part in wrong.items()}
        columns[table.model] = pd.Series(areas)
    # The explicit index keeps the order; pandas would sort the rows.
    return pd.DataFrame(columns, index=columns["rows"].index).rename_axis("cause")


def _wrong_by_cause(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of score 0 by cause, and all of them."""
    wrong = rows[rows["score"] < 0.5]
    return {**{str(cause): part for cause, part in wrong.groupby("why")}, "all": wrong}


def error_analysis(
    tables: Sequence[ReadingOutOfFold], metadata: pd.DataFrame, causes: pd.Series | None
) -> dict[str, pd.DataFrame]:
    """Return tables by title: log loss, calibration and AUC by grade, and AUC by cause if known."""
    sections = {
        "Log loss per grade": by_column(tables, metadata, "grade"),
        f"Calibration per grade (ECE: {N_BINS} bins of equal mass; slope and intercept of the "
        "log-odds, 1 and 0 when calibrated)": calibration_by_grade(tables, metadata),
        "AUC per grade": auc_by_grade(tables, metadata),
    }
    if causes is not None:
        sections["AUC of correct rows against each cause"] = by_cause(tables, metadata, causes)
    return sections


def join(tables: Sequence[ReadingOutOfFold], metadata: pd.DataFrame) -> pd.DataFrame:
    """Join the models' predictions on filename.

    Returns the rows of `common_rows` with the metadata's columns, score, fold, base, and a column
    per model with its predictions.
    """
    first, *rest = common_rows(tables, metadata)
    predictions = {table.model: rows["pred"] for table, rows in zip(tables[1:], rest, strict=True)}
    return first.rename(columns={"pred": tables[0].model}).assign(**predictions)
