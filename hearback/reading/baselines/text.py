"""The text baseline: n-grams of the expected text and its length, without the recording."""

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

from hearback.reading.baselines.base import (
    BaselineOptions,
    Inputs,
    context_columns,
    context_features,
    logistic_regression,
)
from hearback.reading.dataset import TrainingData


def text_inputs(data: TrainingData, options: BaselineOptions) -> Inputs:
    """Return the inputs of the text baseline."""
    return Inputs(text_features(data.metadata))


def text_features(metadata: pd.DataFrame) -> pd.DataFrame:
    """Return the text, its length in words and letters, task and grade, a row per clip."""
    texts = metadata["expected_text"].reset_index(drop=True)
    lengths = {
        "words": texts.str.split().str.len(),
        "letters": texts.str.replace(" ", "").str.len(),
    }
    return pd.concat([pd.DataFrame({"text": texts, **lengths}), context_features(metadata)], axis=1)


def text_estimator() -> GridSearchCV:
    """Return a logistic regression on n-grams of the column `text` and the numeric columns."""
    numbers = [*context_columns(), "words", "letters"]
    return logistic_regression(
        ColumnTransformer(
            [
                ("letters", TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4)), "text"),
                # A word may be one letter long.
                ("words", TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+"), "text"),
                ("numbers", StandardScaler(), numbers),
            ]
        )
    )
