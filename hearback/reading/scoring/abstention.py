"""Which scores should a person check? For several rules, the errors that remain by share checked.

    python -m hearback.reading.scoring.abstention --data DATA --assets docs/out_of_fold/labels

An error is a clip on the wrong side of 0.5. Each rule orders the clips from the least certain; the
curve shows the error of the rest when the first few per cent are sent to a person. All scores are
out of fold, those of the ensemble that `get_config.py` fits, with the models' words as a member;
its weights, its calibration and the learned rule are cross-fitted over speakers.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine import cli
from hearback.engine.data.problems import Report
from hearback.engine.ensemble import stacking
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.bootstrap import bootstrap_interval, show_interval
from hearback.engine.evaluation.logistic import logit
from hearback.reading import ensemble_fitting, evaluation, words
from hearback.reading.ensemble_fitting import Members, OutOfFoldScores
from hearback.reading.scoring.status import UNSURE_ABOVE, UNSURE_BELOW
from hearback.reading.tables import read_labelled
from hearback.reading.word_label_table import load_word_labels

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
N_SPLITS = 10
COMBINE = "logits"


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
    scores = read_scores(flags.data, flags.assets, flags.models)
    print(describe(scores, flags.calibration))


def read_scores(data: Path, assets: Path, models: list[str] | None) -> OutOfFoldScores:
    """Read the scores of clips and words; `models` None: of all models that score words."""
    report = Report()
    metadata, labels = read_labelled(data, report)
    tables = evaluation.read_out_of_fold(assets, models)
    if models is None:
        tables = [table for table in tables if words.has_word_scores(table)]
    joined = evaluation.join(tables, metadata.assign(score=labels))
    return OutOfFoldScores.read(assets, tables, joined, load_word_labels(data, metadata))


def uncertainties(
    scores: OutOfFoldScores, members: Members, predictions: np.ndarray
) -> dict[str, np.ndarray]:
    """Return by rule how uncertain each clip is, (rows,), in any unit; larger is less certain.

    `members` are those of the ensemble of `scores`; `predictions` are the ensemble's, (rows,).
    """
    assert members.cross_fitted is not None
    said = members.cross_fitted.words[:, :, words.SAID]
    lowest = np.nanmin(said, axis=1)
    contradiction = np.where(predictions >= 0.5, -lowest, lowest)
    logits = logit(scores.rows[scores.names].to_numpy().T)
    rules = {
        "distance of the score from 0.5": -np.abs(predictions - 0.5),
        "disagreement of models": logits.std(axis=0),
        "lowest word against the score": contradiction,
        "number of words": np.isfinite(said).sum(axis=1).astype(float),
    }
    errors = (predictions >= 0.5) != (scores.labels > 0.5)
    features = np.stack([np.abs(logit(predictions)), *list(rules.values())[1:]], axis=1)
    rules["all of them, learned"] = _cross_fit_errors(features, errors, scores.groups)
    return rules


def _cross_fit_errors(features: np.ndarray, errors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the log-odds of an error from a logistic regression on the other groups, (rows,).

    Where all clips of the other groups are errors, or none is, there is nothing to learn but that.
    """
    # Not for --help: it takes half a second.
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.model_selection import GroupKFold  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    found = np.empty(len(errors))
    n_splits = min(N_SPLITS, len(np.unique(groups)))
    for fitted, held_out in GroupKFold(n_splits).split(features, groups=groups):
        n_errors, n_right = errors[fitted].sum(), (~errors[fitted]).sum()
        if not n_errors or not n_right:
            found[held_out] = np.log((n_errors + 0.5) / (n_right + 0.5))
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0))
        model.fit(features[fitted], errors[fitted])
        found[held_out] = model.decision_function(features[held_out])
    return found


def curve(uncertainty: np.ndarray, errors: np.ndarray) -> pd.DataFrame:
    """Return the error of the rest, and the share of the errors that is caught, by share sent."""
    order = np.argsort(-uncertainty, kind="stable")
    lines = {}
    for share in SHARES:
        n_sent = round(share * len(errors))
        sent, kept = errors[order[:n_sent]], errors[order[n_sent:]]
        lines[share] = {"error": kept.mean(), "caught": sent.sum() / max(errors.sum(), 1)}
    return pd.DataFrame.from_dict(lines, orient="index")


def describe(scores: OutOfFoldScores, calibration: str) -> str:
    """Return the curves of all rules, and what the rule in use sends and catches, as text.

    Raises HearbackError if no model scores words, or there is one speaker.
    """
    members = ensemble_fitting.gather(scores, COMBINE, calibration)
    if members.cross_fitted is None:
        raise HearbackError(
            "no model scores words, or there is one speaker: name a model such as modeltok with "
            "--models, or use clips of several speakers"
        )
    data = members.stacking_data
    predictions = stacking.cross_fit(data, COMBINE, [calibration])[calibration]
    errors = (predictions >= 0.5) != (data.labels > 0.5)
    rules = uncertainties(scores, members, predictions)
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
    of_others = _mean_error(errors[~unsure], scores.groups[~unsure])
    lines = [
        f"{len(errors)} clips of {', '.join(members.names)}, calibration {calibration}: "
        f"{errors.mean():.1%} on the wrong side of 0.5",
        *(f"\n{title}\n{table.to_string()}" for title, table in tables.items()),
        f"\nunsure ({UNSURE_ABOVE} to {UNSURE_BELOW}): {unsure.mean():.1%} of the clips, with "
        f"{errors[unsure].sum() / max(errors.sum(), 1):.0%} of the errors; error of the others "
        f"{of_others}",
    ]
    return "\n".join(lines)


def _mean_error(errors: np.ndarray, groups: np.ndarray) -> str:
    """Return the share of errors and its 95 % interval by groups; "–" without clips."""
    if not len(errors):
        return "–"
    low, high = bootstrap_interval(errors.astype(float), groups, np.random.default_rng(0))
    return f"{errors.mean():.1%} {show_interval(low, high, '.1%')}"


if __name__ == "__main__":
    cli.run(main)
