"""An epoch's draws: every clip with its own text, and what some clips do not say."""

from collections.abc import Mapping, Sequence

import numpy as np

from hearback.reading.dataset import TrainingData
from hearback.reading.hard_negatives import NearMiss, NearMisses, NoNearMiss, read_near_misses
from hearback.reading.pairs import Draw, OtherText
from hearback.reading.recipe import Recipe
from hearback.reading.tables import GRADES


class Drawer:
    """Draws the epochs of one fold, with what the recipe wants beside the clips' own texts.

    Each clip comes with its own text once, or as often as `recipe.draws_by_grade` says.
    A clip that says its text says neither another one nor a near miss. So the correct clips come
    with both, `recipe.negatives` and `recipe.near_misses` times as many as there are correct clips.
    Where the model listens to the reference, these are draws of their own, and near misses those
    that preprocess.py rendered; where it reads, a near miss is made up on the spot and read against
    the same recording.
    """

    def __init__(self, recipe: Recipe, data: TrainingData, rows: np.ndarray) -> None:
        self.recipe, self.data, self.rows = recipe, data, rows
        self._grades = data.metadata["grade"].to_numpy(dtype=str)
        self._times_of = dict(zip(GRADES, recipe.draws_by_grade, strict=True))
        texts = [data.source.texts[row] for row in rows]
        self._maker: NearMisses | None = None
        self._rendered: Mapping[str, Sequence[NearMiss]] = {}
        if recipe.near_misses and recipe.pair == "tokens":
            self._maker = NearMisses(texts)
        elif recipe.near_misses:
            self._rendered = read_near_misses(data.source.references.folder)

    def draw(self, rng: np.random.Generator) -> list[Draw]:
        """Return an epoch's draws, in random order."""
        source, labels = self.data.source, self.data.labels
        texts = source.texts
        rows = self._repeated(rng)
        correct = np.flatnonzero(labels[rows] == 1)  # places in `rows`, where a clip may be twice
        n_near = round(self.recipe.near_misses * len(correct))
        draws = []
        others: dict[int, list[OtherText]] = {}
        for place in np.resize(rng.permutation(correct), n_near):
            row = int(rows[place])
            if self._maker is not None:
                try:
                    near = self._maker.draw(texts[row], rng)
                except NoNearMiss:
                    continue
                others.setdefault(place, []).append(other_text(near))
            elif rendered := self._rendered.get(texts[row]):
                near = rendered[int(rng.integers(len(rendered)))]
                draws.append(Draw(row, near.text, 0.0, made=True))
        draws += [
            Draw(row, texts[row], float(labels[row]), others=tuple(others.get(place, ())))
            for place, row in enumerate(map(int, rows))
        ]
        draws += self._other_texts(rows[correct], rng)
        return [draws[place] for place in rng.permutation(len(draws))]

    def _repeated(self, rng: np.random.Generator) -> np.ndarray:
        """Return the rows as often as the epoch has them: of a fraction, each as chance decides."""
        times = np.array([self._times_of[grade] for grade in self._grades[self.rows]])
        whole = times.astype(np.intp)
        if (times == whole).all():
            return np.repeat(self.rows, whole)
        return np.repeat(self.rows, whole + (rng.random(len(times)) < times - whole))

    def _other_texts(self, correct: np.ndarray, rng: np.random.Generator) -> list[Draw]:
        """Return correct clips with the texts of other rows of their task."""
        tasks = self.data.metadata["task"].to_numpy(dtype=str)
        texts = self.data.source.texts
        draws = []
        for task in np.unique(tasks[self.rows]):
            of_task = correct[tasks[correct] == task]
            n_wanted = round(self.recipe.negatives * len(of_task))
            learners = np.resize(rng.permutation(of_task), n_wanted)
            others = rng.choice(self.rows[tasks[self.rows] == task], n_wanted)
            draws += [
                Draw(int(learner), texts[other], 0.0, made=True)
                for learner, other in zip(learners, others, strict=True)
                if texts[learner] != texts[other]
            ]
        return draws


def other_text(near: NearMiss) -> OtherText:
    """Return a near miss with what is known of its words: all that is wrong with it."""
    n_words = len(near.text.split())
    said = np.ones(n_words, dtype=np.float32)
    complete = np.ones(n_words + 1, dtype=np.float32)
    said[list(near.wrong)] = 0
    if near.gap is not None:
        complete[near.gap] = 0
    return OtherText(near.text, said, complete)
