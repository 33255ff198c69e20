"""Runs a trainer to its end: progress, metrics, checkpoints, and a polite stop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sentiment_hybrid import distributed
from sentiment_hybrid.config.sections import METRICS
from sentiment_hybrid.console import metric_name, metric_value, metric_values, note, progress, warn
from sentiment_hybrid.engine.training.events import BudgetEvent, EpochEvent, StepEvent
from sentiment_hybrid.engine.training.runs import Run
from sentiment_hybrid.engine.training.trainer import Trainer
from sentiment_hybrid.errors import SenthyError
from sentiment_hybrid.runtime import stop_signals

#: A smaller gain of the last epoch, in macro-F1, accuracy or loss, is no reason for further epochs.
_CLEARLY_BETTER = 0.001


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
    with (
        Interrupts(run.stopped_at_once) as interrupts,
        progress("training", total=rows * trainer.settings.epochs, unit="texts") as bar,
    ):
        in_epoch = min(trainer.rows_per_step * trainer.progress.step, rows)  # the last step of an epoch may have fewer
        bar.skip(rows * (trainer.progress.epoch - 1) + in_epoch)
        for event in trainer.events():
            stopping = distributed.agree(interrupts.pending)
            if isinstance(event, EpochEvent):
                if writes:
                    run.append_epoch(event.as_record())
                    run.checkpoints.save(trainer.state(), is_best=event.is_best)
                saved = time.monotonic()
                if "macro_f1" in event.valid:
                    shown: dict[str, Any] = {"macro-F1": metric_value("macro_f1", event.valid["macro_f1"])}
                    bar.update(**shown)
                _note_epoch(event, trainer.settings.epochs)
            if isinstance(event, BudgetEvent):
                if writes:
                    run.keep_token_budget(event.token_budget)
                _warn_of_budget(event)
            if isinstance(event, StepEvent):
                bar.advance(event.rows, loss=event.loss)
                if writes and (stopping or time.monotonic() - saved >= 60 * minutes):
                    run.checkpoints.save(trainer.state())
                    saved = time.monotonic()
            # A step that is to be done again is no place to stop: nothing was saved.
            if stopping and not isinstance(event, BudgetEvent):
                distributed.barrier()  # a launcher ends the others as soon as one has ended
                raise KeyboardInterrupt(
                    f"interrupted; state saved in {run.folder}; add --resume to the same command to continue"
                )
    if writes:
        _note_improvement(run.epochs(), trainer.settings.metric)


def _note_epoch(event: EpochEvent, epochs: int) -> None:
    validated = ""
    if event.valid:
        validated = f"; valid {metric_values(event.valid)}"
        if "macro_f1" not in event.valid:  # of masked tokens, not of labels
            validated += f", perplexity {math.exp(min(event.valid['loss'], 700.0)):,.2f}"
        validated += ", the best so far" if event.is_best else ""
    note(
        f"epoch {event.epoch} of {epochs}: loss {event.train_loss:.4f}{validated}; {event.rows_per_second:,.0f} texts/s"
    )
    if event.stop and event.epoch < epochs:
        note("early stopping: no improvement within train.patience epochs")


def _note_improvement(epochs: Sequence[Mapping[str, Any]], metric: str) -> None:
    """Say so if the last epoch was still clearly better than all before it."""
    values = [epoch[f"valid_{metric}"] for epoch in epochs]
    if len(values) < 2 or None in values:
        return
    last, before = values[-1], (max if METRICS[metric] else min)(values[:-1])
    if (last - before if METRICS[metric] else before - last) < _CLEARLY_BETTER:
        return
    note(
        f"validation {metric_name(metric)} was still improving in the last epoch (from {metric_value(metric, before)} "
        f"to {metric_value(metric, last)}): more epochs may help"
    )


def _warn_of_budget(event: BudgetEvent) -> None:
    warn(
        f"out of memory in epoch {event.epoch}, step {event.step}: token_budget {event.before:,} -> "
        f"{event.token_budget:,} for the rest of the run; the step is repeated with the same rows"
    )


class Interrupts:
    """Holds back the first Ctrl-C, SIGTERM or SIGHUP until a step is done; the second one goes through at once.

    Of several processes none goes through: the terminal and the launcher both send it, and the launcher ends by force
    those that take too long.

    Args:
        at_once: what is said when the second one goes through.
    """

    def __init__(self, at_once: Callable[[], str] = str) -> None:
        self.pending = False
        self._at_once = at_once

    def __enter__(self) -> Interrupts:
        self._old = {}
        if threading.current_thread() is threading.main_thread():  # elsewhere signals cannot be handled
            for number in stop_signals():
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *details: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.pending and not distributed.joined():
            raise KeyboardInterrupt(self._at_once())
        self.pending = True


def best_epoch(run: Run) -> tuple[dict[str, Any], dict[str, float]]:
    """The record of the best epoch, and its figures on the validation split; none where there was no validation."""
    best = [epoch for epoch in run.epochs() if epoch["is_best"]][-1]
    return best, {name: value for name in METRICS if (value := best.get(f"valid_{name}")) is not None}
