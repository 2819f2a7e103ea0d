"""The correction of scores for the length of long texts: score.py's, and infer.py's.

Where an ensemble has a token scorer, score.py corrects recordings of over 8 s, and infer.py those
of over 16 s, the longest of a training.

The logit of a well-read text falls with its length, because the models learned from short texts: by
`LENGTH_SLOPE` times the logarithm of the number of words, relative to `USUAL_WORDS`. Where the
words are a member of the ensemble, which have a rule of their own for long texts
(`word_calibration.noisy_and`), it falls no further from `MOST_WORDS_CORRECTED` words on.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from hearback.engine.evaluation.logistic import SMALLEST_PROBABILITY, logit
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.window_batches import WINDOW_SAMPLES

if TYPE_CHECKING:
    from hearback.reading.inference.predict import Predictions
    from hearback.reading.pairs import PairSource

USUAL_WORDS = 12.0
LENGTH_SLOPE = 2.2
MOST_WORDS_CORRECTED = 32.0  # of ensembles with the words as a member


def most_words_corrected(config: EnsembleConfig | None) -> float:
    """Return the number of words from which on an ensemble's correction is the same.

    None: no ensemble is finished, and one fold has scored.
    """
    return MOST_WORDS_CORRECTED if config is not None and config.words_weight else np.inf


def correct_length(
    probabilities: np.ndarray, n_words: np.ndarray, most_words: float = np.inf
) -> np.ndarray:
    """Return the probabilities of texts, (texts,), corrected for their number of words.

    Texts of more than `most_words` words (`most_words_corrected`) count as that many.
    """
    longer = np.log(np.clip(n_words, USUAL_WORDS, most_words) / USUAL_WORDS)
    return expit(logit(probabilities, SMALLEST_PROBABILITY) + LENGTH_SLOPE * longer)


def correct_long_rows(
    probabilities: np.ndarray,
    n_samples: np.ndarray,
    n_words: np.ndarray,
    *,
    longest: int,
    most_words: float,
) -> np.ndarray:
    """Return the probabilities of recordings, (rows,), as `correct_longer` does.

    `n_samples` and `n_words`, (rows,), are of the recordings and of their texts; `longest` is the
    number of samples at which recordings are cut; `most_words` is as in `correct_length`.
    """
    is_long = n_samples > WINDOW_SAMPLES
    if longest == WINDOW_SAMPLES or not is_long.any():
        return probabilities
    return np.where(is_long, correct_length(probabilities, n_words, most_words), probabilities)


def correct_longer(
    predictions: "Predictions", source: "PairSource", most_words: float
) -> "Predictions":
    """Return predictions in which texts of recordings of over 16 s are corrected for their length.

    Only where `source` has windows of over 16 s: other models do not hear these recordings whole.
    """
    n_samples = np.array([source.store.n_samples(name) for name in source.filenames])
    n_words = np.array([len(text.split()) for text in source.texts])
    clips = predictions.clips
    corrected = correct_long_rows(
        clips, n_samples, n_words, longest=source.longest, most_words=most_words
    )
    return predictions if corrected is clips else replace(predictions, clips=corrected)
