"""Cross-validation splits."""

import numpy as np
import pandas as pd
import pytest

from hearback.engine.data.folds import assign_folds
from hearback.engine.errors import HearbackError

TASKS = ("deletion", "blending", "nonword_repetition", "sentence_repetition")


def make_table(n_rows: int = 360, n_speakers: int = 30) -> pd.DataFrame:
    """Return clips of all texts of each speaker's task; half of the speakers read correctly."""
    numbers = np.arange(n_rows)
    speakers = numbers % n_speakers
    return pd.DataFrame(
        {
            "filename": [f"{number:04}.wav" for number in numbers],
            "task": [TASKS[number] for number in speakers % 4],
            "expected_text": [f"text {number}" for number in numbers // n_speakers],
            "speaker": [f"s{number}" for number in speakers],
            "score": (speakers < n_speakers // 2).astype(np.float32),
        }
    )


def split(table: pd.DataFrame, n_folds: int = 6, group_by: str | None = None) -> np.ndarray:
    return assign_folds(
        table.drop(columns="score"),
        table["score"].to_numpy(),
        n_folds,
        group_by,
        default_group="speaker",
        stratify_by="task",
    )


@pytest.mark.parametrize(
    ("group_by", "together"), [(None, "speaker"), ("expected_text", "expected_text")]
)
def test_groups_are_never_split(group_by: str | None, together: str) -> None:
    table = make_table()
    folds = split(table, group_by=group_by)
    assert sorted(set(folds)) == list(range(6))
    assert len(set(zip(table[together], folds, strict=True))) == len(set(table[together]))


def test_folds_by_speaker_are_stratified_by_label() -> None:
    table = make_table(n_speakers=36)
    shares = table["score"].groupby(split(table)).mean()
    np.testing.assert_allclose(shares, table["score"].mean(), atol=0.1)


@pytest.mark.parametrize("with_speakers", [True, False])
def test_ungrouped_folds_are_stratified_by_task_and_label(with_speakers: bool) -> None:
    table = make_table(n_speakers=10)
    metadata = table if with_speakers else table.drop(columns="speaker")
    folds = split(metadata, group_by="none" if with_speakers else None)
    counts = pd.crosstab([table["task"], table["score"]], folds)
    assert counts.shape[1] == 6
    assert (counts.max(axis=1) - counts.min(axis=1) <= 1).all()


@pytest.mark.parametrize("group_by", ["speaker", "expected_text", "none"])
def test_the_split_depends_on_the_filenames_and_not_on_their_order(group_by: str) -> None:
    table = make_table()
    folds = pd.Series(split(table, group_by=group_by), index=table["filename"])
    shuffled = table.sample(frac=1, random_state=1)
    again = pd.Series(split(shuffled, group_by=group_by), index=shuffled["filename"])
    pd.testing.assert_series_equal(again.sort_index(), folds)


@pytest.mark.parametrize(
    ("table", "n_folds", "group_by", "message"),
    [
        (make_table(), 1, None, "--n_folds 1: .* at least 2 folds"),
        (make_table(n_speakers=3), 6, None, "3 speakers cannot make 6 folds.*--n_folds"),
        (
            make_table(n_rows=60),
            3,
            "expected_text",
            "2 expected_texts cannot make 3 folds",
        ),
        (make_table(n_rows=4), 5, "none", "4 rows cannot make 5 folds.*--n_folds"),
        (make_table(n_rows=1), 2, "none", "1 row cannot make 2 folds: .*add some"),
        (make_table(n_speakers=1), 2, None, "1 speaker cannot make 2 folds: --group_by none"),
        (
            make_table(n_speakers=2),
            6,
            None,
            "2 speakers cannot make 6 folds: choose 2 with --n_folds or --group_by none",
        ),
        (
            make_table().drop(columns="speaker"),
            6,
            "speaker",
            "folds by speaker: the metadata has no such column",
        ),
        # Three rows per label, fewer than folds.
        (
            make_table(n_rows=6, n_speakers=6),
            6,
            None,
            "6 rows .* too few .* 6 folds.*3 with --n_folds",
        ),
        (make_table(n_rows=2, n_speakers=2), 2, None, "2 rows are too few .* 2 folds: add rows"),
    ],
)
def test_impossible_splits_are_errors(
    table: pd.DataFrame, n_folds: int, group_by: str | None, message: str
) -> None:
    with pytest.raises(HearbackError, match=message):
        split(table, n_folds, group_by)
