"""Runs a trainer to its end: progress, metrics, checkpoints, and interruption between two steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sentiment_hybrid import distributed
from sentiment_hybrid.config.sections import METRICS
from sentiment_hybrid.console import metric_name, metric_value, metric_values, note, progress, warn
from sentiment_hybrid.engine.training.events import BudgetEvent, EpochEvent, StepEvent, selection_score
from sentiment_hybrid.engine.training.mlm import perplexity
from sentiment_hybrid.engine.training.runs import Run
from sentiment_hybrid.engine.training.trainer import Trainer
from sentiment_hybrid.runtime import stopping_by

#: A smaller gain in the last epoch, in macro-F1, accuracy or loss, is no reason for more epochs.
_CLEARLY_BETTER = 0.001


def load_last(trainer: Trainer, run: Run) -> bool:
    """Continue from the run's last checkpoint; returns whether there is one."""
    kept = run.checkpoints
    last = distributed.from_main(lambda: kept.load("last") if "last" in kept.pointers() else None)
    if last is None:
        return False
    trainer.load(last)
    at = trainer.progress
    note(f"resuming {run.id} in epoch {at.epoch}, after {at.step} of {trainer.steps} steps")
    return True


def fit(trainer: Trainer, run: Run) -> None:
    """Train to the end with progress, metrics.jsonl and checkpoints; Ctrl-C saves the state after the current step.

    Of several processes, the main one writes, and all stop at the same step.

    Raises:
        TrainingError: the loss is not finite.
        OutputError: a checkpoint cannot be written; the earlier ones are untouched.
        KeyboardInterrupt: after the state was saved; its message says how to continue.
    """
    writes, kept = distributed.is_main(), dict[str, str]()
    if writes:
        run.keep_epochs_before(trainer.progress.epoch)
        kept = run.texts()
    rows, settings, saved = trainer.rows, trainer.settings, time.monotonic()
    with _interruptible(run) as stop_requested, progress("training", total=rows * settings.epochs, unit="texts") as bar:
        in_epoch = min(trainer.rows_per_step * trainer.progress.step, rows)  # the last step of an epoch may have fewer
        bar.skip(rows * (trainer.progress.epoch - 1) + in_epoch)
        for event in trainer.events():
            stopping = distributed.any_process(stop_requested())
            due = stopping or time.monotonic() - saved >= 60 * settings.checkpoint_minutes
            if isinstance(event, EpochEvent) or (isinstance(event, StepEvent) and due):
                saved = time.monotonic()
                if writes:
                    event = _restored(trainer, run, event, kept)
                    _save(trainer, run, event)
                    kept = run.texts()
            _show(event, settings.epochs, bar)
            if isinstance(event, BudgetEvent):
                if writes:
                    run.keep_token_budget(event.token_budget)
                continue  # the step is not done yet, so nothing is saved, and this is no place to stop
            if stopping:
                distributed.barrier()  # a launcher ends the other processes as soon as one has ended
                raise KeyboardInterrupt(
                    f"interrupted; state saved in {run.folder}; add --resume to the same command to continue"
                )
    if writes:
        _note_improvement(run.epochs(), settings.metric)


def _restored(
    trainer: Trainer, run: Run, event: StepEvent | EpochEvent, kept: Mapping[str, str]
) -> StepEvent | EpochEvent:
    """The event, as the best epoch if the best one so far was deleted with the folder of the run, which is restored."""
    progress = trainer.progress
    is_best = isinstance(event, EpochEvent) and event.is_best
    lost = progress.best_epoch > 0 and not is_best and "best" not in run.checkpoints.pointers()
    if distributed.joined() or (run.folder.is_dir() and not lost):
        return event  # of several processes, all would have to forget the best epoch
    run.restore(kept)
    warn(f"{run.folder} was deleted during the training; it is restored" + (", without its best epoch" if lost else ""))
    if lost and isinstance(event, EpochEvent):
        progress.best_epoch, progress.epochs_without_best = event.epoch, 0
        progress.best_value = selection_score(event.valid, trainer.settings.metric)
        return replace(event, is_best=True)
    if lost:
        progress.best_epoch, progress.best_value = 0, None
    return event


def _save(trainer: Trainer, run: Run, event: StepEvent | EpochEvent) -> None:
    if isinstance(event, EpochEvent):
        run.append_epoch(event.as_record())
    run.checkpoints.save(trainer.state(), is_best=isinstance(event, EpochEvent) and event.is_best)


def _show(event: StepEvent | BudgetEvent | EpochEvent, epochs: int, bar: Any) -> None:
    if isinstance(event, StepEvent):
        bar.advance(event.rows, loss=event.loss)
    elif isinstance(event, BudgetEvent):
        warn(
            f"out of memory in epoch {event.epoch}, step {event.step}: token_budget {event.before:,} -> "
            f"{event.token_budget:,} for the rest of the run; the step is repeated with the same rows"
        )
    else:
        if "macro_f1" in event.valid:
            bar.update(**{"macro-F1": metric_value("macro_f1", event.valid["macro_f1"])})
        _note_epoch(event, epochs)


def _note_epoch(event: EpochEvent, epochs: int) -> None:
    validated = ""
    if event.valid:
        validated = f"; valid {metric_values(event.valid)}"
        if "macro_f1" not in event.valid:  # masked language modelling
            validated += f", perplexity {perplexity(event.valid['loss']):,.2f}"
        validated += ", the best so far" if event.is_best else ""
    note(
        f"epoch {event.epoch} of {epochs}: loss {event.train_loss:.4f}{validated}; {event.rows_per_second:,.0f} texts/s"
    )
    if event.stop and event.epoch < epochs:
        note("early stopping: no improvement within train.patience epochs")


def _note_improvement(epochs: Sequence[Mapping[str, Any]], metric: str) -> None:
    """Suggest more epochs if the last one was still clearly better than all before it."""
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


@contextmanager
def _interruptible(run: Run) -> Iterator[Callable[[], bool]]:
    """Defer Ctrl-C, SIGTERM and SIGHUP: the value is called to ask whether there was one; a second one stops at once.

    With several processes a second one does not: both the terminal and the launcher send the signal, and the launcher
    kills those that take too long.
    """
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        if received and not distributed.joined():
            raise KeyboardInterrupt(run.stopped_at_once())
        received.append(number)

    with stopping_by(receive):
        yield lambda: bool(received)
