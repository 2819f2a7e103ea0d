"""Out-of-fold tables: how good the trained folds are, and which of them stand out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.data.problems import Problem, Report
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.bootstrap import bootstrap_interval, bootstrap_standard_error
from hearback.engine.evaluation.metrics import (
    N_BINS,
    area_under_curve,
    calibration_line,
    expected_calibration_error,
    row_log_loss,
)
from hearback.engine.evaluation.oof import (
    _SPLIT,
    OutOfFold,
    _check_same,
    common_rows,
    read_tables,
    with_metadata,
)
from hearback.reading.tables import AGE_GROUPS, GRADES, TASKS, YOUNGEST


def row_gains_over_base_rate(rows: pd.DataFrame, predictions: pd.Series) -> pd.Series:
    """Return how far the predictions' log loss is below that of `base`, row by row."""
    return row_log_loss(rows["score"], rows["base"]) - row_log_loss(rows["score"], predictions)


def group_unit(rows: pd.DataFrame) -> str:
    """Return the column whose values go together: speaker, where rows have that, or filename."""
    return "speaker" if "speaker" in rows else "filename"


def gain_with_error(rows: pd.DataFrame, predictions: pd.Series) -> tuple[float, float]:
    """Return the mean gain on the base rate and its standard error, by `group_unit`."""
    gains = row_gains_over_base_rate(rows, predictions)
    groups = rows[group_unit(rows)].to_numpy(dtype=str)
    error = bootstrap_standard_error(gains.to_numpy(), groups, np.random.default_rng(0))
    return float(gains.mean()), error


def log_loss_with_interval(
    rows: pd.DataFrame, predictions: np.ndarray
) -> tuple[float, tuple[float, float]]:
    """Return the mean log loss and its 95 % bootstrap interval, by `group_unit`."""
    losses = row_log_loss(rows["score"], pd.Series(predictions, index=rows.index)).to_numpy()
    groups = rows[group_unit(rows)].to_numpy(dtype=str)
    return float(losses.mean()), bootstrap_interval(losses, groups, np.random.default_rng(0))


def against(
    tables: Sequence[OutOfFold], others: Sequence[OutOfFold], metadata: pd.DataFrame
) -> pd.DataFrame:
    """Return how far each model's log loss is from that of its namesake among `others`.

    A row per model and grade, of the rows that both predicted; `low` and `high` are the 95 %
    bootstrap interval of the difference, paired, by `group_unit`. Raises HearbackError where no
    model has a namesake, or the two are not of the same split of the same data.
    """
    namesakes = {table.model: table for table in others}
    lines = {}
    for table in tables:
        if table.model not in namesakes:
            continue
        pair = (table, namesakes[table.model])
        metadata_by_fold = {
            f"{table.model} fold {fold} {place}": fold_metadata
            for place, side in zip(("here", "there"), pair, strict=True)
            for fold, fold_metadata in side.metadata_by_fold.items()
        }
        _check_same(type(table), table.model, metadata_by_fold, _SPLIT)
        here, there = common_rows(pair, metadata)
        losses = [row_log_loss(rows["score"], rows["pred"]) for rows in (here, there)]
        rows = here.assign(here=losses[0], there=losses[1], difference=losses[0] - losses[1])
        for grade, part in {**_parts(rows, "grade"), "all": rows}.items():
            groups = part[group_unit(part)].to_numpy(dtype=str)
            differences = part["difference"].to_numpy()
            low, high = bootstrap_interval(differences, groups, np.random.default_rng(0))
            lines[table.model, grade] = {
                "rows": len(part),
                **part[["here", "there", "difference"]].mean(),
                "low": low,
                "high": high,
            }
    if not lines:
        raise HearbackError(
            f"none of {', '.join(table.model for table in tables)} was trained there; "
            f"there are {', '.join(namesakes)}"
        )
    frame = pd.DataFrame.from_dict(lines, orient="index")
    frame.index = pd.MultiIndex.from_tuples(list(lines), names=["model", "grade"])
    return frame


def read_out_of_fold(assets: Path, models: Sequence[str] | None = None) -> list[OutOfFold]:
    """Read the out-of-fold predictions of `models` as `read_tables` does."""
    return read_tables(OutOfFold, assets, models)


def summary(tables: Sequence[OutOfFold], metadata: pd.DataFrame) -> pd.DataFrame:
    """Return a row per model: rows, log loss, its distance below the base rate with its error, AUC.

    The error is a bootstrap over speakers where `metadata` has them, over rows where not.
    """
    unit = group_unit(metadata)
    lines = []
    for table in tables:
        rows = with_metadata(table.rows, metadata)
        losses = row_log_loss(rows["score"], rows["pred"])
        gain, error = gain_with_error(rows, rows["pred"])
        lines.append(
            {
                "model": table.model,
                "rows": len(rows),
                "log loss": losses.mean(),
                "blind epoch": table.blind_epoch_log_loss(),
                "mean over texts": losses.groupby(rows["expected_text"]).mean().mean(),
                "below base rate": gain,
                f"± (by {unit})": error,
                "AUC": area_under_curve(rows["score"].to_numpy(), rows["pred"].to_numpy()),
                "minutes": sum(
                    fold_metadata["seconds"] for fold_metadata in table.metadata_by_fold.values()
                )
                / 60,
            }
        )
    return pd.DataFrame(lines).set_index("model")


def by_column(tables: Sequence[OutOfFold], metadata: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return log loss by a column of the metadata: a row per value, a column per model.

    By grade there is a last row for the youngest together.
    """
    columns: dict[str, pd.Series] = {}
    everyone = pd.concat([table.rows for table in tables]).drop_duplicates("filename")
    parts = _parts(with_metadata(everyone, metadata), column)
    columns["rows"] = pd.Series({name: len(rows) for name, rows in parts.items()}, dtype=int)
    columns["base rate"] = _log_losses(parts, "base")
    for table in tables:
        parts = _parts(with_metadata(table.rows, metadata), column)
        columns[table.model] = _log_losses(parts, "pred")
    # Named rows: pandas would sort them otherwise.
    return pd.DataFrame(columns, index=columns["rows"].index).rename_axis(column)


def areas_by_grade(tables: Sequence[OutOfFold], metadata: pd.DataFrame) -> pd.DataFrame:
    """Return AUC by grade and of the youngest together: a row per grade, a column per model."""
    areas = {
        table.model: pd.Series(
            {
                grade: area_under_curve(rows["score"].to_numpy(), rows["pred"].to_numpy())
                for grade, rows in _parts(with_metadata(table.rows, metadata), "grade").items()
            },
            dtype=float,
        )
        for table in tables
    }
    order = [*GRADES, YOUNGEST]
    frame = pd.DataFrame(areas).rename_axis("grade")
    return frame.loc[[grade for grade in order if grade in frame.index]]


def _parts(rows: pd.DataFrame, column: str) -> dict[str, pd.DataFrame]:
    """Return the rows of each value of a column in the usual order, and of the youngest."""
    values = {str(value): part for value, part in rows.groupby(column)}
    order = {"task": TASKS, "grade": GRADES}.get(column, tuple(values))
    parts = {value: values[value] for value in order if value in values}
    if column == "grade":
        youngest = rows[rows["grade"].isin(AGE_GROUPS[YOUNGEST])]
        if len(youngest):
            parts[YOUNGEST] = youngest
    return parts


def _log_losses(parts: Mapping[str, pd.DataFrame], prediction: str) -> pd.Series:
    losses = {name: row_log_loss(x["score"], x[prediction]).mean() for name, x in parts.items()}
    return pd.Series(losses, dtype=float)


def calibration_by_grade(tables: Sequence[OutOfFold], metadata: pd.DataFrame) -> pd.DataFrame:
    """Return how a model's probabilities lie to the labels: a row per model and grade."""
    lines = {}
    for table in tables:
        rows = with_metadata(table.rows, metadata)
        for grade, part in {**_parts(rows, "grade"), "all": rows}.items():
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
    frame = pd.DataFrame.from_dict(lines, orient="index")
    frame.index = pd.MultiIndex.from_tuples(list(lines), names=["model", "grade"])
    return frame


def read_causes(path: Path, metadata: pd.DataFrame, report: Report) -> pd.Series:
    """Read why each row of `metadata` has its score: a CSV with the columns filename and why.

    For error analysis alone: nothing is trained, weighed or scored with it. Returns `why` with
    `metadata`'s index, "" where none is known; rows of other recordings and other columns are left
    out. Problems go into `report`: only rows of score 0 need a cause.
    """
    causes = pd.Series("", index=metadata.index, name="why")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        report.add(Problem(str(path), None, "there is no such file", "put it there"))
        return causes
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, empty, not CSV
        what = f"the file cannot be read: {' '.join(str(error).split())}"
        report.add(Problem(str(path), None, what, "save it as CSV in UTF-8"))
        return causes
    missing = [column for column in ("filename", "why") if column not in frame]
    for column in missing:
        cure = f"the columns that are there: {', '.join(repr(name) for name in frame.columns)}"
        report.add(Problem(str(path), None, f"the column {column!r} is missing", cure))
    if missing:
        return causes
    frame = frame[["filename", "why"]].apply(lambda column: column.str.strip())
    for filename in frame["filename"][frame["filename"].duplicated()].unique():
        report.add(
            Problem(str(path), None, "duplicated filename", "keep one row", filename=filename)
        )
    why = frame.drop_duplicates("filename").set_index("filename")["why"]
    causes = metadata["filename"].map(why).fillna("").rename("why")
    for filename in metadata["filename"][(causes == "") & (metadata["score"] < 0.5)]:
        what = "no cause for a recording of score 0"
        report.add(Problem(str(path), None, what, "say why in the column 'why'", filename=filename))
    return causes


def by_cause(
    tables: Sequence[OutOfFold], metadata: pd.DataFrame, causes: pd.Series
) -> pd.DataFrame:
    """Return the AUC of all rows of score 1 against those of score 0 of one cause.

    `causes` is `read_causes`'s. A row per cause, a column per model; `rows` has a cause's number.
    """
    metadata = metadata.assign(why=causes)
    wrong = metadata[metadata["score"] < 0.5]
    columns: dict[str, pd.Series] = {"rows": wrong.groupby("why").size()}
    for table in tables:
        rows = with_metadata(table.rows, metadata)
        right = rows[rows["score"] > 0.5]
        areas = {
            cause: area_under_curve(
                np.repeat([1, 0], [len(right), len(part)]),
                np.concatenate([right["pred"], part["pred"]]),
            )
            for cause, part in rows[rows["score"] < 0.5].groupby("why")
        }
        columns[table.model] = pd.Series(areas, dtype=float)
    return pd.DataFrame(columns).rename_axis("cause")


def error_analysis(
    tables: Sequence[OutOfFold], metadata: pd.DataFrame, causes: pd.Series | None
) -> dict[str, pd.DataFrame]:
    """Return by title what tells for whom, and for which mistakes, the models are good."""
    sections = {
        "Log loss per grade": by_column(tables, metadata, "grade"),
        f"Calibration per grade (ECE: {N_BINS} bins of equal mass; slope and intercept of the "
        "log-odds, 1 and 0 when calibrated)": calibration_by_grade(tables, metadata),
        "AUC per grade": areas_by_grade(tables, metadata),
    }
    if causes is not None:
        sections["AUC of the correct against each cause"] = by_cause(tables, metadata, causes)
    return sections


def join(tables: Sequence[OutOfFold], metadata: pd.DataFrame) -> pd.DataFrame:
    """Join the models' predictions on filename: the metadata, score, base, a column per model.

    Which rows, and in which order, `common_rows` says.
    """
    first, *rest = common_rows(tables, metadata)
    predictions = {table.model: rows["pred"] for table, rows in zip(tables[1:], rest, strict=True)}
    return first.rename(columns={"pred": tables[0].model}).assign(**predictions)
