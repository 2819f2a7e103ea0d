"""Search the ensemble's weights on out-of-fold predictions and write model_configs.json."""

from pathlib import Path

import pandas as pd

from hearback import cli, evaluation
from hearback.dataset import read_labelled
from hearback.ensemble import EnsembleConfig, ModelConfig, score_ensemble
from hearback.errors import HearbackError
from hearback.tables import Report


def main() -> None:
    """Join, search, print the scores and write the file."""
    parser = cli.parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the tables")
    parser.add_argument("--assets", type=Path, default=Path("assets"), help="folder of the folds")
    parser.add_argument("--models", nargs="+", help="only these (default: all that are trained)")
    parser.add_argument("--config", type=Path, default=Path("model_configs.json"), help="to write")
    arguments = parser.parse_args()

    report = Report()
    metadata, labels = read_labelled(arguments.data, report)
    report.raise_if_errors()
    tables = evaluation.read_out_of_fold(arguments.assets, arguments.models)
    joined = evaluation.join(tables, metadata.assign(score=labels))
    names = [table.model for table in tables]
    predictions, scores = joined[names].to_numpy().T, joined["score"].to_numpy()
    unit = evaluation.group_unit(joined)
    groups = joined[unit].to_numpy(dtype=str)
    result = score_ensemble(predictions, scores, groups)

    print(f"{len(joined)} rows that every model predicted out of fold, of {len(metadata)}\n")
    for name, alone, weight in zip(names, result.alone, result.weights, strict=True):
        print(f"{name:<20} log loss {alone:.4f}   weight {weight:.3f}")
    print(f"{'plain mean':<20} log loss {result.plain_mean:.4f}")
    print(
        f"{'weighted ensemble':<20} log loss {result.honest:.4f}   "
        f"(weights searched without the {unit}s that they are scored on)"
    )
    gain, error = evaluation.gain_with_error(joined, pd.Series(result.honest_predictions))
    print(f"{'':<20} {gain:.4f} ± {error:.4f} (by {unit}) below the base rate")
    print(f"{'on its own rows':<20} log loss {result.fitted:.4f}   (flattering: not the score)")

    voices = [story["voice"] for table in tables for story in table.stories.values()]
    if any(voice != voices[0] for voice in voices):
        raise HearbackError("the folds were trained with different voices; train them again")
    rates = pd.Series(labels).groupby(metadata["task"]).mean()
    EnsembleConfig(
        models=tuple(
            ModelConfig(table.model, tuple(table.stories), float(weight))
            for table, weight in zip(tables, result.weights, strict=True)
        ),
        voice=voices[0],
        base_rates={"all": float(labels.mean()), **rates.astype(float).to_dict()},
        log_losses={
            "honest": result.honest,
            "fitted": result.fitted,
            "plain_mean": result.plain_mean,
        },
        n_rows=len(joined),
    ).save(arguments.config)
    print(f"\nwrote {arguments.config}")


if __name__ == "__main__":
    cli.run(main)
