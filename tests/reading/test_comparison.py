"""Paired differences of predictions."""

import numpy as np
import pandas as pd
import pytest

from hearback.reading import comparison, evaluation


@pytest.fixture
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    score = np.tile([0, 1], 20)
    return pd.DataFrame(
        {
            "filename": [f"{at}.wav" for at in range(40)],
            "speaker": [f"s{at % 12}" for at in range(40)],
            "grade": np.repeat(["KG", "2"], 20),
            "cause": np.where(score == 1, "", np.repeat(["changed", "2", "all", "noise"], 10)),
            "score": score,
            "pred": np.clip(score * 0.6 + rng.uniform(0.1, 0.3, 40), 0, 1),
        }
    )


def test_rows_in_any_order_and_some_of_them_have_no_difference_to_themselves(
    rows: pd.DataFrame,
) -> None:
    for own in (rows.sample(frac=1, random_state=1), rows[rows["grade"] == "2"]):
        found = comparison.differences(own, own["pred"].to_numpy())
        assert np.allclose(found[["difference", "low", "high"]], 0)
        assert np.allclose(found["here"], found["there"])


def test_causes_replace_no_grade(rows: pd.DataFrame) -> None:
    parts = evaluation.parts_by_grade_and_cause(rows)
    sizes = {name: len(part) for name, part in parts.items()}
    assert sizes == {
        **{"KG": 20, "2": 20, "KG and 1": 20},
        **{"cause 2": 5, "cause all": 5, "changed": 5, "noise": 5},
    }
    found = comparison.differences(rows, np.full(40, 0.5))
    assert found.loc["all", "rows"] == 40
    assert evaluation.intervals_by_part(rows).index.tolist() == list(parts)
