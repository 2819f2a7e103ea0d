"""Fit the reading competition's ensemble: models, and their words together as one more member."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hearback.engine.ensemble import fitting, stacking
from hearback.engine.ensemble.calibration import KINDS, Line
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.ensemble.stacking import EnsembleScores, Groups, StackingData
from hearback.engine.evaluation.bootstrap import show_interval
from hearback.reading import evaluation, word_calibration, words
from hearback.reading.ensemble import EnsembleConfig, Fallback
from hearback.reading.evaluation import ReadingOutOfFold
from hearback.reading.tables import age_groups
from hearback.reading.word_calibration import CrossFitted, WordCalibration, WordExamples
from hearback.reading.word_labels import WordLabels

# The member of an ensemble that is no model: the probability that all words were said. A model's
# name begins with "model".
WORDS = "words"


@dataclass(frozen=True)
class OutOfFoldScores:
    """Out-of-fold scores of some models for the rows that all of them predicted.

    Attributes:
        rows: the table of `evaluation.join`.
        tables: the models.
        log_odds: of words, (rows, positions, 2), by model that scores words.
        targets: (rows, positions, 2), from `WordLabels.targets`; None without labels of words.
    """

    rows: pd.DataFrame
    tables: Sequence[ReadingOutOfFold]
    log_odds: Mapping[str, np.ndarray]
    targets: np.ndarray | None

    @classmethod
    def read(
        cls,
        assets: Path,
        tables: Sequence[ReadingOutOfFold],
        rows: pd.DataFrame,
        word_labels: WordLabels,
    ) -> "OutOfFoldScores":
        """Read the models' word scores from the folder `assets`."""
        log_odds = words.read_log_odds(assets, tables, rows)
        filenames, texts = rows["filename"].tolist(), rows["expected_text"].tolist()
        n_positions = next((each.shape[1] for each in log_odds.values()), 0)
        targets = word_labels.targets(filenames, texts, n_positions) if log_odds else None
        return cls(rows, tables, log_odds, targets)

    @property
    def names(self) -> list[str]:
        """The models' names."""
        return [table.model for table in self.tables]

    @property
    def labels(self) -> np.ndarray:
        """The labels of the clips, (rows,), 0 or 1."""
        return self.rows["score"].to_numpy()

    @property
    def groups(self) -> np.ndarray:
        """The names of the groups that are kept whole, (rows,) str."""
        return self.rows[evaluation.group_unit(self.rows)].to_numpy(dtype=str)

    def without(self, models: Collection[str]) -> "OutOfFoldScores":
        """Return the scores without those of some models."""
        tables = [table for table in self.tables if table.model not in models]
        log_odds = {name: each for name, each in self.log_odds.items() if name not in models}
        return replace(self, tables=tables, log_odds=log_odds)

    def examples(self, weights: Mapping[str, float]) -> WordExamples:
        """Return what the words of the models with a weight are fitted to."""
        log_odds = {name: each for name, each in self.log_odds.items() if weights.get(name)}
        texts = self.rows["expected_text"].tolist()
        n_letters = words.count_letters(texts, words.count_positions(texts))
        return WordExamples(log_odds, n_letters, weights, self.labels, self.targets)


@dataclass(frozen=True)
class Members:
    """The members of an ensemble.

    Attributes:
        rows: the table of `OutOfFoldScores`, with a column for each member.
        names: the models, and `WORDS` if their words are a member.
        words: the calibration of words; None if no model scores them.
        cross_fitted: probabilities of words; None if there are none.
    """

    rows: pd.DataFrame
    names: list[str]
    words: WordCalibration | None
    cross_fitted: CrossFitted | None

    @property
    def stacking_data(self) -> StackingData:
        """The data for fitting the ensemble."""
        return stacking_data(self.rows, self.names)


@dataclass(frozen=True)
class FittedEnsemble:
    """A fitted ensemble, with what it was fitted to."""

    data: OutOfFoldScores
    members: Members
    scores: EnsembleScores

    @property
    def words_weight(self) -> float:
        """The weight of the words; 0 if they are no member."""
        return float(self.scores.ensemble.weights[-1]) if WORDS in self.members.names else 0.0

    @property
    def model_scores(self) -> EnsembleScores:
        """The scores, with the weights of the models alone."""
        ensemble = self.scores.ensemble
        of_models = replace(ensemble, weights=ensemble.weights[: len(self.data.tables)])
        return replace(self.scores, ensemble=of_models)


def stacking_data(rows: pd.DataFrame, names: Sequence[str]) -> StackingData:
    """Return the data for fitting an ensemble of the columns `names` of `evaluation.join`."""
    return StackingData(
        predictions=rows[list(names)].to_numpy().T,
        labels=rows["score"].to_numpy(),
        groups=Groups.from_names(rows[evaluation.group_unit(rows)].to_numpy(dtype=str)),
        calibration_groups=age_groups(rows["grade"].to_numpy(dtype=str)),
    )


def gather(data: OutOfFoldScores, combine: str, calibration: str) -> Members:
    """Return the members of an ensemble of some models.

    The words are a member where at least two models score them: each hears words that the others
    miss, and a text is wrong if a single word is.
    """
    alone = Members(data.rows, data.names, None, None)
    if not data.log_odds:
        return alone
    fitted = stacking.fit_ensemble(alone.stacking_data, combine, calibration)
    weights = dict(zip(data.names, fitted.weights.tolist(), strict=True))
    examples = data.examples(weights)
    words_of = word_calibration.fit(examples)
    if words_of is None:
        return alone
    if len(np.unique(data.groups)) < 2:
        return replace(alone, words=words_of)
    cross_fitted = word_calibration.cross_fit(examples, data.groups)
    members = replace(alone, words=words_of, cross_fitted=cross_fitted)
    if len(words_of.weight_of) < 2:
        return members
    rows = data.rows.assign(**{WORDS: cross_fitted.all_said})
    return replace(members, rows=rows, names=[*data.names, WORDS])


def fit(data: OutOfFoldScores, combine: str, calibration: str) -> FittedEnsemble:
    """Fit the ensemble of some models, and print its scores."""
    members = gather(data, combine, calibration)
    settings = (combine, calibration)

    def without(index: int) -> float:
        if members.names[index] == WORDS:
            return stacking.log_loss_without([index], members.stacking_data, *settings)
        return _log_loss_without(data, [members.names[index]], *settings)

    scores = fitting.fit(members.stacking_data, members.names, *settings, without=without)
    families = [table.family for table in data.tables]
    for family in dict.fromkeys(families):
        of_family = [table.model for table in data.tables if table.family == family]
        if 1 < len(of_family) < len(families):  # a single model has its line in the table
            loss = _log_loss_without(data, of_family, *settings)
            print(f"without the {family} models ({', '.join(of_family)}): {loss:.4f}")
    fitting.print_combinations(members.stacking_data, KINDS)
    _print_scores(members.rows, scores, f"{combine}, {calibration}")
    return FittedEnsemble(data, members, scores)


def cross_fit(data: OutOfFoldScores, combine: str, calibration: str) -> np.ndarray:
    """Return the cross-fitted probabilities of the ensemble of some models, (rows,)."""
    members = gather(data, combine, calibration).stacking_data
    return stacking.cross_fit(members, combine, [calibration])[calibration]


def _log_loss_without(
    data: OutOfFoldScores, models: Sequence[str], combine: str, calibration: str
) -> float:
    """Return the cross-fitted log loss of the ensemble without some models and their words."""
    if len(models) == len(data.tables):
        return float("nan")
    others = gather(data.without(models), combine, calibration)
    return stacking.log_loss_without([], others.stacking_data, combine, calibration)


def _print_scores(rows: pd.DataFrame, scores: EnsembleScores, settings: str) -> None:
    unit = evaluation.group_unit(rows)
    cross_fitted = scores.cross_fitted_predictions
    loss, (low, high) = evaluation.log_loss_with_interval(rows, cross_fitted)
    gain, error = evaluation.gain_with_error(rows, pd.Series(cross_fitted))
    side = "below" if gain >= 0 else "above"
    print(
        f"\n{'plain mean':<20} log loss {scores.plain_mean:.4f}\n"
        f"{'weighted ensemble':<20} log loss {loss:.4f} {show_interval(low, high)}   "
        f"(2.5 to 97.5 % of a bootstrap over {unit}s;\n"
        f"{'':<20} {settings}: cross-fitted over {unit}s)\n"
        f"{'':<20} {abs(gain):.4f} ± {error:.4f} (by {unit}) {side} the base rate\n"
        f"{'in-sample':<20} log loss {scores.fitted:.4f}   (optimistic: not the score)"
    )
    _print_lines(scores.ensemble.calibration.lines)


def _print_lines(lines: Mapping[str, Line]) -> None:
    for name, line in lines.items():
        print(f"{'calibration':<20} {name}: log-odds × {line.slope:.3f} {line.intercept:+.3f}")


def print_words(members: Members, ensemble_loss: float) -> dict[str, float]:
    """Print the calibration of words, and the log loss of the probability that all were said.

    `ensemble_loss` is printed for comparison. Returns the log loss under "words"; {} if no model
    with a weight scores words.
    """
    found, cross_fitted = members.words, members.cross_fitted
    if found is None or cross_fitted is None:
        print("\nNo model of the ensemble scores words: infer.py has no --words")
        return {}
    unit = evaluation.group_unit(members.rows)
    loss, (low, high) = evaluation.log_loss_with_interval(members.rows, cross_fitted.all_said)
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in found.weight_of.items())
    print(
        f"\nWords, scored by {weights}\n"
        f"{'all words said':<20} log loss {loss:.4f} {show_interval(low, high)}   "
        f"(the ensemble's: {ensemble_loss:.4f}; cross-fitted over {unit}s)"
    )
    _print_lines({"said": found.said, "complete": found.complete})
    print(
        f"{'':<20} letters × {found.letters:+.3f}; what is missing to the power of "
        f"{found.complete_power:.2f}"
    )
    return {"words": loss}


def fit_fallbacks(
    data: OutOfFoldScores,
    models: Sequence[ModelConfig],
    combine: str,
    calibration: str,
    *,
    with_all: bool,
) -> tuple[Fallback, ...]:
    """Fit the fallbacks of the `models` with a weight; print their cross-fitted log losses.

    Their words are no member; so that of all these models is one, where the words have a weight.
    Empty if the time per clip of some model is unknown.
    """
    weighted = [model for model in models if model.weight]
    predictions = stacking_data(data.rows, [model.name for model in weighted])
    found = [
        ([weighted[model].name for model in subset.models], subset.ensemble, loss)
        for subset, loss in fitting.fit_fallbacks(weighted, predictions, combine, calibration)
    ]
    has_times = all(model.seconds_per_clip is not None for model in weighted)
    if with_all and weighted and has_times:
        names = [model.name for model in weighted]
        loss = stacking.log_loss_without([], predictions, combine, calibration)
        found.append((names, stacking.fit_ensemble(predictions, combine, calibration), loss))
    if found:
        print("\nCross-fitted log loss of the fallbacks of infer --time_limit")
    for names, _, loss in found:
        print(f"{loss:.4f}  {', '.join(names)}{', without their words' if with_all else ''}")
    fallbacks = []
    for names, ensemble, loss in found:
        weights = dict(zip(names, ensemble.weights.tolist(), strict=True))
        of_words = word_calibration.fit(data.examples(weights))
        fallbacks.append(Fallback(weights, ensemble.calibration, loss, of_words))
    return tuple(fallbacks)


def build_config(
    fitted: FittedEnsemble,
    metadata: pd.DataFrame,
    *,
    voice: dict[str, Any] | None,
    folds: Mapping[str, tuple[int, ...]] | None = None,
) -> EnsembleConfig:
    """Return the configuration of a fitted ensemble; print its words' and fallbacks' log losses.

    Args:
        fitted: the ensemble.
        metadata: the training table, with its labels as `score`.
        voice: of the reference speech; None if no model hears it.
        folds: the folds to run, by model; None: all that are trained.

    Raises:
        HearbackError: no model has a weight.
    """
    data, scores = fitted.data, fitted.scores
    combine, calibration = scores.ensemble.combine, scores.ensemble.calibration
    models = fitting.model_configs(
        data.tables, fitted.model_scores, folds, other_weight=fitted.words_weight
    )
    word_loss = print_words(fitted.members, scores.cross_fitted)
    return EnsembleConfig(
        models=models,
        voice=voice,
        base_rates=evaluation.base_rates(metadata),
        log_losses={**scores.log_losses, **word_loss},
        n_rows=len(data.rows),
        combine=combine,
        calibration=calibration,
        words=fitted.members.words,
        fallbacks=fit_fallbacks(
            data, models, combine, calibration.kind, with_all=fitted.words_weight > 0
        ),
        words_weight=fitted.words_weight,
    )
