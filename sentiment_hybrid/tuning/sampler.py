"""Optuna's samplers with a seed per trial, so that a resumed or shared study never repeats its draws."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class SeededSampler(BaseSampler):
    """A sampler by name whose draws for a trial depend on the seed, the trial's number and the trials before it."""

    def __init__(self, name: str, seed: int) -> None:
        self._make, self._seed = _MAKERS[name], seed
        self._current = self._for(0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Draw this trial from its own seed."""
        self._current = self._for(trial.number)
        self._current.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are sampled jointly."""
        return self._current.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Sample parameters jointly."""
        return self._current.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Sample one parameter independently."""
        return self._current.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Let the sampler record a trial that has ended."""
        self._current.after_trial(study, trial, state, values)

    def _for(self, number: int) -> BaseSampler:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return self._make(self._seed, seed)


def _qmc(seed: int, trial_seed: int) -> BaseSampler:
    # The study counts the position in the sequence, so all trials must use the same sequence.
    first = RandomSampler(seed=trial_seed)
    return QMCSampler(seed=seed, scramble=True, independent_sampler=first, warn_independent_sampling=False)


_MAKERS: dict[str, Callable[[int, int], BaseSampler]] = {
    # constant_liar keeps trials that run at the same time apart.
    "tpe": lambda seed, trial_seed: TPESampler(seed=trial_seed, constant_liar=True),
    "random": lambda seed, trial_seed: RandomSampler(seed=trial_seed),
    "gp": lambda seed, trial_seed: GPSampler(seed=trial_seed, warn_independent_sampling=False),
    "qmc": _qmc,
    "nsgaii": lambda seed, trial_seed: NSGAIISampler(seed=trial_seed),
}
