"""The samplers: all options are set here, and every supported version of Optuna draws the same."""

from __future__ import annotations

import inspect
from typing import Any

import optuna
import pytest

from sentiment_hybrid.tuning import sampler
from sentiment_hybrid.tuning.sampler import OPTIONS, SeededSampler

SPACE = {
    "rate": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True),
    "layers": optuna.distributions.IntDistribution(1, 4),
    "hidden": optuna.distributions.CategoricalDistribution([64, 128, 256]),
}
#: Arguments whose defaults are functions of Optuna, or that say nothing about draws; those of TPE are deprecated.
LEFT_OUT = {
    "self", "seed", "independent_sampler", "constraints_func", "warn_independent_sampling",
    "warn_asynchronous_seeding", "consider_prior", "prior_weight", "consider_magic_clip", "consider_endpoints",
    "gamma", "weights", "categorical_distance_func", "mutation", "crossover", "elite_population_selection_strategy",
    "child_generation_strategy", "after_trial_strategy",
}  # fmt: skip


def drawn(name: str, trials: int) -> list[dict[str, Any]]:
    """The parameters of the trials of a search; the value of a trial follows from its parameters."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=SeededSampler(name, 42))
    for _ in range(trials):
        trial = study.ask(dict(SPACE))
        trial.set_user_attr("owner", "here:1")
        study.tell(trial, -abs(trial.params["rate"] - 1e-3) - abs(trial.params["layers"] - 2) + trial.params["hidden"])
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_of_a_sampler_is_set(name: str) -> None:
    kind = optuna.samplers.QMCSampler if name == "qmc" else sampler._CLASSES[name]
    assert set(inspect.signature(kind.__init__).parameters) - LEFT_OUT == set(OPTIONS[name])


# Recorded with Optuna 4.9.0 and 5.0.0. In 5, gp rounds in another way and qmc draws categorical parameters, too.
@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("tpe", {"rate": 1.1180091943412263e-05, "layers": 2, "hidden": 256}),
        ("random", {"rate": 0.0002972609585279736, "layers": 1, "hidden": 64}),
        ("nsgaii", {"rate": 0.0002606115689575763, "layers": 1, "hidden": 128}),
    ],
)
def test_the_draws_are_those_of_every_version_of_optuna(name: str, last: dict[str, Any]) -> None:
    assert drawn(name, 60 if name == "nsgaii" else 15)[-1] == pytest.approx(last, rel=1e-9)
