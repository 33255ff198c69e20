"""A small prepared project, and searches over plain functions: real Optuna and SQLite, no training."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy

from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.tuning import study as studies
from sentiment_hybrid.tuning.search import Search
from sentiment_hybrid.tuning.trials import Outcome, outcomes
from sentiment_hybrid.tuning.workers import InProcessRunner


@pytest.fixture(autouse=True)
def quick_sqlite() -> Iterator[None]:
    """SQLite without waiting for the disk: no test cuts the power."""

    def connected(connection: Any, record: Any) -> None:
        if type(connection).__module__.startswith("sqlite3"):
            connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "connect", connected)
    yield
    sqlalchemy.event.remove(sqlalchemy.engine.Engine, "connect", connected)


@pytest.fixture(autouse=True)
def quick_collections() -> Iterator[None]:
    """Each trial collects garbage; what the imports made would have it take longer than the trial."""
    gc.freeze()
    yield
    gc.unfreeze()


SPACE = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}


@pytest.fixture
def config(tmp_path: Path, tiny_encoder_dir: Path) -> Config:
    """A prepared database of 120 toy texts, small heads over the tiny encoder, everything in tmp_path."""
    import torch

    from sentiment_hybrid.commands import data

    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    filler = ["the", "day", "was", "it", "and", "so", "then", "we", "all", "saw"]
    lines = [
        f"{' '.join(random.choice(filler, size=4))} {('bad', 'good')[n % 2]} n{n},{('negative', 'positive')[n % 2]}"
        for n in range(120)
    ]
    (tmp_path / "texts.csv").write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    small = {"batch_size": 16, "precision": "fp32", "learning_rate": 0.01}
    made = Config.model_validate(
        {
            "paths": {
                "data_db": tmp_path / "tweets.db",
                "models_dir": tmp_path / "models",
                "results_dir": tmp_path / "results",
                "cache_dir": tmp_path / "cache",
            },
            "data": {"source": str(tmp_path / "texts.csv")},
            "encoder": {"name": str(tiny_encoder_dir), "max_length": 16},
            "lstm": {"head": {"hidden": 8, "layers": 1}, "train": small, "hpo": {"epochs": 2}},
            "linear": {"train": small, "hpo": {"epochs": 2}},
        }
    )
    data.run(made)
    return made


class Functions:
    """Stands where a TrialTrainer stands: a trial's epochs are what a function gives."""

    def __init__(self, epochs: Callable[[Mapping[str, Any]], Iterator[float]]) -> None:
        self._epochs = epochs

    def outcomes(self, params: Mapping[str, Any]) -> Iterator[Outcome]:
        return outcomes(lambda: self._train(params))

    def _train(self, params: Mapping[str, Any]) -> Iterator[Outcome]:
        for value in self._epochs(params):
            yield value if isinstance(value, Outcome) else Outcome("epoch", value)


def three_epochs(params: Mapping[str, Any]) -> Iterator[float]:
    """A learning curve whose height is x."""
    for epoch in (1, 2, 3):
        yield params["x"] * epoch / 3


@pytest.fixture
def searching(tmp_path: Path) -> Callable[..., Any]:
    """``searching(n_trials, epochs=f)`` runs a search in the study of this test and returns what one asks about it."""

    def search(
        n_trials: int,
        *,
        epochs: Callable[[Mapping[str, Any]], Iterator[float]] = three_epochs,
        sampler: str = "tpe",
        pruner: str = "none",
        file: str = "study.db",
        alone: bool = True,
        max_epochs: int = 3,
        **options: Any,
    ) -> Any:
        hpo = {"n_trials": n_trials, "sampler": sampler, "pruner": pruner, "epochs": max_epochs, "study_name": "s"}
        config = Config.model_validate({"lstm": {"hpo": hpo}})
        notes: list[str] = []
        with (
            open_shared(tmp_path / file)
            if not alone
            else studies.open_storage(None, default=tmp_path / file) as storage
        ):
            study, _ = studies.open_study(storage, studies.StudyIdentity("lstm", {}), config)
            runner = InProcessRunner(Functions(epochs))  # type: ignore[arg-type]
            with closing(runner):
                run = Search(
                    study,
                    storage,
                    runner,
                    n_trials=n_trials,
                    space=SPACE,
                    epochs=max_epochs,
                    note=notes.append,
                    **options,
                )
                try:
                    run.run()
                finally:
                    status = run.status()
            return SimpleNamespace(trials=study.get_trials(), status=status, notes=notes)

    return search


class open_shared:  # noqa: N801 - used as the function that it replaces
    """An SQLite file as a server would be: with heartbeats, and not held by one process alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> studies.Storage:
        with studies.quiet():
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{self._path}",
                heartbeat_interval=60,
                grace_period=180,
                heartbeat_stale_trial_callback=lambda study, trial: studies.requeue(study, trial),
            )
        self._storage = studies.Storage(storage, str(self._path), exclusive=False)
        return self._storage

    def __exit__(self, *details: object) -> None:
        self._storage.optuna.engine.dispose()


@pytest.fixture
def shared_storage() -> type[open_shared]:
    """Opens a file as a server would be: ``shared_storage(path)``."""
    return open_shared
