"""Optuna's samplers and Hyperband, made reproducible: the parameters of a trial do not depend on killed processes.

All options are set here, so that a new default of Optuna changes no search.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import HyperbandPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

#: User attributes of a trial.
RETRY_OF, OWNER, ENDED = "retry_of", "owner", "ended"
#: A value of ENDED: a trial beyond the total.
SURPLUS = "surplus"

#: The options of each sampler. Multivariate TPE has other bandwidths in Optuna 5 than in 4.9; univariate TPE has the
#: same. constant_liar keeps trials that run at the same time apart.
OPTIONS: dict[str, dict[str, Any]] = {
    "tpe": {
        "n_startup_trials": 10,
        "n_ei_candidates": 24,
        "multivariate": False,
        "group": False,
        "constant_liar": True,
    },
    "random": {},
    "gp": {"n_startup_trials": 10, "deterministic_objective": False},
    "qmc": {"qmc_type": "sobol", "scramble": True},
    "nsgaii": {"population_size": 50, "mutation_prob": None, "crossover_prob": 0.9, "swapping_prob": 0.5},
}


def draw_number(study: Study, trial: FrozenTrial) -> int:
    """The number of parameter sets that were drawn before that of this trial.

    A retry has the number of the first attempt. Surplus trials, and those that failed before they had all their
    parameters, do not count: the same parameters are drawn for another trial.
    """
    first = trial.user_attrs.get(RETRY_OF, trial.number)
    trials = study._storage.get_all_trials(study._study_id, deepcopy=False)  # also those of Hyperband's other brackets
    return sum(one.number < first and _was_drawn(one) for one in trials)


def _was_drawn(trial: FrozenTrial) -> bool:
    if RETRY_OF in trial.user_attrs or trial.user_attrs.get(ENDED) == SURPLUS:
        return False
    return trial.state != TrialState.FAIL or OWNER in trial.user_attrs


class SeededSampler(BaseSampler):
    """A sampler by name. The parameters of a trial depend on the seed, its `draw_number` and earlier results."""

    def __init__(self, name: str, seed: int) -> None:
        self._name, self._seed = name, seed
        self._current = self._for(0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Use a sampler with the seed of this trial."""
        self._current = self._for(draw_number(study, trial))
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
        # The 1 distinguishes these seeds from those of earlier versions, which were derived from trial numbers.
        seed = int(np.random.SeedSequence([self._seed, number, 1]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if self._name == "qmc":
                return _Sequence(self._seed, number, first=RandomSampler(seed=seed))
            return _CLASSES[self._name](seed=seed, **OPTIONS[self._name])


class _Sequence(QMCSampler):
    """A quasi-random sequence, the same for all trials, read at a given index, which Optuna would count itself."""

    def __init__(self, seed: int, number: int, *, first: BaseSampler) -> None:
        options = {**OPTIONS["qmc"], "warn_independent_sampling": False, "warn_asynchronous_seeding": False}
        super().__init__(seed=seed, independent_sampler=first, **options)
        self._index = max(0, number - 1)  # the first trial is drawn by ``first``

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._index


_CLASSES: dict[str, Callable[..., BaseSampler]] = {
    "tpe": TPESampler,
    "random": RandomSampler,
    "gp": GPSampler,
    "nsgaii": NSGAIISampler,
}


class Hyperband(HyperbandPruner):
    """Assigns brackets by `draw_number`; failed trials, which are retried as new ones, are in none."""

    def _get_bracket_id(self, study: Study, trial: FrozenTrial) -> int:
        if trial.state == TrialState.FAIL:
            return -1  # no bracket
        return int(super()._get_bracket_id(study, SimpleNamespace(number=draw_number(study, trial))))
