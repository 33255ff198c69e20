"""What `train` and `finetune` do with the loop's facts: progress, metrics, checkpoints, and stopping politely."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sentiment_hybrid.config.schema import JOINT, Config
from sentiment_hybrid.config.sections import METRICS
from sentiment_hybrid.errors import OutputError, SenthyError, TrainingError

if TYPE_CHECKING:
    from sentiment_hybrid.data.splits import UInt64s
    from sentiment_hybrid.data.store import Examples, Store
    from sentiment_hybrid.engine.device import Compute
    from sentiment_hybrid.engine.inference.evaluate import EncodedDataset
    from sentiment_hybrid.engine.training.distill import Lesson
    from sentiment_hybrid.engine.training.runs import Run
    from sentiment_hybrid.engine.training.session import Session
    from sentiment_hybrid.engine.training.tasks import Classification
    from sentiment_hybrid.engine.training.trainer import BudgetEvent, EpochEvent, Trainer
    from sentiment_hybrid.models.classifier import Classifier


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


def compute_for(run: Run, *, device: str, precision: str) -> Compute:
    """Device and precision; those of the start, and its number of threads, when a run goes on."""
    import torch

    from sentiment_hybrid import distributed
    from sentiment_hybrid.console import warn
    from sentiment_hybrid.engine.device import resolve

    before = distributed.from_main(lambda: run.meta().get("compute"))
    if before is None:
        # Machines may differ, but one model has one precision.
        common = distributed.from_main(lambda: resolve(device, precision).precision)
        return distributed.together(lambda: resolve(device, common))
    then, now = before.get("processes", 1), distributed.world()
    if then == now:
        torch.set_num_threads(before["threads"])
    compute = distributed.together(lambda: resolve(device, before["precision"]))
    if then != now:
        warn(f"the run was started with {then} processes: with {now} it goes on, but not bit for bit")
    elif compute.describe() != before:
        warn(f"the run was started on {before['device']}: on {compute.device.type} it goes on, but not bit for bit")
    return compute


def check_every_label(examples: Examples, labels: tuple[str, ...], *, setting: str) -> None:
    """Raises TrainingError when a label has no row among those to train on."""
    if len(set(examples.labels.tolist())) < len(labels):
        raise TrainingError(
            f"the {len(examples.texts):,} training texts do not have every label of {', '.join(labels)}",
            hint=f"Raise {setting}.",
        )


def encoded(session: Session, examples: Examples) -> EncodedDataset:
    """Rows as what the loop takes, with progress, and a note where texts were cut."""
    from sentiment_hybrid.console import note, progress

    with progress(f"encoding {examples.split}", unit="windows") as bar:
        dataset = session.dataset(examples.texts, examples.labels, examples.compared, progress=bar.advance)
    if cut := dataset.tokenized.truncated:
        note(f"{cut:,} {examples.split} texts are longer than {session.max_windows} windows and were cut")
    return dataset


def lesson(
    config: Config, model: str, store: Store, examples: Examples, compute: Compute, *, offline: bool
) -> Lesson | None:
    """What the teacher answers to the training rows, with progress; the main process reads, all get the answers.

    None without a teacher. Errors as of `open_teacher` and `lesson` in ``engine/training``.
    """
    from sentiment_hybrid import distributed
    from sentiment_hybrid.console import note, progress
    from sentiment_hybrid.engine.training import distill
    from sentiment_hybrid.engine.training.teacher import open_teacher

    if config.distill.teacher is None:
        return None
    budget = config.training(model).token_budget

    def taught() -> Lesson:
        teacher = open_teacher(
            config, store.labels, store.normalizer, compute=compute, token_budget=budget, offline=offline
        )
        with progress("reading by the teacher", unit="texts") as bar:
            return distill.lesson(teacher, examples, progress=bar.advance)

    found = distributed.from_main(taught)
    note(f"{found.answered:,} of {len(found.kept):,} training texts have the answers of {config.distill.teacher}")
    return found


def keys_beside(config: Config, model: str, store: Store) -> UInt64s:
    """Order hashes of the texts that a model is trained on beside those of its database."""
    import numpy as np

    from sentiment_hybrid.commands.joint import further_keys
    from sentiment_hybrid.engine.training.distill import unlabelled

    keys = [np.empty(0, dtype=np.uint64)]
    if model == JOINT and config.joint.further_source is not None:
        keys.append(further_keys(config, store))
    if config.distill.source is not None:
        texts = unlabelled(config, store, config.training(model).sample_size)
        keys.append(store.hash_raw(texts.raw or texts.texts)[1])
    return np.concatenate(keys)


def load_last(trainer: Trainer, run: Run) -> bool:
    """Go on from the run's last checkpoint, if it has one; returns whether."""
    from sentiment_hybrid import distributed
    from sentiment_hybrid.console import note

    last = distributed.from_main(run.last_state)
    if last is None:
        return False
    trainer.load(last)
    at = trainer.progress
    note(f"going on with {run.id}, epoch {at.epoch}, after {at.step} of {trainer.steps} steps")
    return True


def consume(trainer: Trainer, run: Run, *, minutes: float) -> None:
    """Run the loop to its end: progress, metrics.jsonl, checkpoints; Ctrl-C saves at the next step, then goes through.

    Of several processes the main one writes, and all stop at the same step.

    Args:
        fit: the training, fresh or resumed.
        run: where its metrics and checkpoints go, and what share of its batches is padding.
        minutes: between two checkpoints within an epoch.

    Raises:
        TrainingError: the loss is not a number.
        OutputError: a checkpoint cannot be written; those before it are untouched.
        KeyboardInterrupt: after the state was saved; its message says how to go on.
    """
    from sentiment_hybrid import distributed
    from sentiment_hybrid.console import progress
    from sentiment_hybrid.engine.training.trainer import BudgetEvent, EpochEvent, StepEvent

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
                    f"interrupted; state saved in {run.folder}; add --resume to the same command to go on"
                )


def _tell_epoch(facts: EpochEvent, epochs: int) -> None:
    from sentiment_hybrid.console import note

    validated = ""
    if facts.valid:
        figures = {name.replace("_", " ").replace("f1", "F1"): f"{value:.4f}" for name, value in facts.valid.items()}
        if "macro_f1" not in facts.valid:  # of masked tokens, not of labels
            figures["perplexity"] = f"{math.exp(min(facts.valid['loss'], 700.0)):,.2f}"
        best = ", the best so far" if facts.is_best else ""
        validated = f"; valid {', '.join(f'{name} {value}' for name, value in figures.items())}{best}"
    note(
        f"epoch {facts.epoch} of {epochs}: loss {facts.train_loss:.4f}{validated}; {facts.rows_per_second:,.0f} texts/s"
    )
    if facts.stop and facts.epoch < epochs:
        note("stopping early: no better epoch for as long as train.patience allows")


def _tell_budget(facts: BudgetEvent) -> None:
    from sentiment_hybrid.console import warn

    warn(
        f"out of memory in epoch {facts.epoch}, step {facts.step}: token_budget {facts.before:,} -> "
        f"{facts.token_budget:,}, and the step is done again with the same rows; the run keeps to it"
    )


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
        from sentiment_hybrid import distributed

        if self.pending and not distributed.joined():
            raise KeyboardInterrupt
        self.pending = True


def temperature(session: Session, classifier: Classifier, trainer: Trainer) -> float:
    """What a trained classifier's logits are to be divided by, from the validation rows; 1 where there are none."""
    from sentiment_hybrid.engine.evaluation import metrics
    from sentiment_hybrid.engine.inference.evaluate import predict_probabilities

    valid = cast("Classification", trainer.task).valid
    if valid is None:
        return 1.0
    found = predict_probabilities(
        classifier,
        valid.tokenized,
        compute=session.compute,
        token_budget=trainer.token_budget,
        states=valid.states,
    )
    return round(metrics.temperature(valid.labels, found), 4)


def best_epoch(run: Run) -> tuple[dict[str, Any], dict[str, float]]:
    """The facts of the best epoch, and its figures on the validation split; none where there was no validation."""
    best = [facts for facts in run.epochs() if facts["is_best"]][-1]
    return best, {name: value for name in METRICS if (value := best.get(f"valid_{name}")) is not None}


def check_writable(
    *folders: Path, hint: str = "Choose another folder: --set paths.models_dir=... --set paths.results_dir=..."
) -> None:
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
                hint=hint,
            ) from error
