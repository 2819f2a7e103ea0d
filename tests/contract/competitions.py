"""What the contract tests know of a competition: its tiny data, recipes and training task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from hearback.engine.training.command import MakeTask, train_fold
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata
from hearback.engine.training.options import FoldOptions
from hearback.engine.training.recipe import FoldRecipe


@dataclass(frozen=True)
class Competition:
    """A competition on tiny data, with three folds.

    Attributes:
        options: of trainings on the data, which write to the test's own folder.
        recipes: quick recipes of two epochs, by a short name; the first is the default.
        make_task: the training task.
        program: arguments for Python that train the recipes' model.
        log_loss: computes the log loss of a table of out-of-fold predictions.
    """

    options: FoldOptions
    recipes: Mapping[str, FoldRecipe]
    make_task: MakeTask
    program: Sequence[str]
    log_loss: Callable[[pd.DataFrame], float]

    @property
    def recipe(self) -> FoldRecipe:
        """The default recipe."""
        return next(iter(self.recipes.values()))

    def train(
        self, recipe: FoldRecipe | None = None, fold: int = 0, attempt: int = 1, **changes: Any
    ) -> FoldMetadata:
        """Train a fold; `changes` replace fields of the options."""
        options = replace(self.options, **changes)
        return train_fold(
            self.make_task,
            recipe or self.recipe,
            fold,
            options,
            options.load_data(),
            attempt=attempt,
            program=self.program,
        )

    def files(self, model: str | None = None, fold: int = 0) -> FoldFiles:
        """Return the files of a fold, of the default recipe's model unless `model` is given."""
        return FoldFiles(self.options.assets, model or self.recipe.name, fold)
