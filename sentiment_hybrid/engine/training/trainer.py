"""The one training loop: a generator of events that prints nothing and saves nothing.

The caller decides what to do at each event: show progress, write metrics, save ``Trainer.state()``, or stop.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch

from sentiment_hybrid import distributed
from sentiment_hybrid.config.schema import Train
from sentiment_hybrid.engine.batches import MicroBatch, pinned, plan_epoch, steps_per_epoch
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.memory import TokenBudget, keep_freed, out_of_memory, ran_out
from sentiment_hybrid.engine.prefetch import one_ahead
from sentiment_hybrid.engine.training.checkpoints import TrainerState, load_trainable, trainable_state
from sentiment_hybrid.engine.training.events import BudgetEvent, EpochEvent, StepEvent, TrainerProgress, selection_score
from sentiment_hybrid.engine.training.optim import build_optimizer
from sentiment_hybrid.engine.training.tasks import Task
from sentiment_hybrid.errors import TrainingError

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Steps between two reads of the loss from a GPU: a read waits for it.
_READ_EVERY = 16


class Trainer:
    """Trains a model for a task, and validates it after each epoch if the task has validation texts.

    A step is exactly batch_size x accumulation rows over all processes; micro-batches under the token budget only
    subdivide it, and its loss is the sum over its rows divided by their total weight. If a step runs out of memory,
    it is repeated with a smaller budget.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        task: Task,
        *,
        settings: Train,
        seed: int,
        compute: Compute,
        accelerator: Accelerator,
        layer_decay: float | None = None,
    ) -> None:
        self.task = task
        self.rows = len(task.tokenized)
        self.settings, self.seed = settings, seed
        self.compute, self.accelerator = compute, accelerator
        if compute.device.type == "cpu":
            keep_freed()
        self.budget = TokenBudget(
            settings.token_budget, task.tokenized.lengths, device=compute.device, processes=accelerator.num_processes
        )
        self._unread: list[tuple[int, torch.Tensor]] = []  # (step, its loss) on the device, since the last read
        self._mean_loss = math.nan
        self._read_every = 1 if compute.device.type == "cpu" else _READ_EVERY
        self.rows_per_step = settings.batch_size * settings.accumulation
        self.steps = steps_per_epoch(self.rows, self.rows_per_step)
        self.progress = TrainerProgress()
        optimizer = build_optimizer(model, settings, layer_decay=layer_decay)
        self._peak_rates = [group["lr"] for group in optimizer.param_groups]
        # Only these two: the plan of an epoch shards the rows, and the learning rate counts global steps.
        # Without device_placement, accelerate imports torch's compiler, as does `unwrap_model`: 1 s.
        self.model, self.optimizer = accelerator.prepare(model, optimizer, device_placement=[True, True])
        self.bare = model

    @property
    def token_budget(self) -> int:
        """The current token budget of a micro-batch."""
        return self.budget.tokens

    def events(self) -> Iterator[StepEvent | BudgetEvent | EpochEvent]:
        """Train to the end; a state saved at any event and loaded again continues exactly from there.

        Raises:
            TrainingError: the loss is not finite, a single text does not fit in memory, or another process of this
                training has ended.
        """
        with distributed.watched():
            while self.progress.epoch <= self.settings.epochs and not self.progress.stopped:
                yield from self._epoch_steps()
                yield self._close_epoch()

    # --- one epoch

    def _epoch_steps(self) -> Iterator[StepEvent | BudgetEvent]:
        progress = self.progress
        self.model.train()
        for rows, batches in self._batches(progress.epoch, after=progress.step):
            started = time.perf_counter()
            rate = self._set_learning_rate(progress.global_step)
            weight = self.task.weight(rows, progress.epoch)
            yield from self._step(rows, batches, weight)
            progress.weight_sum += weight
            progress.step += 1
            progress.global_step += 1
            # The mean is unknown at the start of an epoch and of a resumed training.
            if math.isnan(self._mean_loss) or progress.step % self._read_every == 0:
                self._read_losses()
            progress.seconds += time.perf_counter() - started
            yield StepEvent(progress.epoch, progress.step, self.steps, len(rows), self._mean_loss, rate)
        self._read_losses()

    def _batches(self, epoch: int, *, after: int) -> Iterator[tuple[np.ndarray, list[MicroBatch]]]:
        """Of each step after the first ``after``: its rows over all processes, and this process's micro-batches.

        With a GPU, the next step is prepared while the current one is computed.
        """
        plan = plan_epoch(
            self.task.tokenized.lengths,
            rows_per_step=self.rows_per_step,
            token_budget=self.token_budget,
            seed=self.seed,
            epoch=epoch,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        steps = itertools.islice(plan, after, None)
        if self.compute.device.type != "cuda":
            return ((rows, [self._micro_batch(part) for part in parts]) for rows, parts in steps)
        gpu = torch.cuda.current_device()

        def prepared(step: tuple[np.ndarray, list[np.ndarray]]) -> tuple[np.ndarray, list[MicroBatch]]:
            torch.cuda.set_device(gpu)  # a new thread starts on the first GPU, and pinning would open a context there
            return step[0], [pinned(self._micro_batch(part)) for part in step[1]]

        return one_ahead(prepared, steps)

    def _micro_batch(self, rows: np.ndarray) -> MicroBatch:
        batch: MicroBatch = self.task.micro_batch(rows, self.progress.epoch)
        return batch

    def _set_learning_rate(self, step: int) -> float:
        """Set the rates for a global step, counted from 0; returns that of the head."""
        factor = schedule_factor(step, self.steps * self.settings.epochs, self.settings)
        for group, peak in zip(self.optimizer.param_groups, self._peak_rates, strict=True):
            group["lr"] = peak * factor
        return max(group["lr"] for group in self.optimizer.param_groups)

    def _close_epoch(self) -> EpochEvent:
        """Validate, and decide whether the epoch is the best one and whether to stop."""
        progress, settings = self.progress, self.settings
        valid = self.task.validate(
            self.bare, compute=self.compute, token_budget=self.token_budget, accelerator=self.accelerator
        )
        value = selection_score(valid, settings.metric) if valid else None
        is_best = value is None or progress.best_value is None or value > progress.best_value
        if is_best:
            progress.best_value, progress.best_epoch, progress.epochs_without_best = value, progress.epoch, 0
        else:
            progress.epochs_without_best += 1
        progress.stopped = settings.patience is not None and progress.epochs_without_best >= settings.patience
        event = EpochEvent(
            epoch=progress.epoch,
            train_loss=progress.loss_sum / progress.weight_sum,
            valid=valid,
            learning_rate=self._set_learning_rate(max(0, progress.global_step - 1)),
            seconds=progress.seconds,
            rows_per_second=self.rows / max(progress.seconds, 1e-9),
            is_best=is_best,
            stop=progress.stopped,
        )
        progress.epoch += 1
        progress.step, progress.loss_sum, progress.weight_sum, progress.seconds = 0, 0.0, 0.0, 0.0
        self._mean_loss = math.nan
        return event

    # --- one step

    def _step(self, rows: np.ndarray, batches: list[MicroBatch], weight: float) -> Iterator[BudgetEvent]:
        """One optimizer step, repeated with a smaller budget until it fits in memory."""
        random = _random_state(self.compute.device)
        while True:
            self._seed_step()
            batches = self.budget.split(batches, self._micro_batch)
            first = self.progress.global_step == 0
            if self.budget.fits(rows, lambda batches=batches: self._rehearse(batches), first=first):  # type: ignore[misc]
                loss = self._gradients(batches, weight)
                if loss is not None:
                    break
            self.optimizer.zero_grad(set_to_none=True)
            before, after = self.budget.lower(batches)
            yield BudgetEvent(self.progress.epoch, self.progress.step + 1, before, after)
            _set_random_state(random, self.compute.device)
        self._update()
        self._unread.append((self.progress.step + 1, self.accelerator.reduce(loss, "sum")))

    def _rehearse(self, batches: list[MicroBatch]) -> bool:
        """Whether this process has memory for the gradients, which are discarded."""
        fits = self._gradients(batches, 1.0, exchange=False) is not None
        self.optimizer.zero_grad(set_to_none=True)
        self._seed_step()
        return fits

    def _seed_step(self) -> None:
        """Give each of several processes its own dropout, which a checkpoint of the main one does not have to hold."""
        if self.accelerator.num_processes > 1:
            key = [self.seed, self.progress.global_step, self.accelerator.process_index]
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def _gradients(self, batches: list[MicroBatch], weight: float, *, exchange: bool = True) -> torch.Tensor | None:
        """Compute the gradients of a step; returns the summed loss of this process's rows, or None without memory.

        Without ``exchange``, gradients are not averaged over the processes.
        """
        # A process without rows in this step still takes part in the exchange, with weight 0.
        parts = batches or [self._micro_batch(np.zeros(1, dtype=np.int64))]
        total = torch.zeros((), device=self.compute.device)
        try:
            for number, part in enumerate(parts):
                sync = exchange and number == len(parts) - 1
                with nullcontext() if sync else self.accelerator.no_sync(self.model):
                    loss = self.task.summed_loss(self.model, part, self.compute.device, self.accelerator)
                    loss = loss * (1.0 if batches else 0.0)
                    # Gradients are averaged over processes; the sum over the global rows needs the factor.
                    self.accelerator.backward(loss * (self.accelerator.num_processes / weight))
                total += loss.detach()
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            if exchange and self.accelerator.num_processes > 1:
                # The other processes are waiting for these gradients and cannot be notified; the launcher ends them.
                raise out_of_memory("a step that fitted before no longer fits") from error
            return None
        return total

    def _update(self) -> None:
        try:
            if self.settings.clip_norm is not None:
                self._clip(self.settings.clip_norm)
            self.optimizer.step()
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            # The batch has been freed already, so a smaller budget would not help.
            raise out_of_memory("the optimiser's moments do not fit") from error
        self.optimizer.zero_grad(set_to_none=True)

    def _clip(self, max_norm: float) -> None:
        """Clip the norm of all gradients together (Pascanu et al. 2013, algorithm 1)."""
        if self.compute.device.type != "cpu":
            self.accelerator.clip_grad_norm_(self.model.parameters(), max_norm)
            return
        gradients = [value.grad for value in self.model.parameters() if value.grad is not None]
        # The fused step divides by it; a separate pass over all gradients would cost as much as that step.
        self.optimizer.optimizer.grad_scale = (torch.nn.utils.get_total_norm(gradients) / max_norm).clamp(min=1.0)

    def _read_losses(self) -> None:
        """Fetch the losses of the steps since the last read, which waits for the device.

        Raises:
            TrainingError: one of them is not finite.
        """
        if not self._unread:
            return
        steps, losses = zip(*self._unread, strict=True)
        self._unread = []
        for step, loss in zip(steps, torch.stack(losses).tolist(), strict=True):
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss became {loss} in epoch {self.progress.epoch}, step {step}",
                    hint="Lower learning_rate or encoder_learning_rate, set clip_norm, or train with precision: fp32.",
                )
            self.progress.loss_sum += loss
        self._mean_loss = self.progress.loss_sum / self.progress.weight_sum

    # --- checkpoints

    def state(self) -> TrainerState:
        """A copy of the trainable weights, the optimizer's moments, the random state, and the progress.

        Raises:
            TrainingError: the loss is not finite; such weights are not worth keeping.
        """
        self._read_losses()
        names = {parameter: name for name, parameter in trainable_state(self.bare).items()}
        tensors: dict[str, torch.Tensor] = {f"model.{name}": parameter for parameter, name in names.items()}
        for parameter, moments in self.optimizer.state.items():
            for key, value in moments.items():
                tensors[f"optimizer.{names[parameter]}.{key}"] = torch.as_tensor(value)
        tensors |= _random_state(self.compute.device)
        record = dict(vars(self.progress))
        if (scaler := getattr(self.accelerator, "scaler", None)) is not None:
            record["scaler"] = scaler.state_dict()
        return TrainerState({name: value.detach().cpu().clone() for name, value in tensors.items()}, record)

    def load(self, state: TrainerState) -> None:
        """Continue from a state. Raises TrainingError if it belongs to another model."""
        record = dict(state.progress)
        scaler_state = record.pop("scaler", None)
        load_trainable(self.bare, state.part("model."))
        for name, parameter in trainable_state(self.bare).items():
            if moments := state.part(f"optimizer.{name}."):
                self.optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in moments.items()}
        _set_random_state(state.tensors, self.compute.device)
        if scaler_state is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler_state)
        self.progress = TrainerProgress(**record)


def schedule_factor(step: int, total_steps: int, settings: Train) -> float:
    """Share of the peak learning rate at a step, counted from 0: warm-up, then linear or cosine decay, or constant."""
    warmup = min(settings.warmup_steps, total_steps // 4)  # a short training would otherwise end during its warm-up
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, total_steps - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * done)) if settings.schedule == "cosine" else max(0.0, 1.0 - done)


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of the random number generators that dropout draws from."""
    state = {"rng.cpu": torch.get_rng_state()}
    return state | ({"rng.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["rng.cpu"])
    if "rng.cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["rng.cuda"], device)
