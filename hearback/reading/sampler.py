"""An epoch's examples: every clip with its own text, and what some clips do not say."""

from collections.abc import Mapping, Sequence

import numpy as np

from hearback.reading.dataset import TrainingData
from hearback.reading.hard_negatives import (
    HardNegative,
    HardNegativeGenerator,
    NoHardNegative,
    read_hard_negatives,
)
from hearback.reading.pairs import Example, OtherText
from hearback.reading.recipe import Recipe
from hearback.reading.tables import GRADES


class EpochSampler:
    """Draws the epochs of one fold, with what the recipe wants beside the clips' own texts.

    Each clip comes with its own text once, or as often as `recipe.repeats_by_grade` says.
    A clip that says its text says neither another one nor a hard negative. So the correct clips come
    with both, `recipe.negatives` and `recipe.hard_negatives` times as many as there are correct clips.
    Where the model listens to the reference, these are examples of their own, and hard negatives those
    that preprocess.py rendered; where it reads, a hard negative is made up on the spot and read against
    the same recording.
    """

    def __init__(self, recipe: Recipe, data: TrainingData, rows: np.ndarray) -> None:
        self.recipe, self.data, self.rows = recipe, data, rows
        self._grades = data.metadata["grade"].to_numpy(dtype=str)
        self._times_of = dict(zip(GRADES, recipe.repeats_by_grade, strict=True))
        texts = [data.source.texts[row] for row in rows]
        self._maker: HardNegativeGenerator | None = None
        self._rendered: Mapping[str, Sequence[HardNegative]] = {}
        if recipe.hard_negatives and recipe.pair == "tokens":
            self._maker = HardNegativeGenerator(texts)
        elif recipe.hard_negatives:
            self._rendered = read_hard_negatives(data.source.references.folder)

    def draw(self, rng: np.random.Generator) -> list[Example]:
        """Return an epoch's examples, in random order."""
        source, labels = self.data.source, self.data.labels
        texts = source.texts
        rows = self._repeated(rng)
        correct = np.flatnonzero(labels[rows] == 1)  # places in `rows`, where a clip may be twice
        n_hard = round(self.recipe.hard_negatives * len(correct))
        examples = []
        others: dict[int, list[OtherText]] = {}
        for place in np.resize(rng.permutation(correct), n_hard):
            row = int(rows[place])
            if self._maker is not None:
                try:
                    near = self._maker.draw(texts[row], rng)
                except NoHardNegative:
                    continue
                others.setdefault(place, []).append(other_text(near))
            elif rendered := self._rendered.get(texts[row]):
                near = rendered[int(rng.integers(len(rendered)))]
                examples.append(Example(row, near.text, 0.0, is_negative=True))
        examples += [
            Example(row, texts[row], float(labels[row]), others=tuple(others.get(place, ())))
            for place, row in enumerate(map(int, rows))
        ]
        examples += self._other_texts(rows[correct], rng)
        return [examples[place] for place in rng.permutation(len(examples))]

    def _repeated(self, rng: np.random.Generator) -> np.ndarray:
        """Return the rows as often as the epoch has them: of a fraction, each as chance decides."""
        times = np.array([self._times_of[grade] for grade in self._grades[self.rows]])
        whole = times.astype(np.intp)
        if (times == whole).all():
            return np.repeat(self.rows, whole)
        return np.repeat(self.rows, whole + (rng.random(len(times)) < times - whole))

    def _other_texts(self, correct: np.ndarray, rng: np.random.Generator) -> list[Example]:
        """Return correct clips with the texts of other rows of their task."""
        tasks = self.data.metadata["task"].to_numpy(dtype=str)
        texts = self.data.source.texts
        examples = []
        for task in np.unique(tasks[self.rows]):
            of_task = correct[tasks[correct] == task]
            n_wanted = round(self.recipe.negatives * len(of_task))
            learners = np.resize(rng.permutation(of_task), n_wanted)
            others = rng.choice(self.rows[tasks[self.rows] == task], n_wanted)
            examples += [
                Example(int(learner), texts[other], 0.0, is_negative=True)
                for learner, other in zip(learners, others, strict=True)
                if texts[learner] != texts[other]
            ]
        return examples


def other_text(near: HardNegative) -> OtherText:
    """Return a hard negative with what is known of its words: all that is wrong with it."""
    n_words = len(near.text.split())
    said = np.ones(n_words, dtype=np.float32)
    complete = np.ones(n_words + 1, dtype=np.float32)
    said[list(near.wrong)] = 0
    if near.gap is not None:
        complete[near.gap] = 0
    return OtherText(near.text, said, complete)
