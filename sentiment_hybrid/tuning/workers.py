"""Trains trials in this process, or in several worker processes, one per GPU or sharing the CPU.

Only the parent accesses the study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.processes import Helpers, Parent
from sentiment_hybrid.runtime import Runtime
from sentiment_hybrid.tuning.trials import Outcome, TrialTrainer, outcomes


class InProcessRunner:
    """Trains in this process, during ``next_event``."""

    def __init__(self, trial_trainer: TrialTrainer) -> None:
        self._trial_trainer = trial_trainer
        self._outcomes: Iterator[Outcome] | None = None

    def idle(self) -> list[int]:
        """Slot 0 while no trial is running."""
        return [0] if self._outcomes is None else []

    def start(self, slot: int, params: Mapping[str, Any]) -> None:
        """Prepare a trial; training starts with ``next_event``."""
        self._outcomes = self._trial_trainer.outcomes(params)

    def resume(self, slot: int) -> None:
        """Nothing to do: ``next_event`` trains the next epoch."""

    def stop(self, slot: int) -> None:
        """Abandon the trial and free its memory."""
        outcomes, self._outcomes = self._outcomes, None
        if outcomes is not None:
            outcomes.close()  # type: ignore[attr-defined]

    def next_event(self, timeout: float) -> tuple[int, Outcome] | None:
        """Train up to the next outcome, ignoring the timeout."""
        assert self._outcomes is not None
        outcome = next(self._outcomes)
        if outcome.ends:
            self.stop(0)
        return 0, outcome

    def close(self) -> None:
        """Abandon the running trial."""
        self.stop(0)


class WorkerPool(Helpers):
    """Trains in ``count`` processes; one that dies is replaced when its slot is used again."""

    def __init__(self, count: int, setup: Mapping[str, Any], *, gpus: int = 0) -> None:
        super().__init__(f"{__name__}:serve", count, setup, gpus=gpus)

    def start(self, slot: int, params: Mapping[str, Any]) -> None:
        """Send a trial to the worker of a slot, which is started if necessary."""
        self.give(slot, {"params": dict(params)})

    def resume(self, slot: int) -> None:
        """Let the worker train the next epoch."""
        self.tell(slot, {"go": True})

    def stop(self, slot: int) -> None:
        """Have the worker abandon its trial."""
        self.release(slot)
        self.tell(slot, {"go": False})

    def next_event(self, timeout: float) -> tuple[int, Outcome] | None:
        """The next message of any worker; if a busy worker dies, its trial has failed."""
        if (event := self.next(timeout)) is None:
            return None
        if event.message is None:
            return event.slot, Outcome("failed", text=event.died)
        outcome = Outcome(**event.message)
        if outcome.ends:
            self.release(event.slot)
        return event.slot, outcome


#: Trains one trial per slot. An ``epoch`` must be followed by ``resume`` or ``stop``; an end frees the slot.
TrialRunner = InProcessRunner | WorkerPool


def open_runner(trial_trainer: TrialTrainer, count: int) -> TrialRunner:
    """A runner for ``count`` trials at a time."""
    if count == 1:
        return InProcessRunner(trial_trainer)
    import torch

    runtime = trial_trainer.runtime
    on_gpu = runtime.device in {"auto", "cuda"} and torch.cuda.is_available()
    document = trial_trainer.config.model_dump(mode="json")
    encoder = None if runtime.encoder is None else str(runtime.encoder)
    setup = {"config": document, "model": trial_trainer.model, "runtime": asdict(replace(runtime, encoder=encoder))}
    return WorkerPool(count, setup, gpus=torch.cuda.device_count() if on_gpu else 0)


# --- worker process --------------------------------------------------------------------------------------------------


def serve() -> None:
    """Train the trials requested on standard input, until it ends."""
    parent = Parent()
    setup = parent.hear()
    trainers: list[TrialTrainer] = []

    def train(params: Mapping[str, Any]) -> Iterator[Outcome]:
        if not trainers:
            config = Config.model_validate(setup["config"])
            trainers.append(TrialTrainer(config, setup["model"], Runtime(**setup["runtime"])))
        return trainers[0].train(params)

    while True:
        task = parent.hear()
        trial = outcomes(lambda params=task["params"]: train(params))  # type: ignore[misc]
        for outcome in trial:
            parent.answer(asdict(outcome))
            if outcome.kind == "epoch" and not parent.hear()["go"]:
                trial.close()  # type: ignore[attr-defined]
