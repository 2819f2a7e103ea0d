"""Which scores should a person check? For several rules, the errors that remain by share checked.

    python -m hearback.reading.scoring.abstention --data DATA --assets docs/out_of_fold/recipes

An error is a clip on the wrong side of 0.5. Each rule orders the clips from the least certain; the
curve shows the error of the rest when the first few per cent are sent to a person. All scores are
out of fold; the ensemble's weights, its calibration and the learned rule are cross-fitted over
speakers.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hearback.engine import cli
from hearback.engine.data.problems import Report
from hearback.engine.ensemble import stacking
from hearback.engine.evaluation.bootstrap import bootstrap_interval
from hearback.engine.evaluation.logistic import logit
from hearback.reading import evaluation, words
from hearback.reading.ensemble_fitting import stacking_data
from hearback.reading.scoring.status import UNSURE_ABOVE, UNSURE_BELOW
from hearback.reading.tables import read_labelled

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
N_SPLITS = 10


def main() -> None:
    """Parse the command line and print the curves."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"), help="folder of the tables")
    add("--assets", type=Path, default=Path("assets"), help="folder of the trained folds")
    add("--models", nargs="+", help="models of the ensemble (default: all with word scores)")
    add(
        "--calibration",
        choices=("platt", "platt_by_group"),
        default="platt",
        help="of the ensemble: platt knows no grade",
    )
    flags = parser.parse_args()
    joined, log_odds = read_predictions(flags.data, flags.assets, flags.models)
    print(describe(joined, log_odds, flags.calibration))


def read_predictions(
    data: Path, assets: Path, models: list[str] | None
) -> tuple[pd.DataFrame, Mapping[str, np.ndarray]]:
    """Return the training rows with a column per model, and the word scores by model."""
    report = Report()
    metadata, labels = read_labelled(data, report)
    tables = evaluation.read_out_of_fold(assets, models)
    if models is None:
        tables = [table for table in tables if words.has_word_scores(table)]
    metadata = metadata.assign(score=labels)
    joined = evaluation.join(tables, metadata)
    return joined, words.read_log_odds(assets, tables, joined)


def uncertainties(
    joined: pd.DataFrame, log_odds: Mapping[str, np.ndarray], predictions: np.ndarray
) -> dict[str, np.ndarray]:
    """Return by rule how uncertain each clip is, (rows,), in any unit; larger is less certain.

    `predictions` are the ensemble's, (rows,).
    """
    names = list(log_odds)
    logits = logit(joined[names].to_numpy().T)
    said = np.mean(list(log_odds.values()), axis=0)[:, :, words.SAID]
    lowest = np.nanmin(said, axis=1)
    contradiction = np.where(predictions >= 0.5, -lowest, lowest)
    rules = {
        "distance of the score from 0.5": -np.abs(predictions - 0.5),
        "disagreement of models": logits.std(axis=0),
        "lowest word against the score": contradiction,
        "number of words": np.isfinite(said).sum(axis=1).astype(float),
    }
    errors = (predictions >= 0.5) != (joined["score"].to_numpy() > 0.5)
    features = np.stack([np.abs(logit(predictions)), *list(rules.values())[1:]], axis=1)
    rules["all of them, learned"] = _learn(features, errors, _speakers(joined))
    return rules


def _learn(features: np.ndarray, errors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the log-odds of an error from a logistic regression on the other groups, (rows,)."""
    found = np.empty(len(errors))
    for fitted, held_out in GroupKFold(N_SPLITS).split(features, groups=groups):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0))
        model.fit(features[fitted], errors[fitted])
        found[held_out] = model.decision_function(features[held_out])
    return found


def _speakers(joined: pd.DataFrame) -> np.ndarray:
    return joined[evaluation.group_unit(joined)].to_numpy(dtype=str)


def curve(uncertainty: np.ndarray, errors: np.ndarray) -> pd.DataFrame:
    """Return the error of the rest, and the share of the errors that is caught, by share sent."""
    order = np.argsort(-uncertainty, kind="stable")
    lines = {}
    for share in SHARES:
        n_sent = round(share * len(errors))
        sent, kept = errors[order[:n_sent]], errors[order[n_sent:]]
        lines[share] = {"error": kept.mean(), "caught": sent.sum() / max(errors.sum(), 1)}
    return pd.DataFrame.from_dict(lines, orient="index")


def describe(joined: pd.DataFrame, log_odds: Mapping[str, np.ndarray], calibration: str) -> str:
    """Return the curves of all rules, and what the rule in use sends and catches, as text."""
    data = stacking_data(joined, list(log_odds))
    fitted = stacking.score_ensemble(data, "probabilities", calibration)
    predictions = fitted.cross_fitted_predictions
    errors = (predictions >= 0.5) != (data.labels > 0.5)
    rules = uncertainties(joined, log_odds, predictions)
    curves = {name: curve(values, errors) for name, values in rules.items()}
    columns = [f"{share:.0%}" for share in SHARES]
    tables = {
        title: pd.DataFrame(
            [[f"{value:.1%}" for value in each[column]] for each in curves.values()],
            index=list(curves),
            columns=columns,
        )
        for title, column in (
            ("error of the clips that are not sent, by share sent", "error"),
            ("share of the errors that are among those sent", "caught"),
        )
    }
    unsure = (predictions > UNSURE_ABOVE) & (predictions < UNSURE_BELOW)
    low, high = bootstrap_interval(
        errors[~unsure].astype(float), _speakers(joined)[~unsure], np.random.default_rng(0)
    )
    lines = [
        f"{len(errors)} clips of {', '.join(log_odds)}, calibration {calibration}: "
        f"{errors.mean():.1%} on the wrong side of 0.5",
        *(f"\n{title}\n{table.to_string()}" for title, table in tables.items()),
        f"\nunsure ({UNSURE_ABOVE} to {UNSURE_BELOW}): {unsure.mean():.1%} of the clips, with "
        f"{errors[unsure].sum() / errors.sum():.0%} of the errors; error of the others "
        f"{errors[~unsure].mean():.1%} [{low:.1%}, {high:.1%}]",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
