"""Runs a trainer to its end: progress, metrics, checkpoints, and a polite stop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sentiment_hybrid import distributed
from sentiment_hybrid.config.sections import METRICS
from sentiment_hybrid.console import note, progress, warn
from sentiment_hybrid.engine.training.events import BudgetEvent, EpochEvent, StepEvent
from sentiment_hybrid.engine.training.runs import Run
from sentiment_hybrid.engine.training.trainer import Trainer
from sentiment_hybrid.errors import SenthyError


@contextmanager
def held(run: Run, *, resume: bool) -> Iterator[None]:
    """While this process works on a run; a new one that failed before it had trained anything leaves no folder."""
    try:
        with run.held():
            yield
    except SenthyError:
        if not resume:
            run.drop_if_empty()
        raise


def load_last(trainer: Trainer, run: Run) -> bool:
    """Go on from the run's last checkpoint, if it has one; returns whether."""
    last = distributed.from_main(run.last_state)
    if last is None:
        return False
    trainer.load(last)
    at = trainer.progress
    note(f"resuming {run.id} in epoch {at.epoch}, after {at.step} of {trainer.steps} steps")
    return True


def fit(trainer: Trainer, run: Run, *, minutes: float) -> None:
    """Run the loop to its end: progress, metrics.jsonl, checkpoints; Ctrl-C saves at the next step, then goes through.

    Of several processes the main one writes, and all stop at the same step.

    Args:
        trainer: fresh or resumed.
        run: where its metrics and checkpoints go, and what share of its batches is padding.
        minutes: between two checkpoints within an epoch.

    Raises:
        TrainingError: the loss is not a number.
        OutputError: a checkpoint cannot be written; those before it are untouched.
        KeyboardInterrupt: after the state was saved; its message says how to go on.
    """
    writes = distributed.is_main()
    if writes:
        run.note(padding=round(trainer.padding(), 4))
        run.keep_epochs_before(trainer.progress.epoch)
    saved = time.monotonic()
    rows = trainer.rows
    with Interrupts() as interrupts, progress("training", total=rows * trainer.settings.epochs, unit="texts") as bar:
        in_epoch = min(trainer.rows_per_step * trainer.progress.step, rows)  # the last step of an epoch may have fewer
        bar.update(completed=rows * (trainer.progress.epoch - 1) + in_epoch)
        for facts in trainer.events():
            stopping = distributed.agree(interrupts.pending)
            if isinstance(facts, EpochEvent):
                if writes:
                    run.append_epoch(facts.as_record())
                    run.checkpoints.save(trainer.state(), is_best=facts.is_best)
                saved = time.monotonic()
                if "macro_f1" in facts.valid:
                    bar.update(macro_f1=facts.valid["macro_f1"])
                _tell_epoch(facts, trainer.settings.epochs)
            if isinstance(facts, BudgetEvent):
                if writes:
                    run.keep_token_budget(facts.token_budget)
                _tell_budget(facts)
            if isinstance(facts, StepEvent):
                bar.advance(facts.rows, loss=facts.loss)
                if writes and (stopping or time.monotonic() - saved >= 60 * minutes):
                    run.checkpoints.save(trainer.state())
                    saved = time.monotonic()
            # A step that is to be done again is no place to stop: nothing was saved.
            if stopping and not isinstance(facts, BudgetEvent):
                distributed.barrier()  # a launcher ends the others as soon as one has ended
                raise KeyboardInterrupt(
                    f"interrupted; state saved in {run.folder}; add --resume to the same command to continue"
                )


def _tell_epoch(facts: EpochEvent, epochs: int) -> None:
    validated = ""
    if facts.valid:
        figures = {name.replace("_f1", "-F1"): f"{value:.4f}" for name, value in facts.valid.items()}
        if "macro_f1" not in facts.valid:  # of masked tokens, not of labels
            figures["perplexity"] = f"{math.exp(min(facts.valid['loss'], 700.0)):,.2f}"
        best = ", the best so far" if facts.is_best else ""
        validated = f"; valid {', '.join(f'{name} {value}' for name, value in figures.items())}{best}"
    note(
        f"epoch {facts.epoch} of {epochs}: loss {facts.train_loss:.4f}{validated}; {facts.rows_per_second:,.0f} texts/s"
    )
    if facts.stop and facts.epoch < epochs:
        note("early stopping: no improvement within train.patience epochs")


def _tell_budget(facts: BudgetEvent) -> None:
    warn(
        f"out of memory in epoch {facts.epoch}, step {facts.step}: token_budget {facts.before:,} -> "
        f"{facts.token_budget:,} for the rest of the run; the step is repeated with the same rows"
    )


class Interrupts:
    """Holds back the first Ctrl-C (and SIGTERM) until a step is done; the second one goes through at once.

    Of several processes none goes through: the terminal and the launcher both send it, and the launcher ends by force
    those that take too long.
    """

    def __init__(self) -> None:
        self.pending = False

    def __enter__(self) -> Interrupts:
        self._old = {}
        if threading.current_thread() is threading.main_thread():  # elsewhere signals cannot be handled
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *details: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.pending and not distributed.joined():
            raise KeyboardInterrupt
        self.pending = True


def best_epoch(run: Run) -> tuple[dict[str, Any], dict[str, float]]:
    """The facts of the best epoch, and its figures on the validation split; none where there was no validation."""
    best = [facts for facts in run.epochs() if facts["is_best"]][-1]
    return best, {name: value for name in METRICS if (value := best.get(f"valid_{name}")) is not None}
