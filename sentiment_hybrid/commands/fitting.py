"""What `train` and `finetune` do with the loop's facts: progress, metrics, checkpoints, and stopping politely."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sentiment_hybrid.errors import OutputError

if TYPE_CHECKING:
    from sentiment_hybrid.engine.loop import EpochFacts, Fit
    from sentiment_hybrid.engine.runs import Run


def consume(fit: Fit, run: Run, *, minutes: float) -> None:
    """Run the loop to its end: progress, metrics.jsonl, checkpoints; Ctrl-C saves at the next step, then goes through.

    Of several processes the main one writes, and all stop at the same step.

    Args:
        fit: the training, fresh or resumed.
        run: where its metrics and checkpoints go.
        minutes: between two checkpoints within an epoch.

    Raises:
        TrainingError: the loss is not a number.
        OutputError: a checkpoint cannot be written; those before it are untouched.
        KeyboardInterrupt: after the state was saved; its message says how to go on.
    """
    from sentiment_hybrid.console import progress
    from sentiment_hybrid.engine import processes
    from sentiment_hybrid.engine.loop import EpochFacts, StepFacts

    writes = processes.is_main()
    if writes:
        run.keep_epochs_before(fit.progress.epoch)
    saved = time.monotonic()
    rows = len(fit.train)
    with Interrupts() as interrupts, progress("training", total=rows * fit.settings.epochs, unit="texts") as bar:
        bar.update(completed=rows * (fit.progress.epoch - 1) + fit.rows_per_step * fit.progress.step)
        for facts in fit.facts():
            stopping = processes.agree(interrupts.pending)
            if isinstance(facts, EpochFacts):
                if writes:
                    run.append_epoch(asdict(facts))
                    run.checkpoints.save(fit.state(), is_best=facts.is_best)
                saved = time.monotonic()
                if facts.valid_macro_f1 is not None:
                    bar.update(macro_f1=facts.valid_macro_f1)
                _tell_epoch(facts, fit.settings.epochs)
            if isinstance(facts, StepFacts):
                bar.advance(facts.rows, loss=facts.loss)
                if writes and (stopping or time.monotonic() - saved >= 60 * minutes):
                    run.checkpoints.save(fit.state())
                    saved = time.monotonic()
            if stopping:
                processes.barrier()  # a launcher ends the others as soon as one has ended
                raise KeyboardInterrupt(f"state saved in {run.folder}; add --resume to the same command to go on")


def _tell_epoch(facts: EpochFacts, epochs: int) -> None:
    from sentiment_hybrid.console import note

    validated = ""
    if facts.valid_loss is not None:
        best = ", the best so far" if facts.is_best else ""
        validated = (
            f", valid loss {facts.valid_loss:.4f}, accuracy {facts.valid_accuracy:.4f}, "
            f"macro-F1 {facts.valid_macro_f1:.4f}{best}"
        )
    note(
        f"epoch {facts.epoch} of {epochs}: loss {facts.train_loss:.4f}{validated}; {facts.rows_per_second:,.0f} texts/s"
    )
    if facts.stop and facts.epoch < epochs:
        note("stopping early: no better epoch for as long as train.patience allows")


class Interrupts:
    """Holds back the first Ctrl-C (and SIGTERM) until a step is done; the second one goes through at once.

    Of several processes none goes through: the terminal and the launcher both send it, and the launcher ends by force
    those that take too long.
    """

    def __init__(self) -> None:
        self.pending = False

    def __enter__(self) -> Interrupts:
        import signal
        import threading

        self._old = {}
        if threading.current_thread() is threading.main_thread():  # elsewhere signals cannot be handled
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *details: object) -> None:
        import signal

        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        from sentiment_hybrid.engine import processes

        if self.pending and not processes.joined():
            raise KeyboardInterrupt
        self.pending = True


def check_writable(*folders: Path) -> None:
    """Say so before hours of work, not after."""
    import tempfile

    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OutputError(
                f"cannot write into {folder}: {error.strerror or error}",
                hint="Choose another folder: --set paths.models_dir=... --set paths.results_dir=...",
            ) from error
