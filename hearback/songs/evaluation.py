"""Out-of-fold tables of classes: accuracy, macro F1 and log loss, and what is taken for what."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import bootstrap, oof
from hearback.engine.evaluation.logistic import PROBABILITY_MARGIN
from hearback.engine.evaluation.oof import OutOfFold
from hearback.engine.training.recipe import name_with_seed, split_seed
from hearback.songs.separation.methods import SEPARATIONS
from hearback.songs.tables import CLASSES, N_CLASSES

PROBABILITIES = [f"p{label}" for label in range(N_CLASSES)]
SEVERAL = CLASSES.index("several")
# The ensembles of the two course solutions: the seeds of one recipe, and two recipes half and half.
SYSTEM_1, SYSTEM_2 = "system 1", "system 2"
RECIPE_OF_SYSTEM_1 = "resnet34"
RECIPES_OF_SYSTEM_2 = ("cnn4", "resnet34_small_stem")
_SUM_TOLERANCE = 1e-3  # of probabilities written with a few digits
_COLUMNS = ["filename", "label", *PROBABILITIES, "fold", "base"]


@dataclass(frozen=True)
class ClassOutOfFold(OutOfFold):
    """The trained folds of one model of classes (or what an ensemble made of several).

    `rows` has filename, label, p0 … p3 (the classes' probabilities), fold and base (the share of
    the row's class among the fold's training rows).
    """

    TARGET: ClassVar[str] = "label"
    TRAIN: ClassVar[str] = "python -m hearback.songs.steps.train"

    @staticmethod
    def is_base_rate(value: object) -> bool:
        """Return whether a metadata's `base_rate` is a list of the classes' shares."""
        return isinstance(value, list | tuple) and are_shares(value)

    @staticmethod
    def read_rows(path: Path, base_rate: Any) -> pd.DataFrame:  # noqa: ANN401  (as JSON has it)
        """Read a fold's predictions and give them `base`; ValueError where they are none."""
        types = {"filename": str, "label": np.int64, **dict.fromkeys(PROBABILITIES, float)}
        table = pd.read_csv(path, usecols=list(types), dtype=types)
        if not table["label"].between(0, N_CLASSES - 1).all():
            raise ValueError(f"a label is none of 0 to {N_CLASSES - 1}")
        if not all(map(are_shares, table[PROBABILITIES].to_numpy())):
            raise ValueError("a row's probabilities are not shares of one")
        return table.assign(base=np.array(base_rate, float)[table["label"]])

    @property
    def probabilities(self) -> np.ndarray:
        """The predictions, (rows, classes)."""
        return self.rows[PROBABILITIES].to_numpy()

    def row_losses(self) -> pd.Series:
        """Return each row's log loss, in nats."""
        losses = class_log_loss(self.rows["label"].to_numpy(), self.probabilities)
        return pd.Series(losses, index=self.rows.index)

    def base_losses(self) -> pd.Series:
        """Return each row's log loss where the training shares are predicted."""
        return -np.log(self.rows["base"].clip(lower=PROBABILITY_MARGIN))

    def fold_accuracies(self) -> pd.Series:
        """Return accuracy by fold number."""
        right = self.rows["label"] == self.probabilities.argmax(axis=1)
        return right.groupby(self.rows["fold"]).mean()

    def confusion(self) -> np.ndarray:
        """Return the numbers of rows, (true classes, predicted classes)."""
        return confusion(self.rows["label"].to_numpy(), self.probabilities)


class ModelName(NamedTuple):
    """What a model's name says: resnet34_repet_s2 is the recipe resnet34, separated, of seed 2."""

    recipe: str
    separation: str = "none"
    seed: int = 1

    @classmethod
    def of(cls, model: str) -> "ModelName":
        """Read the name of a model; HearbackError where it is none of ours."""
        separated = "|".join(name for name in SEPARATIONS if name != "none")
        unseeded, seed = split_seed(model)
        match = re.fullmatch(rf"([a-z]\w*?)(?:_({separated}))?", unseeded)
        if match is None:
            raise HearbackError(f"{model!r} is no model's name: a recipe, _repet, _s2")
        recipe, separation = match.groups()
        return cls(recipe, separation or "none", seed or 1)

    def __str__(self) -> str:
        """Return the model's name."""
        name = self.recipe + ("" if self.separation == "none" else f"_{self.separation}")
        return name if self.seed == 1 else name_with_seed(name, self.seed)


class Score(NamedTuple):
    """A number and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the score as the tables show it."""
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def are_shares(values: Iterable[Any]) -> bool:
    """Return whether values are numbers, one a class, from 0 to 1 and together one."""
    listed = list(values)
    # Said the positive way round, for NaN compares as false.
    return (
        len(listed) == N_CLASSES
        and all(isinstance(value, float | int) and 0 <= value <= 1 for value in listed)
        and abs(sum(listed) - 1) <= _SUM_TOLERANCE
    )


def class_log_loss(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return each row's log loss, (rows,), in nats, of (rows,) labels, (rows, classes)."""
    given = probabilities[np.arange(len(labels)), labels]
    return -np.log(np.clip(given, PROBABILITY_MARGIN, 1))


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the numbers of rows, (true classes, predicted classes)."""
    return _confusions(labels, probabilities, np.zeros(len(labels), dtype=np.int64))[0]


def _confusions(labels: np.ndarray, probabilities: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the confusion matrix of each group of rows, (groups, classes, classes)."""
    shape = (codes.max() + 1, N_CLASSES, N_CLASSES)
    places = np.ravel_multi_index((codes, labels, probabilities.argmax(axis=1)), shape)
    return np.bincount(places, minlength=np.prod(shape)).reshape(shape)


def macro_f1(matrix: np.ndarray) -> float:
    """Return the mean over classes of F1, of a confusion matrix.

    A class that neither occurs nor is predicted does not count.
    """
    both = matrix.sum(axis=0) + matrix.sum(axis=1)
    there = both > 0
    return float((2 * np.diag(matrix)[there] / both[there]).mean())


def found_by_class(matrix: np.ndarray) -> np.ndarray:
    """Return the share of each class's rows that is found, NaN where it has none, (classes,)."""
    with np.errstate(invalid="ignore"):
        return np.diag(matrix) / matrix.sum(axis=1)


def scores(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> dict[str, Score]:
    """Return accuracy, macro F1 and log loss of (rows,) labels, (rows, classes).

    The intervals are of a bootstrap over whole `groups`, (rows,) of their names.
    """
    right = (labels == probabilities.argmax(axis=1)).astype(float)
    _, codes = np.unique(groups, return_inverse=True)
    matrices = _confusions(labels, probabilities, codes)
    draws = bootstrap.bootstrap(matrices, macro_f1, np.random.default_rng(0))
    return {
        "accuracy": _mean_score(right, groups),
        "macro F1": Score(macro_f1(matrices.sum(axis=0)), *bootstrap.percentile_interval(draws)),
        "log loss": _mean_score(class_log_loss(labels, probabilities), groups),
    }


def gains(
    labels: np.ndarray, probabilities: np.ndarray, others: np.ndarray, groups: np.ndarray
) -> dict[str, Score]:
    """Return by how much accuracy and log loss of some (rows, classes) are above those of others.

    Paired: each draw of groups has both models' rows.
    """
    right, right_of_others = (labels == x.argmax(axis=1) for x in (probabilities, others))
    losses, losses_of_others = (class_log_loss(labels, x) for x in (probabilities, others))
    return {
        "accuracy": _mean_score(right.astype(float) - right_of_others, groups),
        "log loss": _mean_score(losses - losses_of_others, groups),
    }


def _mean_score(values: np.ndarray, groups: np.ndarray) -> Score:
    interval = bootstrap.bootstrap_interval(values, groups, np.random.default_rng(0))
    return Score(float(values.mean()), *interval)


@dataclass(frozen=True)
class Ensemble:
    """The plain mean of some models: `what` it is, of one separation."""

    what: str
    separation: str
    members: tuple[ClassOutOfFold, ...]
    table: ClassOutOfFold


def mean_of(name: str, members: Sequence[ClassOutOfFold], snippets: pd.DataFrame) -> ClassOutOfFold:
    """Return the mean of models' probabilities, on the rows that all of them predicted."""
    rows = oof.common_rows(members, snippets)
    mean = np.mean([of_member[PROBABILITIES].to_numpy() for of_member in rows], axis=0)
    table = rows[0][_COLUMNS].assign(**dict(zip(PROBABILITIES, mean.T, strict=True)))
    return ClassOutOfFold(name, members[0].n_folds, table, {})


def as_published(tables: Sequence[ClassOutOfFold], snippets: pd.DataFrame) -> list[Ensemble]:
    """Return the ensembles of the two systems, and the mean of any other recipe's seeds.

    Those whose members have no fold in common are left out.
    """
    found = []
    for separation in SEPARATIONS:
        separated = "" if separation == "none" else f", {separation}"
        for what, members in _ensembles(tables, separation).items():
            if not set.intersection(*(set(member.metadata_by_fold) for member in members)):
                continue
            of_one = what != SYSTEM_2
            recipe = ModelName.of(members[0].model).recipe
            listed = f"{recipe} × {len(members)}" if of_one else " + ".join(RECIPES_OF_SYSTEM_2)
            table = mean_of(f"{what}{separated}: {listed}", members, snippets)
            found.append(Ensemble(what, separation, members, table))
    return found


def _ensembles(
    tables: Sequence[ClassOutOfFold], separation: str
) -> dict[str, tuple[ClassOutOfFold, ...]]:
    """Return what is averaged, by its name, of the models of one separation."""
    names = {ModelName.of(table.model): table for table in tables}
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
    there = tuple(table for table in pair if table is not None)
    return {**ensembles, SYSTEM_2: there} if len(there) == len(pair) else ensembles


def majority(snippets: pd.DataFrame) -> ClassOutOfFold:
    """Return what predicts the classes' shares over all rows, the same for every row.

    They are taken from all rows, its own too: no constant has a lower log loss.
    """
    shares = snippets["label"].value_counts(normalize=True).reindex(range(N_CLASSES), fill_value=0)
    rows = snippets[["filename", "label"]].assign(
        **dict(zip(PROBABILITIES, shares, strict=True)), fold=0, base=snippets["label"].map(shares)
    )
    return ClassOutOfFold("majority class", 1, rows, {})


def summary(tables: Sequence[ClassOutOfFold], snippets: pd.DataFrame) -> pd.DataFrame:
    """Return a row per model: rows, the `scores`, log loss at a blind epoch, minutes."""
    lines = []
    for table in tables:
        rows = oof.with_metadata(table.rows, snippets, ClassOutOfFold)
        groups = rows["group"].to_numpy(dtype=str)
        seconds = [fold_metadata["seconds"] for fold_metadata in table.metadata_by_fold.values()]
        lines.append(
            {
                "model": table.model,
                "rows": len(rows),
                **{
                    name: str(score)
                    for name, score in scores(
                        rows["label"].to_numpy(), table.probabilities, groups
                    ).items()
                },
                "blind epoch": table.blind_epoch_log_loss(),
                "minutes": sum(seconds) / 60 if seconds else np.nan,
            }
        )
    return pd.DataFrame(lines).set_index("model")


def differences(
    tables: Sequence[ClassOutOfFold], ensembles: Sequence[Ensemble], snippets: pd.DataFrame
) -> pd.DataFrame:
    """Return what separation gains, and each ensemble over its first model, paired.

    A row per pair: how far accuracy and log loss of the former are above the latter's.
    """
    alike: dict[Any, list[ClassOutOfFold]] = {}  # of one recipe and seed; separated last
    for table in sorted(tables, key=lambda x: SEPARATIONS.index(ModelName.of(x.model).separation)):
        name = ModelName.of(table.model)
        alike.setdefault((name.recipe, name.seed), []).append(table)
    for ensemble in ensembles:
        alike.setdefault(ensemble.what, []).append(ensemble.table)
    pairs = [(separated, of_it[0]) for of_it in alike.values() for separated in of_it[1:]] + [
        (ensemble.table, ensemble.members[0]) for ensemble in ensembles
    ]
    lines = {}
    for first, second in pairs:
        if not set(first.rows["filename"]) & set(second.rows["filename"]):
            continue
        rows, others = oof.common_rows([first, second], snippets)
        differ = gains(
            rows["label"].to_numpy(),
            rows[PROBABILITIES].to_numpy(),
            others[PROBABILITIES].to_numpy(),
            rows["group"].to_numpy(dtype=str),
        )
        line = {"rows": len(rows), **{name: str(score) for name, score in differ.items()}}
        lines[f"{first.model} against {second.model}"] = line
    return pd.DataFrame.from_dict(lines, orient="index")


def accuracy_by_fold(tables: Sequence[ClassOutOfFold]) -> pd.DataFrame:
    """Return accuracy, a row per model and a column per fold."""
    return oof.as_folds({table.model: table.fold_accuracies() for table in tables})


def accuracy_by_class(tables: Sequence[ClassOutOfFold]) -> pd.DataFrame:
    """Return the share of each class's rows that is found: a row per model, a column per class."""
    counted = {table.model: found_by_class(table.confusion()) for table in tables}
    return pd.DataFrame(counted, index=pd.Index(CLASSES)).T.rename_axis("model")


def confusion_table(table: ClassOutOfFold) -> pd.DataFrame:
    """Return the confusion matrix of all rows and of each fold: true classes by predicted ones."""
    parts = {"all": table.confusion()}
    for fold, rows in table.rows.groupby("fold"):
        parts[f"fold {fold}"] = confusion(rows["label"].to_numpy(), rows[PROBABILITIES].to_numpy())
    frames = {
        name: pd.DataFrame(matrix, index=pd.Index(CLASSES), columns=pd.Index(CLASSES))
        for name, matrix in parts.items()
    }
    return pd.concat(frames, names=["rows", "true"]).rename_axis(columns="predicted")


def by_known_singers(tables: Sequence[ClassOutOfFold], snippets: pd.DataFrame) -> pd.DataFrame:
    """Return the share of snippets of several singers that is found, by whether one is known.

    A fold's first singers are in none of its training rows, but another one of a snippet may be. A
    row per model, two columns per case: how many rows it has, and the share found.
    """
    metadata_by_fold = [
        fold_metadata for table in tables for fold_metadata in table.metadata_by_fold.values()
    ]
    is_grouped = all(fold_metadata["group_by"] != "none" for fold_metadata in metadata_by_fold)
    lines = {}
    for table in tables:
        rows = oof.with_metadata(table.rows, snippets, ClassOutOfFold)
        found = table.probabilities.argmax(axis=1) == SEVERAL
        several = (rows["label"] == SEVERAL) & (rows["singers"] != "")
        known = _knows_a_singer(rows, snippets, is_grouped)
        line: dict[str, float] = {}
        for case, of_it in (("none known", several & ~known), ("one known", several & known)):
            line[f"rows, {case}"] = int(of_it.sum())
            line[case] = float(found[of_it].mean()) if of_it.any() else np.nan
        lines[table.model] = line
    return pd.DataFrame(list(lines.values()), index=pd.Index(lines, name="model"))


def _knows_a_singer(rows: pd.DataFrame, snippets: pd.DataFrame, is_grouped: bool) -> pd.Series:
    """Return whether one of a row's singers is in the training rows of its fold, (rows,) of bool.

    Trained on is what is not of the fold and, where folds are grouped, has none of the fold's first
    singers (`hearback.songs.dataset.SongData.training_rows`).
    """
    known = pd.Series(False, index=rows.index)
    singers = dict(zip(snippets["filename"], snippets["singers"].map(_singers), strict=True))
    for _, of_fold in rows.groupby("fold"):
        own = set(of_fold["group"]) if is_grouped else set()
        of_others = [singers[name] for name in singers.keys() - set(of_fold["filename"])]
        heard = set[str]().union(*(some for some in of_others if not some & own))
        known[of_fold.index] = [bool(singers[name] & heard) for name in of_fold["filename"]]
    return known


def _singers(joined: str) -> set[str]:
    return {name.strip() for name in joined.split(";") if name.strip()}
