"""Tables by fold that every competition's check_models prints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hearback.engine import cli
from hearback.engine.evaluation.oof import OutOfFold
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata

_ATTEMPT_COLUMNS = ["model", "fold", "attempt", "outcome", "epoch", "step", "minutes", "reason"]


def log_loss_by_fold(tables: Sequence[OutOfFold]) -> pd.DataFrame:
    """Return the log loss in nats: a row per model, a column per fold."""
    return as_fold_columns({table.model: table.fold_log_losses() for table in tables})


def as_fold_columns(by_model: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Return numbers by fold as a table: a row per model, a column per fold."""
    frame = pd.DataFrame(by_model).T
    return frame.rename(columns=lambda fold: f"fold {fold}").rename_axis("model")


def attempts(assets: Path, tables: Sequence[OutOfFold]) -> pd.DataFrame:
    """Return a row per training attempt, for folds with several attempts or a stalled one.

    The index is the model; the columns are fold, attempt, outcome, the epoch and step where it
    ended, minutes, and the reason.
    """
    lines = []
    for table in tables:
        for fold in range(table.n_folds):
            files = FoldFiles(assets, table.model, fold)
            known = _attempts_of(files, table.metadata_by_fold.get(fold))
            if not any(attempt["outcome"] == "stalled" for attempt in known) and len(known) < 2:
                continue
            lines += [
                {
                    "model": table.model,
                    "fold": fold,
                    **{name: attempt[name] for name in ("attempt", "outcome", "epoch", "step")},
                    "minutes": attempt["seconds"] / 60,
                    "reason": attempt["reason"] or "",
                }
                for attempt in known
            ]
    return pd.DataFrame(lines, columns=_ATTEMPT_COLUMNS).set_index("model")


def _attempts_of(files: FoldFiles, metadata: FoldMetadata | None) -> list[dict[str, Any]]:
    """Return a fold's attempts: of a finished one from its metadata, else from its checkpoint."""
    if metadata is not None:
        # Baselines and older versions record no attempts.
        return metadata.get("attempts", [])
    # Unfinished folds only: it imports torch.
    from hearback.engine.training.checkpoint import read_notes  # noqa: PLC0415

    return read_notes(files.checkpoint).get("attempts", []) if files.checkpoint.exists() else []


def print_tables(tables: Mapping[str, pd.DataFrame]) -> None:
    """Print tables by title, each after an empty line."""
    for title, frame in tables.items():
        print(f"\n{title}\n{cli.as_text(frame)}")
