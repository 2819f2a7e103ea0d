"""The ensemble within a time limit: what is worth most is run first, and there is always a score.

A pass over all clips counts as a whole: of a fold that could not hear all of them nothing is used,
so that every clip has scores of the same folds. The first pass is one fold's, the one that gains
most per second; from then on a complete submission is at hand. The next ones are the first folds of
the other models that fit, then further folds. Several run side by side (`passes.ModelGroup`), and where
time runs short within a pass, those worth least are given up and the others go on.

How long a fold takes is what training measured until a model's first pass here; that of models not
run yet is scaled by what the others took, here and in training. What is run of them is decided by
`budget.plan_rest`.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from scipy.special import entr

from hearback.engine.ensemble.budget import plan_rest, show_duration
from hearback.engine.errors import HearbackError
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.passes import Member, ModelGroup, Take

# Kept for what comes after the scores: the tables, and the process's end.
MARGIN_SECONDS = 2.0
MARGIN_SHARE = 0.02  # of the limit
MARGIN_OF_START = 0.1  # of what came before the scores: a machine slow then is slow afterwards
PLANNED_SHARE = 0.9  # of the time left: plans are no better than their guesses
LEAST_SHARE_HEARD = 0.05  # of a pass: what the first batches take says little of the others
DOUBT = 0.3  # at a pass's start, of how long the rest will take; none at its end
LEAST_SECONDS = 1e-6  # that a fold takes: a coarse clock may say that it took none
_STAT = Path("/proc/self/stat")
_STARTING_TICKS = 19  # among the fields after the process's name (man 5 proc)
_imported = time.monotonic()


def seconds_since_start() -> float:
    """Return how long this process has run; where the system does not say, since the import."""
    since_import = time.monotonic() - _imported
    if not (_STAT.exists() and hasattr(time, "CLOCK_BOOTTIME")):
        return since_import
    ticks = int(_STAT.read_text().rpartition(")")[2].split()[_STARTING_TICKS])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return max(age, since_import)


class Deadline:
    """A limit in seconds from the process's start, and how much of it is left for scoring."""

    def __init__(self, limit: float, clock: Callable[[], float] = seconds_since_start) -> None:
        """Make it when scoring begins; `clock` returns the seconds from the process's start."""
        self.clock = clock
        margin = MARGIN_SECONDS + MARGIN_SHARE * limit + MARGIN_OF_START * clock()
        self._end = limit - margin

    def left(self) -> float:
        """Return the seconds left for scoring: a margin is kept for what comes after."""
        return self._end - self.clock()


def check_can_choose(config: EnsembleConfig) -> None:
    """Raise HearbackError where the configuration lacks what decides what to run."""
    models = config.models_to_run
    timed = all(model.seconds_per_clip for model in models)
    if not timed or (len(models) > 1 and not config.fallbacks):
        raise HearbackError(
            "the ensemble's configuration does not say how long its folds take, or what to do "
            "without some of its models, so --time_limit cannot choose; write it again with "
            "python get_config.py (if that does not know either, train the models again)"
        )


@dataclass(eq=False)
class _Fold:
    member: Member
    group: int
    state: Literal["waiting", "running", "done", "given up"] = "waiting"
    share: float = 0.0  # of the clips, by what they cost, that it heard before it was given up

    @property
    def model(self) -> int:
        return self.member.model


class Hear(Protocol):
    """Run a crew on all clips of a group's plan: `ModelGroup.run` but for what is always the same."""

    def __call__(
        self,
        model_group: ModelGroup,
        group: int,
        take: Take,
        give_up: Callable[[float], Collection[int]],
    ) -> None:
        """Hand scores and words of clips to `take`, and ask `give_up` as `ModelGroup.run` does."""


@dataclass(frozen=True)
class Outcome:
    """What was scored in time.

    `config` is the ensemble of the folds that are in it, None where not one was finished; then
    `heard`, (rows,), tells the clips that the first one came to. `clips` are the probabilities,
    (rows,); `words` the mean log-odds of words, a row's laid out flat, or None. `left_out` says
    what was not run, and why.
    """

    config: EnsembleConfig | None
    clips: np.ndarray
    heard: np.ndarray
    words: np.ndarray | None
    left_out: tuple[str, ...]


class TimedRun:
    """An ensemble's folds, run while there is time."""

    def __init__(
        self,
        config: EnsembleConfig,
        groups: Sequence[Sequence[Member]],
        n_rows: int,
        deadline: Deadline,
    ) -> None:
        """Prepare to run `groups`, members of equal intake, on `n_rows` clips.

        Raises HearbackError where the configuration lacks what decides what to run.
        """
        self._config, self._deadline = config, deadline
        self._models = config.models_to_run
        check_can_choose(config)
        self._prior = np.array([m.seconds_per_clip or np.nan for m in self._models]) * n_rows
        self._measured = np.full(len(self._models), np.nan)
        cross_fitted = config.log_losses.get("cross_fitted", inf)
        self._options = [(np.array([m.weight for m in self._models]), cross_fitted)]
        for fallback in config.fallbacks:
            weights = np.array([fallback.weights.get(m.name, 0.0) for m in self._models])
            self._options.append((weights, fallback.log_loss))
        self._folds = [_Fold(m, number) for number, group in enumerate(groups) for m in group]
        self._planned: set[_Fold] = set()
        self._is_over = False  # not even one fold got to the end
        self._heard, self._rate = 0.0, 1.0  # of the pass under way: share, seconds per expected one
        self._clips = np.zeros((len(self._models), n_rows))
        self._words: dict[int, np.ndarray] = {}  # sums over folds, by model
        self._first: np.ndarray = np.full(n_rows, np.nan)  # of the first fold, as far as it came

    def run(
        self,
        load: Callable[[Iterable[Member]], Iterator[tuple[ModelGroup, list[Member]]]],
        hear: Hear,
        grades: np.ndarray,
    ) -> Outcome:
        """Run what there is time for and return what came of it.

        `load` is `passes.load_model_groups` but for what is always the same; `grades`, (rows,), are those
        of the metadata.
        """
        by_member = {id(fold.member): fold for fold in self._folds}
        while folds := self._next_folds():
            started = self._deadline.clock()
            for model_group, members in load(self._while_planned(folds)):
                self._run_crew(model_group, [by_member[id(m)] for m in members], started, hear)
                started = self._deadline.clock()
        return self._outcome(grades)

    # What to run

    @property
    def _seconds(self) -> np.ndarray:
        """What a fold of each model takes, as far as is known."""
        known = ~np.isnan(self._measured)
        pace = self._measured[known].sum() / self._prior[known].sum() if known.any() else 1.0
        return np.where(known, self._measured, pace * self._prior)

    @property
    def _is_first(self) -> bool:
        return all(fold.state != "done" for fold in self._folds)

    def _remaining(self, fold: _Fold) -> float:
        if fold.state == "done":
            return 0.0
        seconds = float(self._seconds[fold.model])
        if fold.state == "running":
            return self._rate * seconds * (1 - self._heard)
        return max(1.0, self._rate) * seconds  # a machine that is slow now may stay so

    def _plan(self, left: float) -> set[_Fold] | None:
        """Return the folds, done ones among them, that are worth most; None where none fits."""
        by_model = [
            sorted(
                (f for f in self._folds if f.model == model and f.state != "given up"),
                key=self._remaining,
            )
            for model in range(len(self._models))
        ]
        # A model of which all folds were given up cannot be run any more.
        seconds = [[self._remaining(fold) for fold in folds] or [inf] for folds in by_model]
        n_folds = plan_rest(self._options, seconds, left)
        if n_folds is None:
            return None
        return {f for folds, n in zip(by_model, n_folds, strict=True) for f in folds[:n]}

    def _next_folds(self) -> list[_Fold]:
        """Return the folds of the next pass, of one group; none where nothing more fits."""
        left = self._deadline.left()
        if self._is_over or left <= 0:
            return []
        plan = self._plan(PLANNED_SHARE * left)
        if self._is_first:
            waiting = [fold for fold in self._folds if fold.state == "waiting"]
            first = max(waiting, key=lambda fold: (fold in (plan or ()), self._worth(fold)))
            self._planned = plan or {first}
            return [first]
        self._planned = plan or set()
        waiting = [fold for fold in self._folds if fold in self._planned and fold.state != "done"]
        has_run = {fold.model for fold in self._folds if fold.state == "done"}
        new = {fold.model: fold for fold in reversed(waiting) if fold.model not in has_run}
        candidates = list(new.values()) or waiting
        heaviest = max(candidates, key=lambda f: self._models[f.model].weight, default=None)
        return [fold for fold in candidates if heaviest and fold.group == heaviest.group]

    def _worth(self, fold: _Fold) -> float:
        """Return what the model alone gains on the base rate, per second."""
        rate = self._config.base_rate(None)
        nothing = float(entr(rate) + entr(1 - rate))
        for weights, loss in self._options:
            if np.flatnonzero(weights).tolist() == [fold.model]:
                return (nothing - loss) / self._seconds[fold.model]
        return 0.0

    def _revise(self) -> None:
        """Plan again where what is planned does not fit any more."""
        left = self._deadline.left()
        needed = sum(map(self._remaining, self._planned))
        unheard = 1 - self._heard
        if needed > left * (1 + DOUBT * unheard):
            self._planned = self._plan(left * (1 - (1 - PLANNED_SHARE) * unheard)) or set()

    # A pass

    def _while_planned(self, folds: Iterable[_Fold]) -> Iterator[Member]:
        """Give members to load, as long as loading leaves time to run them."""
        for fold in folds:
            if not self._is_first:
                self._revise()
            if fold in self._planned:
                yield fold.member
            else:
                fold.state = "given up"

    def _run_crew(
        self, model_group: ModelGroup, folds: list[_Fold], started: float, hear: Hear
    ) -> None:
        """Run folds that are loaded since `started`; add up what those say that get to the end."""
        clock, expected = self._deadline.clock, self._seconds
        began = clock()
        running = dict(enumerate(folds))
        last = began  # when the last batch was done
        heard: dict[int, np.ndarray] = {}
        work = 0.0  # the seconds that were expected of what has been heard
        for fold in folds:
            fold.state = "running"

        def count(share: float) -> None:
            nonlocal work
            work += (share - self._heard) * sum(expected[f.model] for f in running.values())
            self._heard, self._rate = share, (clock() - began) / work

        def take(places: list[int], values: dict[int, np.ndarray]) -> None:
            for number, of_clips in values.items():
                if number not in heard:
                    heard[number] = np.full((self._clips.shape[1], of_clips.shape[1]), np.nan)
                heard[number][places] = of_clips

        def give_up(share: float) -> list[int]:
            nonlocal last
            count(share)
            batch_seconds, last = clock() - last, clock()
            if self._deadline.left() <= batch_seconds:  # the next one would be late
                self._planned.difference_update(folds)
                self._is_over = self._is_first
            elif self._is_first or share < LEAST_SHARE_HEARD:
                return []  # without the first fold there is nothing: it goes on while there is time
            else:
                self._revise()
            dropped = [number for number, fold in running.items() if fold not in self._planned]
            for number in dropped:
                fold = running.pop(number)
                fold.state, fold.share = "given up", share
                if not self._is_first:
                    del heard[number]
            return dropped

        hear(model_group, folds[0].group, take, give_up)
        if running:
            count(1.0)
        loading = (began - started) / len(folds)
        for model in {fold.model for fold in folds}:
            seconds = self._rate * expected[model] + loading
            self._measured[model] = max(seconds, LEAST_SECONDS)
        self._heard, self._rate = 0.0, 1.0
        if self._is_first and heard:
            self._first = heard[0][:, 0]
        for number, fold in running.items():
            self._add(fold, heard.pop(number))

    def _add(self, fold: _Fold, values: np.ndarray) -> None:
        fold.state = "done"
        self._clips[fold.model] += values[:, 0]
        if values.shape[1] > 1:
            former = self._words.get(fold.model, 0.0)
            self._words[fold.model] = former + values[:, 1:]

    # What came of it

    def _outcome(self, grades: np.ndarray) -> Outcome:
        done: dict[str, list[int]] = {model.name: [] for model in self._models}
        for fold in self._folds:
            if fold.state == "done":
                done[fold.member.files.model].append(fold.member.files.fold)
        config = self._config.of_those_run(done)
        left_out = tuple(self._say_left_out(done, config))
        if config is None:
            clips = self._score_first(grades)
            return Outcome(None, clips, ~np.isnan(clips), None, left_out)
        places = {model.name: place for place, model in enumerate(self._models)}
        means = [
            self._clips[places[model.name]] / len(model.folds) for model in config.models_to_run
        ]
        clips = config.predict(np.array(means), grades)
        heard = np.ones(len(clips), bool)
        return Outcome(config, clips, heard, self._mean_of_words(config, places), left_out)

    def _score_first(self, grades: np.ndarray) -> np.ndarray:
        """Return the probabilities of the clips that the first fold heard, NaN for the others."""
        clips = np.full(len(grades), np.nan)
        heard = ~np.isnan(self._first)
        first = next((fold for fold in self._folds if fold.share > 0), None)
        if first is None:
            return clips
        files = first.member.files
        alone = self._config.of_those_run({files.model: [files.fold]})
        if alone is not None:
            clips[heard] = alone.predict(self._first[None, heard], grades[heard])
        return clips

    def _mean_of_words(self, config: EnsembleConfig, places: dict[str, int]) -> np.ndarray | None:
        scoring = config.words.models if config.words is not None else ()
        models = [m for m in config.models_to_run if m.name in scoring]
        if not models:
            return None
        means = [self._words[places[model.name]] / len(model.folds) for model in models]
        return np.average(means, axis=0, weights=[model.weight for model in models])

    def _say_left_out(
        self, done: dict[str, list[int]], config: EnsembleConfig | None
    ) -> Iterator[str]:
        used = {model.name for model in config.models} if config else set()
        for place, model in enumerate(self._models):
            of_model = [fold for fold in self._folds if fold.model == place]
            takes = f"a fold takes about {show_duration(self._seconds[place])} here"
            if done[model.name] and config and model.name not in used:
                yield (
                    f"{_name(model.name, done[model.name])}: run, and not used, for nothing was "
                    "fitted to it and to the other models that were run"
                )
            begun = [f for f in of_model if f.state == "given up" and f.share]
            for share in sorted({f.share for f in begun}):
                numbers = [f.member.files.fold for f in begun if f.share == share]
                yield (
                    f"{_name(model.name, numbers)}: given up with {share:.0%} heard, for time ran "
                    f"short; {takes}"
                )
            numbers = [f.member.files.fold for f in of_model if f.state != "done" and not f.share]
            if numbers:
                yield f"{_name(model.name, numbers)}: not run, for lack of time; {takes}"


def _name(model: str, folds: Sequence[int]) -> str:
    return f"{model} fold{'s' * (len(folds) > 1)} {' '.join(map(str, folds))}"
