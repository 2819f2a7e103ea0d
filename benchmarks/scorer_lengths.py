"""A scorer at several lengths, paired: each long recording contains a short one.

`benchmarks.passages --scorer` prints it. Each fold scores speakers that it did not learn from, as
`score.py` does, with that fold of each model.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.joined_clips import JoinedClips, Joiner, as_source
from benchmarks.mispronounced import LENGTHS as MISPRONOUNCED_LENGTHS
from benchmarks.mispronounced import draw_mispronounced
from benchmarks.speeds import load_data_of
from hearback.engine.ensemble.calibration import fit_calibration
from hearback.engine.evaluation.bootstrap import bootstrap_interval
from hearback.reading.dataset import TrainingData
from hearback.reading.inference.predict import Predictions
from hearback.reading.scoring.ensemble import LoadedEnsemble
from hearback.reading.scoring.scorer import Scorer
from hearback.reading.words import SAID

LENGTHS = (5.0, 10.0, 14.0, 20.0, 28.0)  # seconds
MARGIN_SECONDS = 0.15
PRECISION = "float32"
_LABELS = (1, 0)  # of a recording's rows: the text as read, then with a changed word


@dataclass(frozen=True)
class ScoredLength:
    """The scores of recordings of one length.

    Attributes:
        joined: the recordings.
        draws: (recordings,), the number of the draw that each is of.
        scores: (recordings, 2), of the text as read and of the wrong one.
        finds_word: (recordings,) bool: the wrong word has the lowest score.
    """

    joined: Sequence[JoinedClips]
    draws: np.ndarray
    scores: np.ndarray
    finds_word: np.ndarray

    @property
    def losses(self) -> np.ndarray:
        """The mean log loss of a recording's two texts, (recordings,), in nats."""
        right, wrong = np.clip(self.scores, 1e-7, 1 - 1e-7).T
        return -(np.log(right) + np.log1p(-wrong)) / 2


def print_lengths(arguments: argparse.Namespace) -> None:
    """Print a table for each fold of the scorer and for all, and differences of log losses.

    `arguments.mispronounced` are further recordings of each fold in which a word is mispronounced.
    """
    found: list[list[ScoredLength]] = []
    wrong: list[list[np.ndarray]] = []
    seconds = sorted(arguments.seconds or LENGTHS)
    for fold, ensemble, data in read_folds(arguments):
        rows = data.validation_rows(fold)
        joiner = Joiner(data, rows, MARGIN_SECONDS, arguments.seed)
        draws = joiner.draw_nested(seconds, arguments.recordings)
        found.append([score_length(ensemble, data, draws, at) for at in range(len(seconds))])
        print(f"{arguments.scorer} fold {fold}\n{show(found[-1])}", flush=True)
        others = draw_mispronounced(joiner, rows, arguments.mispronounced, arguments.seed)
        wrong.append([predict(ensemble, data, each).clips for each in zip(*others, strict=True)])
    together = [join_folds(of_length) for of_length in zip(*found, strict=True)]
    print(f"{arguments.scorer}, all folds\n{show(together)}")
    for at in range(1, len(seconds)):
        print(compare(found, 0, at))
    for at, each in enumerate(MISPRONOUNCED_LENGTHS):
        scores = [of_fold[at] for of_fold in wrong if of_fold]
        if scores:
            nearest = int(np.argmin(np.abs(np.array(seconds) - each)))
            described = describe_wrong(together[nearest].scores[:, 0], np.concatenate(scores))
            print(f"a word mispronounced, {each:g} s, against {seconds[nearest]:g} s: {described}")


def read_folds(
    arguments: argparse.Namespace,
) -> Iterator[tuple[int, LoadedEnsemble, TrainingData]]:
    """Yield each fold that all models of a scorer have, alone, and the data it was trained on."""
    scorer = Scorer.load(arguments.scorer, device=arguments.device, precision=PRECISION)
    ensemble, data = scorer.ensemble, None
    models = ensemble.config.models_to_run
    for fold in sorted(set.intersection(*(set(model.folds) for model in models))):
        config = ensemble.config.restrict_to({model.name: [fold] for model in models})
        assert config is not None
        folds = [each for each in ensemble.folds if each.files.fold == fold]
        if data is None:
            metadata = folds[0].metadata
            data = load_data_of(metadata, arguments.data, None, arguments.store)
        yield fold, LoadedEnsemble(config, folds, ensemble.device, ensemble.dtype), data


def score_length(
    ensemble: LoadedEnsemble,
    data: TrainingData,
    draws: Sequence[Sequence[JoinedClips]],
    length: int,
) -> ScoredLength:
    """Score the draws' recordings of one length with both of their texts, as `score.py` does."""
    with_length = [number for number, draw in enumerate(draws) if len(draw) > length]
    joined = [draws[number][length] for number in with_length]
    if not joined:
        return ScoredLength([], np.empty(0, int), np.empty((0, 2)), np.empty(0, bool))
    found = predict(ensemble, data, joined)
    ranks = [rank_of_wrong_word(found, 2 * at + 1, each) for at, each in enumerate(joined)]
    scores, finds_word = found.clips.reshape(-1, 2), np.array(ranks) == 0
    return ScoredLength(joined, np.array(with_length), scores, finds_word)


def predict(
    ensemble: LoadedEnsemble, data: TrainingData, joined: Sequence[JoinedClips]
) -> Predictions:
    """Return the scores of the rows of `as_source`, as `score.py` gives them."""
    source = as_source(data, joined)
    passages = ensemble.split(source)
    by_window, _ = ensemble.predict(passages.source, passages.grades(np.array(source.grades)))
    return passages.merge(by_window)


def rank_of_wrong_word(predictions: Predictions, row: int, joined: JoinedClips) -> int:
    """Return how many words of the wrong text have lower log-odds than the wrong one.

    A word is left out in some texts: the wrong one is then that before or after the gap, whichever
    is lower.
    """
    assert predictions.words is not None
    n_words = len(joined.wrong_text.split())
    said = predictions.words[row, :n_words, SAID]
    return int((said < said[list(joined.wrong_words)].min()).sum())


def join_folds(parts: Sequence[ScoredLength]) -> ScoredLength:
    """Return the scores of one length of several folds together."""
    return ScoredLength(
        [joined for part in parts for joined in part.joined],
        np.concatenate([part.draws for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.finds_word for part in parts]),
    )


def show(lengths: Sequence[ScoredLength]) -> str:
    """Return a table with a line for each length."""
    lines = [describe(each) for each in lengths if each.joined]
    return pd.DataFrame(lines).round(3).to_string(index=False)


def describe(found: ScoredLength) -> dict[str, float]:
    """Return a line of the table.

    "best log loss" is that after a calibration fitted to the same scores: what the ranking allows.
    """
    joined, labels = found.joined, np.tile(_LABELS, len(found.joined))
    scores = found.scores.ravel()
    no_groups = np.full(len(scores), "")
    calibrated = fit_calibration("platt", scores, labels, no_groups).apply(scores, no_groups)
    return {
        "seconds": float(np.mean([each.seconds for each in joined])),
        "words": float(np.mean([len(each.text.split()) for each in joined])),
        "recordings": len(joined),
        "speakers": len({each.speaker for each in joined}),
        "AUC": float(roc_auc_score(labels, scores)),
        "log loss": float(log_loss(labels, scores)),
        "best log loss": float(log_loss(labels, calibrated)),
        "mean as read": float(found.scores[:, 0].mean()),
        "mean wrong": float(found.scores[:, 1].mean()),
        "lowest word is wrong": float(found.finds_word.mean()),
    }


def describe_wrong(as_read: np.ndarray, wrong: np.ndarray) -> str:
    """Return how the scores of wrong recordings compare with those of texts as read."""
    labels = np.repeat(_LABELS, [len(as_read), len(wrong)])
    area = roc_auc_score(labels, np.concatenate([as_read, wrong]))
    return (
        f"mean score {wrong.mean():.3f} of {len(wrong)}, AUC {area:.3f} against {len(as_read)} "
        "as read"
    )


def compare(folds: Sequence[Sequence[ScoredLength]], short: int, long: int) -> str:
    """Return the paired difference of log losses of two lengths, with its interval by speakers."""
    pairs = [(lengths[short], lengths[long]) for lengths in folds]
    differences = [
        of_long.losses - of_short.losses[np.isin(of_short.draws, of_long.draws)]
        for of_short, of_long in pairs
    ]
    values = np.concatenate(differences)
    if not len(values):
        return "no speaker has enough speech"
    speakers = np.array([each.speaker for _, of_long in pairs for each in of_long.joined])
    low, high = bootstrap_interval(values, speakers, np.random.default_rng(0))
    names = [np.mean([each.seconds for pair in pairs for each in pair[at].joined]) for at in (0, 1)]
    return (
        f"log loss at {names[1]:.1f} s less that at {names[0]:.1f} s, {len(values)} pairs of "
        f"{len(np.unique(speakers))} speakers: {values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
    )
