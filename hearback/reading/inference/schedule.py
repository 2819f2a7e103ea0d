"""Which folds run next, and which of them stop early, so that inference keeps a time limit.

Without a limit all folds run, those of one input format side by side.

Within a limit the order is: first the single fold that gains most per second, so that a complete
submission exists as early as possible; then the first folds of the other models that fit; then
further folds. A fold counts only if it has scored all clips, so that every clip has scores of the
same folds. When time runs short during a pass, the least valuable folds stop and the rest continue.

A fold is expected to take as long as its model took here. If the model has not run yet, that is the
duration that training measured, scaled by the ratio of both durations over the models that have
run. `hearback.engine.ensemble.budget.plan_remaining` decides which folds are worth running.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import scipy  # imports its parts as they are used

from hearback.engine.ensemble.budget import plan_remaining
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.folds import EnsembleFold
from hearback.reading.inference.time_limit import Deadline, check_can_schedule

PLANNED_SHARE = 0.9  # of the time left: estimated durations are inexact
MIN_SHARE_TO_REVISE = 0.05  # of a pass: the first batches predict the rest poorly
UNCERTAINTY = 0.3  # relative, of the remaining duration when a pass starts; none at its end
MIN_SECONDS = 1e-6  # of a fold: a coarse clock may measure zero


@dataclass
class _Pass:
    """The current pass over the data: the folds that run side by side, and their speed.

    `expected` are the seconds that each running fold is expected to take for all clips. `rate` is
    the number of seconds that have passed per expected second; `share_done` is the share of the
    pass's work that is done.
    """

    expected: dict[EnsembleFold, float]
    started: float
    last_batch: float
    share_done: float = 0.0
    rate: float = 1.0
    expected_so_far: float = 0.0

    def advance(self, share_done: float, now: float) -> float:
        """Record the share done at time `now`; return the seconds of the last batch."""
        self.expected_so_far += (share_done - self.share_done) * sum(self.expected.values())
        self.share_done, self.rate = share_done, (now - self.started) / self.expected_so_far
        seconds, self.last_batch = now - self.last_batch, now
        return seconds


class FoldSchedule:
    """Decides during inference which folds of the ensemble run until the deadline.

    The caller repeats `next_folds` until it is empty, and loads the folds that `still_planned`
    yields. For each pass over the data it calls `start`, then `update` after every batch, then
    `finish`.
    """

    def __init__(
        self,
        config: EnsembleConfig,
        folds: Sequence[EnsembleFold],
        n_rows: int,
        deadline: Deadline,
    ) -> None:
        """Prepare to run `folds` on `n_rows` clips.

        Raises HearbackError if the deadline is finite and the configuration lacks durations or
        fallbacks.
        """
        if not deadline.is_infinite:
            check_can_schedule(config)
        self._deadline, self._folds = deadline, folds
        self._base_rate = config.base_rate(None)
        models = config.models_to_run
        of_words = config.words.weight_of if config.words is not None else {}
        self._weights = np.array(
            [m.weight + config.words_weight * of_words.get(m.name, 0.0) for m in models]
        )
        self._prior = np.array([m.seconds_per_clip or np.nan for m in models]) * n_rows
        self._measured = np.full(len(models), np.nan)
        # Ensembles of all or some of the models: weights (models,), and their log loss.
        self._ensembles = [(self._weights, config.log_losses.get("cross_fitted", inf))]
        for fallback in config.fallbacks:
            weights = np.array([fallback.weights.get(m.name, 0.0) for m in models])
            self._ensembles.append((weights, fallback.log_loss))
        self._planned: set[EnsembleFold] = set(folds)
        self._pass: _Pass | None = None
        self._load_started = 0.0
        self._is_over = False
        self.done: set[EnsembleFold] = set()
        # Folds that will not run (again), with the share of the clips that they had scored.
        self.stopped: dict[EnsembleFold, float] = {}

    def next_folds(self) -> list[EnsembleFold]:
        """Return the folds to run next, all of one input format; empty if nothing more fits."""
        self._load_started = self._deadline.clock()
        if self._deadline.is_infinite:
            waiting = self._waiting()
            return [fold for fold in waiting if fold.input_format == waiting[0].input_format]
        left = self._deadline.left()
        if self._is_over or left <= 0:
            return []
        plan = self._plan(PLANNED_SHARE * left)
        if not self.done:
            first = max(self._waiting(), key=lambda f: (f in (plan or ()), self._gain_rate(f)))
            self._planned = plan or {first}
            return [first]
        self._planned = plan or set()
        waiting = [fold for fold in self._waiting() if fold in self._planned]
        models_done = {fold.model for fold in self.done}
        first_folds = {f.model: f for f in reversed(waiting) if f.model not in models_done}
        candidates = list(first_folds.values()) or waiting
        if not candidates:
            return []
        heaviest = max(candidates, key=lambda fold: self._weights[fold.model])
        return [fold for fold in candidates if fold.input_format == heaviest.input_format]

    def still_planned(self, folds: Iterable[EnsembleFold]) -> Iterator[EnsembleFold]:
        """Yield the folds to load, as long as loading leaves time to run them."""
        for fold in folds:
            if self.done and not self._deadline.is_infinite:
                self._revise()
            if fold in self._planned:
                yield fold
            else:
                self.stopped[fold] = 0.0

    def start(self, folds: Sequence[EnsembleFold]) -> None:
        """Start a pass over the data with `folds`, which are loaded."""
        expected = {fold: float(self.seconds_per_fold[fold.model]) for fold in folds}
        now = self._deadline.clock()
        self._pass = _Pass(expected, started=now, last_batch=now)

    def update(self, share_done: float) -> list[EnsembleFold]:
        """Record the share of the pass done so far; return the folds that stop here."""
        running = self._pass
        assert running is not None
        if self._deadline.is_infinite:
            return []
        batch_seconds = running.advance(share_done, self._deadline.clock())
        if share_done >= 1:
            return []
        if self._deadline.left() <= batch_seconds:  # the next batch would be late
            self._planned.difference_update(running.expected)
            self._is_over = not self.done  # even the first fold was too slow
        elif not self.done or share_done < MIN_SHARE_TO_REVISE:
            return []  # the first fold runs to the end if it can: without it there is no ensemble
        else:
            self._revise()
        stopping = [fold for fold in running.expected if fold not in self._planned]
        for fold in stopping:
            del running.expected[fold]
            self.stopped[fold] = share_done
        return stopping

    def finish(self, folds: Sequence[EnsembleFold]) -> list[EnsembleFold]:
        """End the pass of `folds`; return those that have scored all clips."""
        running, self._pass = self._pass, None
        assert running is not None
        self.done.update(running.expected)
        if self._deadline.is_infinite:
            return list(running.expected)
        expected = self.seconds_per_fold
        loading = (running.started - self._load_started) / len(folds)
        for model in {fold.model for fold in folds}:
            seconds = running.rate * expected[model] + loading
            self._measured[model] = max(seconds, MIN_SECONDS)
        self._load_started = self._deadline.clock()
        return list(running.expected)

    @property
    def seconds_per_fold(self) -> np.ndarray:
        """Estimated seconds of a fold of each model on all clips, (models,)."""
        known = ~np.isnan(self._measured)
        ratio = self._measured[known].sum() / self._prior[known].sum() if known.any() else 1.0
        return np.where(known, self._measured, ratio * self._prior)

    def _waiting(self) -> list[EnsembleFold]:
        return [f for f in self._folds if f not in self.done and f not in self.stopped]

    def _remaining(self, fold: EnsembleFold) -> float:
        """Return the estimated seconds until a fold has scored all clips."""
        if fold in self.done:
            return 0.0
        seconds = float(self.seconds_per_fold[fold.model])
        if self._pass is None:
            return seconds
        if fold in self._pass.expected:
            return self._pass.rate * seconds * (1 - self._pass.share_done)
        return max(1.0, self._pass.rate) * seconds  # a machine that is slow now may stay slow

    def _plan(self, seconds: float) -> set[EnsembleFold] | None:
        """Return the most valuable folds for these seconds, with the finished ones, or None."""
        by_model = [
            sorted(
                (f for f in self._folds if f.model == model and f not in self.stopped),
                key=self._remaining,
            )
            for model in range(len(self._weights))
        ]
        # A model without folds that can still run is infinitely slow.
        remaining = [[self._remaining(fold) for fold in folds] or [inf] for folds in by_model]
        n_folds = plan_remaining(self._ensembles, remaining, seconds)
        if n_folds is None:
            return None
        return {f for folds, n in zip(by_model, n_folds, strict=True) for f in folds[:n]}

    def _gain_rate(self, fold: EnsembleFold) -> float:
        """Return the gain of the fold's model alone over the base rate, in nats per second."""
        base_loss = float(
            scipy.special.entr(self._base_rate) + scipy.special.entr(1 - self._base_rate)
        )
        for weights, loss in self._ensembles:
            if np.flatnonzero(weights).tolist() == [fold.model]:
                return (base_loss - loss) / self.seconds_per_fold[fold.model]
        return 0.0

    def _revise(self) -> None:
        """Plan again if the plan no longer fits in the time left."""
        left = self._deadline.left()
        share_left = 1 - (self._pass.share_done if self._pass else 0.0)
        needed = sum(map(self._remaining, self._planned))
        if needed > left * (1 + UNCERTAINTY * share_left):
            self._planned = self._plan(left * (1 - (1 - PLANNED_SHARE) * share_left)) or set()
