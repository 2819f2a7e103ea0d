"""Sample the examples of an epoch: every clip with its own text, and negatives."""

import contextlib
import math
from collections.abc import Mapping, Sequence

import numpy as np

from hearback.reading.dataset import TrainingData
from hearback.reading.hard_negatives import (
    HardNegative,
    HardNegativeGenerator,
    NoHardNegativeError,
    read_hard_negatives,
)
from hearback.reading.joined_clips import ClipJoiner, JoinedClips, draw_fixed
from hearback.reading.pairings import SCORES_WORDS
from hearback.reading.pairs import Example, HardNegativeText
from hearback.reading.recipe import Recipe
from hearback.reading.tables import GRADES


class EpochSampler:
    """Samples the epochs of one fold.

    Each clip appears once with its own text, or as often as `recipe.repeats_by_grade` specifies.
    Negative examples pair a correct clip with another text. Two kinds are added; their numbers are
    multiples of the number of correct clips:

    - `recipe.negatives`: the text of another row of the same task.
    - `recipe.hard_negatives`: a text that differs in a word or a sound. For models that compare
      with reference speech, they are separate examples, from the texts that preprocess.py has
      rendered. For models that score words, they are generated on the fly and scored on the same
      recording.

    Where words have labels, two fields of a recipe that uses these apply:

    - `recipe.read_texts`: clips with another expected text than the one that was read are also
      paired with that. The label is the experts' probability that it is correct.
    - `recipe.soft_labels`: this probability, for the clip's own text, has a weight in its label.

    `recipe.joined_clips`, a multiple of the number of clips, adds several clips of one speaker as
    one recording (`joined_clips`). Its label is the product of theirs.

    Args:
        recipe: the recipe.
        data: the training set.
        rows: (rows,), indices of the fold's training rows.

    Raises:
        HearbackError: the recipe needs rendered hard negatives and there are none, or joins clips
            and no two can be joined.
    """

    def __init__(self, recipe: Recipe, data: TrainingData, rows: np.ndarray) -> None:
        self.recipe, self.data, self.rows = recipe, data, rows
        self._grades = data.metadata["grade"].to_numpy(dtype=str)
        self._repeats_of = dict(zip(GRADES, recipe.repeats_by_grade, strict=True))
        texts = [data.source.texts[row] for row in rows]
        self._generator: HardNegativeGenerator | None = None
        self._rendered: Mapping[str, Sequence[HardNegative]] = {}
        if recipe.hard_negatives and recipe.pair in SCORES_WORDS:
            self._generator = HardNegativeGenerator(texts)
        elif recipe.hard_negatives:
            self._rendered = read_hard_negatives(data.source.references.folder)
        self._joiner: ClipJoiner | None = None
        self._fixed_joined: Sequence[JoinedClips] = ()
        if recipe.joined_clips and recipe.n_augmented:
            known = set(rows.tolist())
            self._fixed_joined = [
                each for each in draw_fixed(recipe, data) if known >= {*each.rows}
            ]
        elif recipe.joined_clips:
            self._joiner = ClipJoiner(data, rows)

    def sample_epoch(self, rng: np.random.Generator) -> list[Example]:
        """Return an epoch's examples, in random order."""
        source, labels = self.data.source, self.data.labels
        texts = source.texts
        rows = self._repeat_rows(rng)
        correct = np.flatnonzero(labels[rows] == 1)  # indices into `rows`; a clip may repeat
        n_hard = round(self.recipe.hard_negatives * len(correct))
        examples = []
        hard_negatives: dict[int, list[HardNegativeText]] = {}
        for index in np.resize(rng.permutation(correct), n_hard):
            row = int(rows[index])
            if self._generator is not None:
                try:
                    negative = self._generator.draw(texts[row], rng)
                except NoHardNegativeError:
                    continue
                hard_negatives.setdefault(index, []).append(hard_negative_text(negative))
            elif rendered := self._rendered.get(texts[row]):
                negative = rendered[int(rng.integers(len(rendered)))]
                examples.append(Example(row, negative.text, 0.0, is_negative=True))
        examples += [
            Example(
                row,
                texts[row],
                self._label(row),
                hard_negatives=tuple(hard_negatives.get(index, ())),
            )
            for index, row in enumerate(map(int, rows))
        ]
        examples += self._sample_negatives(rows[correct], rng)
        if self.recipe.read_texts:
            examples += self._sample_read_texts(rng)
        examples += [self._joined_example(joined, rng) for joined in self._sample_joined(rng)]
        return [examples[index] for index in rng.permutation(len(examples))]

    def _repeat_rows(self, rng: np.random.Generator) -> np.ndarray:
        """Return the rows with the repeats of their grades; fractions are rounded at random."""
        repeats = np.array([self._repeats_of[grade] for grade in self._grades[self.rows]])
        whole = repeats.astype(np.intp)
        if (repeats == whole).all():
            return np.repeat(self.rows, whole)
        return np.repeat(self.rows, whole + (rng.random(len(repeats)) < repeats - whole))

    def _label(self, row: int) -> float:
        """Return a clip's label for its own text, softened by the recipe."""
        label, weight = float(self.data.labels[row]), self.recipe.soft_labels
        read = self.data.word_labels.get(self.data.source.filenames[row]) if weight else None
        if read is None:
            return label
        return (1 - weight) * label + weight * read.probability(self.data.source.texts[row])

    def _sample_read_texts(self, rng: np.random.Generator) -> list[Example]:
        """Return clips with the text that was read, where it is not the expected one.

        Each has a hard negative if the recipe has any.
        """
        source = self.data.source
        examples = []
        for row in map(int, self.rows):
            read = self.data.word_labels.get(source.filenames[row])
            if read is None or read.text == source.texts[row]:
                continue
            if rng.random() < self.recipe.read_texts:
                hard_negatives = self._draw_hard_negative(read.text, rng)
                label = read.probability(read.text)
                examples.append(Example(row, read.text, label, hard_negatives=hard_negatives))
        return examples

    def _draw_hard_negative(
        self, text: str, rng: np.random.Generator
    ) -> tuple[HardNegativeText, ...]:
        """Return a hard negative of any text; none if there is none, or the recipe has none."""
        if self._generator is not None:
            with contextlib.suppress(NoHardNegativeError):
                return (hard_negative_text(self._generator.draw(text, rng)),)
        return ()

    def _sample_joined(self, rng: np.random.Generator) -> Sequence[JoinedClips]:
        """Return the joined clips of an epoch: others in each, or those that are encoded."""
        if self._joiner is None:
            return self._fixed_joined
        return self._joiner.draw(round(self.recipe.joined_clips * len(self.rows)), rng)

    def _joined_example(self, joined: JoinedClips, rng: np.random.Generator) -> Example:
        """Return joined clips with their text; all correct ones with a hard negative."""
        text = joined.text(self.data.source.texts)
        all_correct = all(self.data.labels[row] == 1 for row in joined.rows)
        return Example(
            joined.rows[0],
            text,
            math.prod(map(self._label, joined.rows)),
            hard_negatives=self._draw_hard_negative(text, rng) if all_correct else (),
            joined=joined,
        )

    def _sample_negatives(self, correct: np.ndarray, rng: np.random.Generator) -> list[Example]:
        """Return correct clips with the texts of other rows of their task."""
        tasks = self.data.metadata["task"].to_numpy(dtype=str)
        texts = self.data.source.texts
        examples = []
        for task in np.unique(tasks[self.rows]):
            of_task = correct[tasks[correct] == task]
            n_negatives = round(self.recipe.negatives * len(of_task))
            learners = np.resize(rng.permutation(of_task), n_negatives)
            others = rng.choice(self.rows[tasks[self.rows] == task], n_negatives)
            examples += [
                Example(int(learner), texts[other], 0.0, is_negative=True)
                for learner, other in zip(learners, others, strict=True)
                if texts[learner] != texts[other]
            ]
        return examples


def hard_negative_text(negative: HardNegative) -> HardNegativeText:
    """Return a hard negative with its word targets: 0 where it is wrong, 1 elsewhere."""
    n_words = len(negative.text.split())
    said = np.ones(n_words, dtype=np.float32)
    complete = np.ones(n_words + 1, dtype=np.float32)
    said[list(negative.wrong)] = 0
    if negative.gap is not None:
        complete[negative.gap] = 0
    return HardNegativeText(negative.text, said, complete)
