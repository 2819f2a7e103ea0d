"""Out-of-fold tables: how good the trained folds are, and which of them stand out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pandas as pd

from hearback.calibration import AGE_GROUPS, NEAREST_TO_CERTAIN, YOUNGEST, fit_logistic, logit
from hearback.checkpoint import FoldFiles, Story, read_notes, read_story
from hearback.errors import HearbackError
from hearback.files import sha256_of
from hearback.guard import Curve, StallGuard
from hearback.tables import GRADES, TASKS, Problem, Report

N_BOOTSTRAPS = 2000
N_BINS = 10  # of equal mass, for the expected calibration error
FEWEST_ROWS_OF_A_BIN = 10
OUTLIER_DEVIATIONS = 3.0  # robust standard deviations of the sibling folds' gains
OUTLIER_SHARE = 0.1  # of the siblings' gain over the base rate
_MAD_TO_DEVIATION = 1.4826  # for a normal distribution
_MOST_FOLDS = 1000  # a story that tells of more is damaged
_SPLIT = ("n_folds", "group_by", "limit", "data_fingerprint")  # trainings of it can be compared
_NEEDED = ("recipe_fingerprint", "group_by", "limit", "data_fingerprint", "command_again")


@dataclass(frozen=True)
class OutOfFold:
    """The trained folds of one model (or what an ensemble made of several).

    `rows` has filename, score, pred, fold and base (the mean label of the fold's training rows);
    `stories` the folds' stories by fold number. Another competition's table derives from this one
    and says otherwise what a prediction is, how it is read and what it costs.
    """

    TARGET: ClassVar[str] = "score"  # the column of the labels
    TRAIN: ClassVar[str] = "python train.py"  # trains what is missing or out of date

    model: str
    n_folds: int
    rows: pd.DataFrame
    stories: Mapping[int, Story]

    @property
    def missing_folds(self) -> list[int]:
        """The folds not trained yet."""
        return [fold for fold in range(self.n_folds) if fold not in self.stories]

    @property
    def family(self) -> str:
        """How learner and expected text meet in the model; a peer is none of ours."""
        story = next(iter(self.stories.values()))
        if "peer" in story:
            return "peer"
        pairing = story["recipe"]["pair"]
        return {"tokens": "token scorer", "aligned": "aligned comparison"}.get(
            pairing, "comparison"
        )

    @staticmethod
    def is_base_rate(value: object) -> bool:
        """Return whether a story's `base_rate` is one of this competition."""
        return isinstance(value, float | int) and 0 <= value <= 1

    @staticmethod
    def read_rows(path: Path, base_rate: Any) -> pd.DataFrame:  # noqa: ANN401  (as JSON has it)
        """Read a fold's predictions and give them `base`; ValueError where they are none."""
        table = pd.read_csv(path, dtype={"filename": str, "score": float, "pred": float})
        return table.assign(base=base_rate)

    def row_losses(self) -> pd.Series:
        """Return each row's log loss, in nats."""
        return row_log_loss(self.rows["score"], self.rows["pred"])

    def base_losses(self) -> pd.Series:
        """Return each row's log loss where the training base rate is predicted."""
        return row_log_loss(self.rows["score"], self.rows["base"])

    def fold_log_losses(self) -> pd.Series:
        """Return log loss by fold number."""
        return self.row_losses().groupby(self.rows["fold"]).mean()

    def row_gains(self) -> pd.Series:
        """Return how far each row's log loss is below that of the training base rate."""
        return self.base_losses() - self.row_losses()

    def fold_gains(self) -> pd.Series:
        """Return the mean of `row_gains` by fold number."""
        return self.row_gains().groupby(self.rows["fold"]).mean()

    def log_loss_at_a_blind_epoch(self) -> float:
        """Return log loss with each fold's epoch chosen by the other folds.

        A fold's own best epoch is chosen on the rows that it is scored on, which flatters it; the
        difference to the plain score says by how much. NaN with fewer than two folds.
        """
        curves = {
            fold: np.array([epoch["validation_log_loss"] for epoch in story["epochs"]])
            for fold, story in self.stories.items()
        }
        if len(curves) < 2 or len({len(curve) for curve in curves.values()}) != 1:
            return float("nan")
        losses, weights = [], []
        for fold, curve in curves.items():
            others = np.mean([curves[other] for other in curves if other != fold], axis=0)
            losses.append(curve[int(np.argmin(others))])
            weights.append(self.stories[fold]["n_validation"])
        return float(np.average(losses, weights=weights))


Table = TypeVar("Table", bound=OutOfFold)


def row_log_loss(scores: pd.Series, predictions: pd.Series) -> pd.Series:
    """Return each row's log loss, in nats; probabilities are kept a little away from 0 and 1."""
    clipped = predictions.clip(NEAREST_TO_CERTAIN, 1 - NEAREST_TO_CERTAIN)
    return -(scores * np.log(clipped) + (1 - scores) * np.log1p(-clipped))


def gains_on_the_base_rate(rows: pd.DataFrame, predictions: pd.Series) -> pd.Series:
    """Return how far the predictions' log loss is below that of `base`, row by row."""
    return row_log_loss(rows["score"], rows["base"]) - row_log_loss(rows["score"], predictions)


def group_unit(rows: pd.DataFrame) -> str:
    """Return the column whose values go together: speaker, where rows have that, or filename."""
    return "speaker" if "speaker" in rows else "filename"


def gain_with_error(rows: pd.DataFrame, predictions: pd.Series) -> tuple[float, float]:
    """Return the mean gain on the base rate and its standard error, by `group_unit`."""
    gains = gains_on_the_base_rate(rows, predictions)
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
        stories = {
            f"{table.model} fold {fold} {place}": story
            for place, side in zip(("here", "there"), pair, strict=True)
            for fold, story in side.stories.items()
        }
        _check_same(type(table), table.model, stories, _SPLIT)
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


def trained_folds(assets: Path) -> dict[str, list[int]]:
    """Return the finished folds that lie in `assets`, by model."""
    found: dict[str, list[int]] = {}
    for path in sorted(assets.glob("[!.]*_*.oof.csv")):  # not those under way: files.whole_file
        # A model's name may have underscores itself.
        model, _, fold = path.name.removesuffix(".oof.csv").rpartition("_")
        # "²" is a digit, and no number.
        if fold.isdecimal() and FoldFiles(assets, model, int(fold)).story.exists():
            found.setdefault(model, []).append(int(fold))
    return {model: sorted(folds) for model, folds in found.items()}


def read_out_of_fold(assets: Path, models: Sequence[str] | None = None) -> list[OutOfFold]:
    """Read the out-of-fold predictions of `models` as `read_tables` does."""
    return read_tables(OutOfFold, assets, models)


def read_tables(
    kind: type[Table], assets: Path, models: Sequence[str] | None = None
) -> list[Table]:
    """Read the out-of-fold predictions of `models`, or of all that `assets` holds.

    `kind` is the competition's: what its folds predict, and how that is read. Raises HearbackError
    where there are none, where a file is not the one that its story speaks of, and where the folds
    of a model are not of one training: another recipe, split or data.
    """
    found = trained_folds(assets)
    if models is not None:
        if unknown := [model for model in models if model not in found]:
            raise HearbackError(
                f"{assets}: no finished fold of {', '.join(unknown)}; "
                f"there are {', '.join(found) or 'none'}"
            )
        found = {model: found[model] for model in models}
    if not found:
        raise HearbackError(f"{assets}: no finished fold; train some with {kind.TRAIN}")
    tables = [_read_model(kind, assets, model, folds) for model, folds in found.items()]
    stories = {f"{t.model} fold {fold}": s for t in tables for fold, s in t.stories.items()}
    _check_same(kind, str(assets), stories, _SPLIT)
    return tables


def _check_same(
    kind: type[OutOfFold], what: str, stories: Mapping[str, Story], keys: Sequence[str]
) -> None:
    """Raise HearbackError where trainings that belong together differ in one of `keys`.

    `what` they are begins the message.
    """
    for key in keys:
        by_value: dict[str, list[str]] = {}
        for name, story in stories.items():
            by_value.setdefault(str(story[key]), []).append(name)
        if len(by_value) > 1:
            said = "; ".join(f"{value}: {', '.join(names)}" for value, names in by_value.items())
            raise HearbackError(
                f"{what}: the trained folds differ in {key.replace('_', ' ')} ({said}); "
                f"{kind.TRAIN} trains again what is out of date"
            )


def _lacking(kind: type[OutOfFold], story: Story) -> list[str]:
    """Return what a story must say to be compared with others, and does not."""
    lacking = [key for key in _NEEDED if key not in story]
    n_folds = story.get("n_folds")
    if type(n_folds) is not int or not 1 <= n_folds <= _MOST_FOLDS:
        lacking.append("n_folds")
    if not kind.is_base_rate(story.get("base_rate")):
        lacking.append("base_rate")
    if not isinstance((story.get("sha256") or {}).get("oof"), str):
        lacking.append("sha256")
    return sorted(set(lacking))


def _read_model(kind: type[Table], assets: Path, model: str, folds: Sequence[int]) -> Table:
    stories, tables = {}, []
    for fold in folds:
        files = FoldFiles(assets, model, fold)
        story = read_story(files)
        if lacking := _lacking(kind, story):
            raise HearbackError(
                f"{files.story}: says nothing usable of {', '.join(lacking)}; train the fold again"
            )
        try:
            if sha256_of(files.oof) != story["sha256"]["oof"]:
                raise HearbackError(
                    f"{files.oof}: not the file that {files.story.name} speaks of; "
                    f"train it again: {story['command_again']}"
                )
            rows = kind.read_rows(files.oof, story["base_rate"])
        except (OSError, ValueError) as error:
            raise HearbackError(
                f"{files.oof}: cannot be read ({error}); train the fold again"
            ) from None
        stories[fold] = story
        tables.append(rows.assign(fold=fold))
    named = {f"{model} fold {fold}": story for fold, story in stories.items()}
    _check_same(kind, str(assets), named, ("recipe_fingerprint", "n_folds"))
    return kind(model, stories[folds[0]]["n_folds"], pd.concat(tables), stories)


def folds_that_stand_out(table: OutOfFold) -> dict[int, str]:
    """Return the folds that a person should look at, with the reasons in words."""
    learned_less, stalled = folds_that_learned_less(table), folds_that_stalled(table)
    return {
        fold: "; ".join(found[fold] for found in (learned_less, stalled) if fold in found)
        for fold in sorted({*learned_less, *stalled})
    }


def folds_that_stalled(table: OutOfFold) -> dict[int, str]:
    """Return the folds that training's guard would stop against their siblings, and why.

    The first folds of a model are trained without any to compare with, and so are folds that are
    trained side by side; seen from the end, each has siblings.
    """
    curves = {fold: Curve.of(story["epochs"]) for fold, story in table.stories.items()}
    reasons = {}
    for fold in table.stories:
        others = [x for other, x in curves.items() if other != fold and x is not None]
        if others and (reason := StallGuard(others).replay(table.stories[fold]["epochs"])):
            reasons[fold] = reason
    return reasons


def folds_that_learned_less(table: OutOfFold) -> dict[int, str]:
    """Return the folds that learned less than their siblings did, with the reason in words.

    What is compared is the gain over the base rate, so that the rule fits any level of loss: a fold
    stands out where its gain falls short of its siblings' median by more than three robust standard
    deviations of theirs (or standard errors of its own), and by more than a tenth of it. With
    siblings at 0.22 to 0.24 and a base rate of 0.69, that begins at 0.28.
    """
    row_gains = table.row_gains()
    gains = table.fold_gains()
    losses = table.fold_log_losses()
    reasons = {}
    for fold, gain in gains.items():
        siblings = gains.drop(fold)
        if len(siblings) < 2:
            continue
        median = siblings.median()
        deviation = _MAD_TO_DEVIATION * (siblings - median).abs().median()
        error = row_gains[table.rows["fold"] == fold].sem()  # few rows tell a fold's gain badly
        margin = max(OUTLIER_DEVIATIONS * max(deviation, error), OUTLIER_SHARE * abs(median))
        if median - gain > margin:
            reasons[int(fold)] = (
                f"log loss {losses[fold]:.4f} where its siblings' median is "
                f"{losses.drop(fold).median():.4f}: it gains {gain:.4f} on the base rate, they "
                f"{median:.4f}, and {margin:.4f} less would still be usual"
            )
    return reasons


def attempts(assets: Path, tables: Sequence[OutOfFold]) -> pd.DataFrame:
    """Return a row for each attempt at the folds that needed more than one, or where none worked.

    The columns are fold, attempt, outcome, epoch and step where it ended, minutes, and why.
    """
    lines = []
    for table in tables:
        for fold in range(table.n_folds):
            known = _attempts_at(FoldFiles(assets, table.model, fold), table.stories.get(fold))
            if not any(attempt["outcome"] == "stalled" for attempt in known) and len(known) < 2:
                continue
            lines += [
                {
                    "model": table.model,
                    "fold": fold,
                    **{name: x[name] for name in ("attempt", "outcome", "epoch", "step")},
                    "minutes": x["seconds"] / 60,
                    "why": x["reason"] or "",
                }
                for x in known
            ]
    columns = ["model", "fold", "attempt", "outcome", "epoch", "step", "minutes", "why"]
    return pd.DataFrame(lines, columns=columns).set_index("model")


def _attempts_at(files: FoldFiles, story: Story | None) -> list[dict[str, Any]]:
    if story is not None:
        return story.get("attempts", [])  # an older version's story, or a peer's, has none
    return read_notes(files.partial).get("attempts", []) if files.partial.exists() else []


def bootstrap_standard_error(
    values: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> float:
    """Return the standard error of the mean of `values`, (rows,), resampling whole `groups`."""
    return float(np.std(_bootstrap_means(values, groups, rng), ddof=1))


def bootstrap_interval(
    values: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % percentiles of the mean of `values`, resampling whole `groups`.

    The percentile interval (Efron & Tibshirani 1993, chapter 13).
    """
    return percentile_interval(_bootstrap_means(values, groups, rng))


def percentile_interval(draws: np.ndarray) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % percentiles of a bootstrap's `draws`."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _bootstrap_means(
    values: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the means of `N_BOOTSTRAPS` draws of whole `groups`."""
    _, codes = np.unique(groups, return_inverse=True)
    totals = np.stack([np.bincount(codes, weights=values), np.bincount(codes)], axis=1)
    return bootstrap(totals, lambda total: total[0] / total[1], rng)


def bootstrap(
    totals: np.ndarray, statistic: Callable[[np.ndarray], float], rng: np.random.Generator
) -> np.ndarray:
    """Return a statistic of `N_BOOTSTRAPS` draws of whole groups.

    `totals`, (groups, ...), are each group's sums over its rows of whatever the statistic is made
    of; it is given their sum over the groups drawn. Efron & Tibshirani, "An Introduction to the
    Bootstrap", 1993, chapter 6; groups are drawn whole, for the rows of one speaker go together.
    """
    n_groups, *shape = totals.shape
    flat = totals.reshape(n_groups, -1).astype(float)
    values = np.empty(N_BOOTSTRAPS)
    for place in range(N_BOOTSTRAPS):  # all draws at once would be gigabytes for 38,000 groups
        drawn = rng.integers(n_groups, size=n_groups)
        times = np.bincount(drawn, minlength=n_groups).astype(float)
        values[place] = statistic((times @ flat).reshape(shape))
    return values


def area_under_curve(scores: np.ndarray, predictions: np.ndarray) -> float:
    """Return the probability that a 1 is ranked above a 0 (ties half); NaN with one class only."""
    ranks = pd.Series(predictions).rank().to_numpy()
    positives = np.asarray(scores) > 0.5
    n_positives, n_negatives = positives.sum(), (~positives).sum()
    if not n_positives or not n_negatives:
        return float("nan")
    wins = ranks[positives].sum() - n_positives * (n_positives + 1) / 2
    return float(wins / (n_positives * n_negatives))


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
                "blind epoch": table.log_loss_at_a_blind_epoch(),
                "mean over texts": losses.groupby(rows["expected_text"]).mean().mean(),
                "below base rate": gain,
                f"± (by {unit})": error,
                "AUC": area_under_curve(rows["score"].to_numpy(), rows["pred"].to_numpy()),
                "minutes": sum(story["seconds"] for story in table.stories.values()) / 60,
            }
        )
    return pd.DataFrame(lines).set_index("model")


def by_fold(tables: Sequence[OutOfFold]) -> pd.DataFrame:
    """Return log loss, a row per model and a column per fold."""
    return as_folds({table.model: table.fold_log_losses() for table in tables})


def as_folds(models: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Return a row per model and a column per fold of the models' numbers by fold."""
    frame = pd.DataFrame(models).T
    return frame.rename(columns=lambda fold: f"fold {fold}").rename_axis("model")


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


def expected_calibration_error(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the mean distance of prediction and label in `N_BINS` bins of equal mass.

    Naeini, Cooper & Hauskrecht 2015, "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning". Rows of equal predictions share their mean label, so that their order does not matter.
    Chance alone makes it larger than zero, the more the fewer the rows: NaN below
    `FEWEST_ROWS_OF_A_BIN` rows to a bin.
    """
    if len(labels) < N_BINS * FEWEST_ROWS_OF_A_BIN:
        return float("nan")
    shared = pd.Series(labels).groupby(np.asarray(predictions)).transform("mean").to_numpy()
    order = np.argsort(predictions, kind="stable")
    bins = np.array_split((shared - predictions)[order], N_BINS)
    return float(sum(abs(differences.sum()) for differences in bins) / len(labels))


def calibration_line(labels: np.ndarray, predictions: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the labels' log-odds over the predictions' log-odds.

    Cox 1958, "Two Further Applications of a Model for Binary Regression": (1, 0) is calibrated; a
    slope below 1 is too certain, an intercept above 0 says yes too seldom. NaN where no finite line
    is the most likely: the labels are all the same, or the predictions part them.
    """
    logits, positive = logit(predictions), np.asarray(labels) > 0.5
    if positive.all() or not positive.any():
        return float("nan"), float("nan")
    parted = (
        logits[positive].min() >= logits[~positive].max()
        or logits[positive].max() <= logits[~positive].min()
    )
    if parted:
        return float("nan"), float("nan")
    features = np.stack([logits, np.ones_like(logits)], axis=1)
    slope, intercept = fit_logistic(
        features, positive.astype(float), centre=np.array([1.0, 0.0]), precision=np.zeros((2, 2))
    )
    return float(slope), float(intercept)


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


def with_metadata(
    rows: pd.DataFrame, metadata: pd.DataFrame, kind: type[OutOfFold] = OutOfFold
) -> pd.DataFrame:
    """Join predicted `rows` of a `kind` of table with the metadata's columns.

    Raises HearbackError where the metadata no longer have a row or give it another label (where
    they have that column): then the table has changed since the training.
    """
    labels = {kind.TARGET: "in the table"} if kind.TARGET in metadata else {}
    joined = rows.merge(
        metadata.rename(columns=labels),
        on="filename",
        how="left",
        validate="one_to_one",
        indicator="known",
    )
    changed = joined.pop("known") != "both"
    if labels:
        changed |= joined.pop("in the table") != joined[kind.TARGET]
    if changed.any():
        one = joined["filename"][changed].iloc[0]
        raise HearbackError(
            f"the table has changed since the training, for one in the row of {one}; "
            f"{kind.TRAIN} trains again what is out of date"
        )
    return joined


def common_rows(tables: Sequence[OutOfFold], metadata: pd.DataFrame) -> list[pd.DataFrame]:
    """Return each table's rows with the metadata: those that all predicted, in its order.

    A row that some model did not predict, for its fold is not trained, is left out. Raises
    HearbackError where none is left.
    """
    joined = [with_metadata(table.rows, metadata, type(table)) for table in tables]
    common = set[str].intersection(*(set(rows["filename"]) for rows in joined))
    if not common:
        raise HearbackError(
            "no row was predicted out of fold by every model: "
            "train the same folds of each, or choose with --models"
        )
    in_order = metadata.loc[metadata["filename"].isin(common), ["filename"]]
    return [in_order.merge(rows, on="filename", validate="one_to_one") for rows in joined]


def join(tables: Sequence[OutOfFold], metadata: pd.DataFrame) -> pd.DataFrame:
    """Join the models' predictions on filename: the metadata, score, base, a column per model.

    Which rows, and in which order, `common_rows` says.
    """
    first, *rest = common_rows(tables, metadata)
    predictions = {table.model: rows["pred"] for table, rows in zip(tables[1:], rest, strict=True)}
    return first.rename(columns={"pred": tables[0].model}).assign(**predictions)
