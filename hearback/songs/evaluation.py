"""Out-of-fold predictions of the songs competition, and their evaluation."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import bootstrap
from hearback.engine.evaluation.fold_tables import as_fold_columns
from hearback.engine.evaluation.logistic import PROBABILITY_MARGIN
from hearback.engine.evaluation.oof import OutOfFold, common_rows
from hearback.engine.training.recipe import name_with_seed, split_seed
from hearback.songs.separation.methods import SEPARATIONS
from hearback.songs.tables import CLASSES, N_CLASSES, SEVERAL

PROBABILITIES = [f"p{label}" for label in range(N_CLASSES)]
# Ensembles of the two published systems: the mean over seeds of a recipe, and over two recipes.
SYSTEM_1, SYSTEM_2 = "system 1", "system 2"
RECIPE_OF_SYSTEM_1 = "resnet34"
RECIPES_OF_SYSTEM_2 = ("cnn4", "resnet34_small_stem")
_SUM_TOLERANCE = 1e-3  # for probabilities rounded to a few digits
_COLUMNS = ["filename", "label", *PROBABILITIES, "fold", "base"]


@dataclass(frozen=True)
class ClassOutOfFold(OutOfFold):
    """Out-of-fold predictions of a model or an ensemble.

    `rows` has the columns filename, label, p0 … p3 (probabilities of the classes), fold, and base
    (the share of the row's class in the fold's training rows).
    """

    LABEL_COLUMN: ClassVar[str] = "label"
    TRAIN_COMMAND: ClassVar[str] = "python -m hearback.songs train"

    @staticmethod
    def is_base_rate(value: object) -> bool:
        """Return whether `value` is a list of the classes' shares."""
        return isinstance(value, list | tuple) and are_shares(value)

    @classmethod
    def read_rows(cls, file: BinaryIO, base_rate: Any) -> pd.DataFrame:  # noqa: ANN401  (as JSON has it)
        """Read the predictions of a fold and add the column base; ValueError if invalid."""
        types = {"filename": str, "label": np.int64, **dict.fromkeys(PROBABILITIES, float)}
        table = pd.read_csv(file, usecols=list(types), dtype=types)
        if not table["label"].between(0, N_CLASSES - 1).all():
            raise ValueError(f"a label is not from 0 to {N_CLASSES - 1}")
        if not all(map(are_shares, table[PROBABILITIES].to_numpy())):
            raise ValueError("a row's probabilities do not sum to one")
        return table.assign(base=np.array(base_rate, float)[table["label"]])

    @property
    def probabilities(self) -> np.ndarray:
        """Predicted probabilities, (rows, classes)."""
        return self.rows[PROBABILITIES].to_numpy()

    def row_losses(self) -> pd.Series:
        """Return the log loss per row, (rows,), in nats."""
        losses = class_log_loss(self.rows["label"].to_numpy(), self.probabilities)
        return pd.Series(losses, index=self.rows.index)

    def base_losses(self) -> pd.Series:
        """Return the log loss per row of the base rate, (rows,), in nats."""
        return -np.log(self.rows["base"].clip(lower=PROBABILITY_MARGIN))

    def fold_accuracies(self) -> pd.Series:
        """Return the accuracy by fold number, 0 to 1."""
        correct = self.rows["label"] == self.probabilities.argmax(axis=1)
        return correct.groupby(self.rows["fold"]).mean()

    def confusion(self) -> np.ndarray:
        """Return the confusion matrix, (true classes, predicted classes)."""
        return confusion(self.rows["label"].to_numpy(), self.probabilities)


class ModelName(NamedTuple):
    """The parts of a model's name: resnet34_repet_s2 is resnet34, separation repet, seed 2."""

    recipe: str
    separation: str = "none"
    seed: int = 1

    @classmethod
    def parse(cls, model: str) -> "ModelName":
        """Parse the name of a model; raise HearbackError if it is invalid."""
        separated = "|".join(name for name in SEPARATIONS if name != "none")
        unseeded, seed = split_seed(model)
        match = re.fullmatch(rf"([a-z]\w*?)(?:_({separated}))?", unseeded)
        if match is None:
            raise HearbackError(
                f"invalid model name {model!r}: expected a name like resnet34_repet_s2"
            )
        recipe, separation = match.groups()
        return cls(recipe, separation or "none", seed or 1)

    def __str__(self) -> str:
        """Return the model's name."""
        name = self.recipe + ("" if self.separation == "none" else f"_{self.separation}")
        return name if self.seed == 1 else name_with_seed(name, self.seed)


class Score(NamedTuple):
    """A score and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Format the value and its interval with four decimals."""
        return f"{self.value:.4f} {bootstrap.show_interval(self.low, self.high)}"


def are_shares(values: Iterable[Any]) -> bool:
    """Return whether `values` are one number from 0 to 1 per class with a sum of one."""
    listed = list(values)
    # NaN fails each of these comparisons.
    return (
        len(listed) == N_CLASSES
        and all(isinstance(value, float | int) and 0 <= value <= 1 for value in listed)
        and abs(sum(listed) - 1) <= _SUM_TOLERANCE
    )


def class_log_loss(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the log loss per row, (rows,), in nats; `probabilities` is (rows, classes)."""
    of_label = probabilities[np.arange(len(labels)), labels]
    return -np.log(np.clip(of_label, PROBABILITY_MARGIN, 1))


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the accuracy, 0 to 1; `labels` is (rows,), `probabilities` (rows, classes)."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the confusion matrix, (true classes, predicted classes)."""
    return _confusions(labels, probabilities, np.zeros(len(labels), dtype=np.int64))[0]


def _confusions(labels: np.ndarray, probabilities: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the confusion matrix of each group of rows, (groups, classes, classes)."""
    shape = (codes.max() + 1, N_CLASSES, N_CLASSES)
    cells = np.ravel_multi_index((codes, labels, probabilities.argmax(axis=1)), shape)
    return np.bincount(cells, minlength=np.prod(shape)).reshape(shape)


def macro_f1(matrix: np.ndarray) -> float:
    """Return the mean F1 over classes of a confusion matrix, 0 to 1.

    Classes without true or predicted rows are left out of the mean.
    """
    both = matrix.sum(axis=0) + matrix.sum(axis=1)
    occurs = both > 0
    return float((2 * np.diag(matrix)[occurs] / both[occurs]).mean())


def recall_by_class(matrix: np.ndarray) -> np.ndarray:
    """Return the recall of each class, (classes,), 0 to 1; NaN for a class without rows."""
    with np.errstate(invalid="ignore"):
        return np.diag(matrix) / matrix.sum(axis=1)


def scores(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> dict[str, Score]:
    """Return accuracy, macro F1 and log loss of (rows, classes) probabilities.

    Intervals are from a bootstrap over `groups`, (rows,) names.
    """
    correct = (labels == probabilities.argmax(axis=1)).astype(float)
    _, codes = np.unique(groups, return_inverse=True)
    matrices = _confusions(labels, probabilities, codes)
    samples = bootstrap.bootstrap(matrices, macro_f1, np.random.default_rng(0))
    interval = bootstrap.percentile_interval(samples, len(matrices))
    return {
        "accuracy": _mean_score(correct, groups),
        "macro F1": Score(macro_f1(matrices.sum(axis=0)), *interval),
        "log loss": _mean_score(class_log_loss(labels, probabilities), groups),
    }


def paired_differences(
    labels: np.ndarray, probabilities: np.ndarray, others: np.ndarray, groups: np.ndarray
) -> dict[str, Score]:
    """Return the differences in accuracy and log loss: `probabilities` minus `others`.

    Both are (rows, classes). Intervals are from a paired bootstrap over `groups`, (rows,) names.
    """
    correct, other_correct = (labels == x.argmax(axis=1) for x in (probabilities, others))
    losses, other_losses = (class_log_loss(labels, x) for x in (probabilities, others))
    return {
        "accuracy": _mean_score(correct.astype(float) - other_correct, groups),
        "log loss": _mean_score(losses - other_losses, groups),
    }


def _mean_score(values: np.ndarray, groups: np.ndarray) -> Score:
    interval = bootstrap.bootstrap_interval(values, groups, np.random.default_rng(0))
    return Score(float(values.mean()), *interval)


@dataclass(frozen=True)
class Ensemble:
    """The mean of some models' predictions.

    Attributes:
        name: SYSTEM_1, SYSTEM_2, or "seeds of" a recipe.
        separation: of its members.
        members: predictions of the models.
        table: the mean of these predictions.
    """

    name: str
    separation: str
    members: tuple[ClassOutOfFold, ...]
    table: ClassOutOfFold


def average(name: str, members: Sequence[ClassOutOfFold], snippets: pd.DataFrame) -> ClassOutOfFold:
    """Return the mean of the members' probabilities, for the rows that all of them predicted."""
    rows = common_rows(members, snippets)
    mean = np.mean([member_rows[PROBABILITIES].to_numpy() for member_rows in rows], axis=0)
    table = rows[0][_COLUMNS].assign(**dict(zip(PROBABILITIES, mean.T, strict=True)))
    return ClassOutOfFold(name, members[0].n_folds, table, {})


def published_ensembles(tables: Sequence[ClassOutOfFold], snippets: pd.DataFrame) -> list[Ensemble]:
    """Return the ensembles of the two published systems, and of each other recipe's seeds.

    Ensembles without a fold that all members have are left out.
    """
    found = []
    for separation in SEPARATIONS:
        separated = "" if separation == "none" else f", {separation}"
        for name, members in _members_by_name(tables, separation).items():
            if not set.intersection(*(set(member.metadata_by_fold) for member in members)):
                continue
            recipe = ModelName.parse(members[0].model).recipe
            seeds = f"{recipe} × {len(members)}"
            listed = " + ".join(RECIPES_OF_SYSTEM_2) if name == SYSTEM_2 else seeds
            table = average(f"{name}{separated}: {listed}", members, snippets)
            found.append(Ensemble(name, separation, members, table))
    return found


def _members_by_name(
    tables: Sequence[ClassOutOfFold], separation: str
) -> dict[str, tuple[ClassOutOfFold, ...]]:
    """Return the members of each ensemble with one separation, by the ensemble's name."""
    names = {ModelName.parse(table.model): table for table in tables}
    seeds: dict[str, list[ClassOutOfFold]] = {}
    for name, table in names.items():
        if name.separation == separation:
            seeds.setdefault(name.recipe, []).append(table)
    ensembles = {
        SYSTEM_1 if recipe == RECIPE_OF_SYSTEM_1 else f"seeds of {recipe}": tuple(members)
        for recipe, members in seeds.items()
        if len(members) > 1
    }
    pair = [names.get(ModelName(recipe, separation)) for recipe in RECIPES_OF_SYSTEM_2]
    trained = tuple(table for table in pair if table is not None)
    return {**ensembles, SYSTEM_2: trained} if len(trained) == len(pair) else ensembles


def majority(snippets: pd.DataFrame) -> ClassOutOfFold:
    """Return constant predictions: the classes' shares in all rows, which minimize the log loss."""
    shares = snippets["label"].value_counts(normalize=True).reindex(range(N_CLASSES), fill_value=0)
    rows = snippets[["filename", "label"]].assign(
        **dict(zip(PROBABILITIES, shares, strict=True)), fold=0, base=snippets["label"].map(shares)
    )
    return ClassOutOfFold("majority class", 1, rows, {})


def summary(tables: Sequence[ClassOutOfFold], snippets: pd.DataFrame) -> pd.DataFrame:
    """Return a row per model: number of rows, `scores`, cross-fitted epoch, training minutes.

    The cross-fitted epoch is the log loss with each fold's epoch chosen on the other folds.
    """
    lines = []
    for table in tables:
        rows = table.rows_with(snippets)
        groups = rows["group"].to_numpy(dtype=str)
        scored = scores(rows["label"].to_numpy(), table.probabilities, groups)
        seconds = [fold_metadata["seconds"] for fold_metadata in table.metadata_by_fold.values()]
        lines.append(
            {
                "model": table.model,
                "rows": len(rows),
                **{name: str(score) for name, score in scored.items()},
                "cross-fitted epoch": table.cross_fitted_epoch_log_loss(),
                "minutes": sum(seconds) / 60 if seconds else np.nan,
            }
        )
    return pd.DataFrame(lines).set_index("model")


def differences(
    tables: Sequence[ClassOutOfFold], ensembles: Sequence[Ensemble], snippets: pd.DataFrame
) -> pd.DataFrame:
    """Return the `paired_differences` with and without separation, and of ensembles and members.

    A row per pair: a model or ensemble with separation minus the same without, and an ensemble
    minus its first member.
    """
    # By recipe and seed, or ensemble: tables that differ in separation only, unseparated first.
    same: dict[Any, list[ClassOutOfFold]] = {}
    order = {separation: i for i, separation in enumerate(SEPARATIONS)}
    for table in sorted(tables, key=lambda x: order[ModelName.parse(x.model).separation]):
        name = ModelName.parse(table.model)
        same.setdefault((name.recipe, name.seed), []).append(table)
    for ensemble in ensembles:
        same.setdefault(ensemble.name, []).append(ensemble.table)
    pairs = [(separated, models[0]) for models in same.values() for separated in models[1:]] + [
        (ensemble.table, ensemble.members[0]) for ensemble in ensembles
    ]
    lines = {}
    for first, second in pairs:
        if not set(first.rows["filename"]) & set(second.rows["filename"]):
            continue
        rows, others = common_rows([first, second], snippets)
        differ = paired_differences(
            rows["label"].to_numpy(),
            rows[PROBABILITIES].to_numpy(),
            others[PROBABILITIES].to_numpy(),
            rows["group"].to_numpy(dtype=str),
        )
        line = {"rows": len(rows), **{name: str(score) for name, score in differ.items()}}
        lines[f"{first.model} - {second.model}"] = line
    return pd.DataFrame.from_dict(lines, orient="index")


def accuracy_by_fold(tables: Sequence[ClassOutOfFold]) -> pd.DataFrame:
    """Return the accuracy: a row per model, a column per fold."""
    return as_fold_columns({table.model: table.fold_accuracies() for table in tables})


def recall_table(tables: Sequence[ClassOutOfFold]) -> pd.DataFrame:
    """Return the recall: a row per model, a column per class."""
    recalls = {table.model: recall_by_class(table.confusion()) for table in tables}
    return pd.DataFrame(recalls, index=pd.Index(CLASSES)).T.rename_axis("model")


def confusion_table(table: ClassOutOfFold) -> pd.DataFrame:
    """Return confusion matrices of all rows and of each fold: rows true, columns predicted."""
    parts = {"all": table.confusion()}
    for fold, rows in table.rows.groupby("fold"):
        parts[f"fold {fold}"] = confusion(rows["label"].to_numpy(), rows[PROBABILITIES].to_numpy())
    frames = {
        name: pd.DataFrame(matrix, index=pd.Index(CLASSES), columns=pd.Index(CLASSES))
        for name, matrix in parts.items()
    }
    return pd.concat(frames, names=["rows", "true"]).rename_axis(columns="predicted")


def by_known_singers(tables: Sequence[ClassOutOfFold], snippets: pd.DataFrame) -> pd.DataFrame:
    """Return the recall of snippets of several singers, by whether one of them is in training.

    A fold holds out the first singers of its snippets; their other singers may be in its training
    rows. A row per model, two columns per case: the number of rows and the recall.
    """
    lines = {}
    for table in tables:
        rows = table.rows_with(snippets)
        found = table.probabilities.argmax(axis=1) == SEVERAL
        several = (rows["label"] == SEVERAL) & (rows["singers"] != "")
        known = has_known_singer(rows, snippets, tables)
        line: dict[str, float] = {}
        for case, selected in (("none known", several & ~known), ("one known", several & known)):
            line[f"rows, {case}"] = int(selected.sum())
            line[case] = float(found[selected].mean()) if selected.any() else np.nan
        lines[table.model] = line
    return pd.DataFrame(list(lines.values()), index=pd.Index(lines, name="model"))


def has_known_singer(
    rows: pd.DataFrame, snippets: pd.DataFrame, tables: Sequence[ClassOutOfFold]
) -> pd.Series:
    """Return whether a row's fold was trained on one of its singers, (rows,) bool.

    Training rows are those outside the fold; if the folds of `tables` are grouped, rows with a
    first singer of the fold are left out (`hearback.songs.dataset.SongData.training_rows`).
    """
    is_grouped = all(
        fold["group_by"] != "none" for table in tables for fold in table.metadata_by_fold.values()
    )
    known = pd.Series(False, index=rows.index)
    singers = dict(zip(snippets["filename"], snippets["singers"].map(_singers), strict=True))
    for _, held_out in rows.groupby("fold"):
        own = set(held_out["group"]) if is_grouped else set()
        others = [singers[name] for name in singers.keys() - set(held_out["filename"])]
        trained = set[str]().union(*(some for some in others if not some & own))
        known[held_out.index] = [bool(singers[name] & trained) for name in held_out["filename"]]
    return known


def _singers(joined: str) -> set[str]:
    return {name.strip() for name in joined.split(";") if name.strip()}
