"""The one training loop: a generator of facts per step and epoch that prints nothing and saves nothing.

Its consumer decides what to do at each fact: draw progress, write metrics, save ``Trainer.state()``, or stop.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from sentiment_hybrid import distributed
from sentiment_hybrid.config.schema import Train
from sentiment_hybrid.engine.batches import padding_share, plan_epoch, steps_per_epoch
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.memory import exhausted, keep_freed, ran_out
from sentiment_hybrid.engine.prefetch import one_ahead
from sentiment_hybrid.engine.training.checkpoints import TrainerState, load_trainable, trainable_state
from sentiment_hybrid.engine.training.events import BudgetEvent, EpochEvent, Progress, StepEvent, selection_score
from sentiment_hybrid.engine.training.optim import Schedule, build_optimizer
from sentiment_hybrid.engine.training.tasks import MicroBatch, Task
from sentiment_hybrid.engine.training.token_budget import RandomState, TokenBudget
from sentiment_hybrid.errors import TrainingError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")
R = TypeVar("R")

#: Steps after which losses are read from a device that computes on its own: reading waits for it.
_READ_EVERY = 16


@dataclass(frozen=True)
class _Step:
    """All rows of a step over all processes, and this process's micro-batches; none if it has no rows."""

    rows: np.ndarray
    own: list[MicroBatch]


class Trainer:
    """Train a model for a task, validating after each epoch where the task has something to validate on.

    A step is exactly batch_size x accumulation rows over all processes; micro-batches under the token budget only
    subdivide it, and its loss is the sum over its rows divided by their total weight. Where memory runs out, the
    budget is lowered and the step done again.
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
            settings.token_budget,
            task.tokenized.lengths,
            device=compute.device,
            processes=accelerator.num_processes,
        )
        self._unread: list[tuple[int, torch.Tensor]] = []  # (step, its loss) on the device, since last read
        self._mean_loss = math.nan
        self._read_every = 1 if compute.device.type == "cpu" else _READ_EVERY
        self.rows_per_step = settings.batch_size * settings.accumulation
        self.steps = steps_per_epoch(self.rows, self.rows_per_step)
        self.progress = Progress()
        optimizer = build_optimizer(model, settings, layer_decay=layer_decay)
        self.schedule = Schedule(optimizer, settings, self.steps * settings.epochs)
        # The planner shards the rows and the schedule counts global steps, so neither goes through `prepare`.
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.bare = accelerator.unwrap_model(self.model)

    @property
    def token_budget(self) -> int:
        """The most tokens of a micro-batch, as it stands now."""
        return self.budget.tokens

    def events(self) -> Iterator[StepEvent | BudgetEvent | EpochEvent]:
        """Run to the end; a state saved at any fact and loaded again goes on as if nothing had happened.

        Raises:
            TrainingError: the loss is not a number, a single text finds no memory, or another process of this
                training has ended.
        """
        with distributed.watched():
            while self.progress.epoch <= self.settings.epochs and not self.progress.stopped:
                yield from self._epoch_steps()
                yield self._close_epoch()

    def padding(self) -> float:
        """Share of padded places in the micro-batches of an epoch."""
        return padding_share(
            self.task.tokenized,
            rows_per_step=self.rows_per_step,
            token_budget=self.token_budget,
            seed=self.seed,
        )

    def state(self) -> TrainerState:
        """Weights that train, optimiser moments, random state, and where the fit stands.

        Raises:
            TrainingError: the loss is not a number; such weights are not worth keeping.
        """
        self._read_losses()
        tensors = {f"model.{name}": value for name, value in trainable_state(self.bare).items()}
        names = self._parameter_names()
        for parameter, moments in self.optimizer.state.items():
            for key, value in moments.items():
                tensors[f"optimizer.{names[parameter]}.{key}"] = torch.as_tensor(value)
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.compute.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.compute.device)
        facts = dict(vars(self.progress))
        scaler = getattr(self.accelerator, "scaler", None)
        if scaler is not None:
            facts["scaler"] = scaler.state_dict()
        # A copy: the tensors go on changing while a consumer writes them.
        return TrainerState({name: value.detach().cpu().clone() for name, value in tensors.items()}, facts)

    def load(self, state: TrainerState) -> None:
        """Go on from a snapshot. Raises TrainingError when it is of another model."""
        facts = dict(state.facts)
        scaler_state = facts.pop("scaler", None)
        load_trainable(self.bare, {k[len("model.") :]: v for k, v in state.tensors.items() if k.startswith("model.")})
        for parameter, name in self._parameter_names().items():
            prefix = f"optimizer.{name}."
            moments = {k[len(prefix) :]: v for k, v in state.tensors.items() if k.startswith(prefix)}
            if moments:
                self.optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in moments.items()}
        torch.set_rng_state(state.tensors["rng.cpu"])
        if "rng.cuda" in state.tensors and self.compute.device.type == "cuda":
            torch.cuda.set_rng_state(state.tensors["rng.cuda"], self.compute.device)
        if scaler_state is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler_state)
        self.progress = Progress(**facts)

    def _epoch_steps(self) -> Iterator[StepEvent | BudgetEvent]:
        progress = self.progress
        self.model.train()
        for prepared in self._prepared(progress.epoch, after=progress.step):
            started = time.perf_counter()
            rate = self.schedule.apply(progress.global_step)
            weight = self.task.weight(prepared.rows, progress.epoch)
            yield from self._step(prepared, weight)
            progress.weight_sum += weight
            progress.step += 1
            progress.global_step += 1
            # Also where the mean is not known yet: at the start of an epoch, or of a fit that goes on.
            if math.isnan(self._mean_loss) or progress.step % self._read_every == 0:
                self._read_losses()
            progress.seconds += time.perf_counter() - started
            yield StepEvent(progress.epoch, progress.step, self.steps, len(prepared.rows), self._mean_loss, rate)
        self._read_losses()

    def _prepared(self, epoch: int, *, after: int) -> Iterator[_Step]:
        """The steps of an epoch after the first ones; beside a GPU one is always made while another is computed."""
        plan = plan_epoch(
            self.task.tokenized.lengths,
            rows_per_step=self.rows_per_step,
            token_budget=self.token_budget,
            seed=self.seed,
            epoch=epoch,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        to_come = itertools.islice(plan, after, None)
        if self.compute.device.type != "cuda":
            return (self._collated(rows, micro_batches) for rows, micro_batches in to_come)
        gpu = torch.cuda.current_device()

        def pinned(step: tuple[np.ndarray, list[np.ndarray]]) -> _Step:
            torch.cuda.set_device(gpu)  # a new thread starts on the first GPU, and pinning would open a context there
            return self._collated(*step, pin=True)

        return one_ahead(pinned, to_come)

    def _collated(self, rows: np.ndarray, micro_batches: list[np.ndarray], *, pin: bool = False) -> _Step:
        own = [self._micro_batch(part) for part in micro_batches]
        return _Step(rows, [part.pinned() for part in own] if pin else own)

    def _micro_batch(self, rows: np.ndarray) -> MicroBatch:
        made: MicroBatch = self.task.micro_batch(rows, self.progress.epoch)
        return made

    def _step(self, prepared: _Step, weight: float) -> Iterator[BudgetEvent]:
        """One optimiser step, tried again under a lower budget for as long as it finds no memory."""
        random = RandomState(self.compute.device)
        while True:
            self._seed_step()
            own = self.budget.within(prepared.own, self._micro_batch)
            first = self.progress.global_step == 0
            if self.budget.suffices(prepared.rows, lambda own=own: self._rehearse(own), first=first):  # type: ignore[misc]
                loss = self._gradients(own, weight)
                if loss is not None:
                    break
            self.optimizer.zero_grad(set_to_none=True)
            before, after = self.budget.lower(own)
            yield BudgetEvent(self.progress.epoch, self.progress.step + 1, before, after)
            random.restore()
        self._take_step()
        self._unread.append((self.progress.step + 1, self.accelerator.reduce(loss, "sum")))

    def _rehearse(self, own: list[MicroBatch]) -> bool:
        """Whether this process has memory for the gradients; leaves none."""
        fits = self._gradients(own, 1.0, exchange=False) is not None
        self.optimizer.zero_grad(set_to_none=True)
        self._seed_step()
        return fits

    def _seed_step(self) -> None:
        """Of several processes each draws dropout of its own, which a snapshot of the main one need not hold."""
        if self.accelerator.num_processes > 1:
            place = [self.seed, self.progress.global_step, self.accelerator.process_index]
            torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def _gradients(self, own: list[MicroBatch], step_weight: float, *, exchange: bool = True) -> torch.Tensor | None:
        """Gradients of a step; returns the summed loss of this process's rows, or None where there was no memory.

        Without ``exchange`` no other process is waited for.
        """
        # A process without rows of its own still joins in the gradient exchange, with weight 0.
        batches = own or [self._micro_batch(np.zeros(1, dtype=np.int64))]
        total = torch.zeros((), device=self.compute.device)
        try:
            for number, part in enumerate(batches):
                meets = exchange and number == len(batches) - 1
                with nullcontext() if meets else self.accelerator.no_sync(self.model):
                    loss = self.task.summed_loss(self.model, part, self.compute.device, self.accelerator)
                    loss = loss * (1.0 if own else 0.0)
                    # Gradients are averaged over processes; the sum over the global rows needs the factor.
                    self.accelerator.backward(loss * (self.accelerator.num_processes / step_weight))
                total += loss.detach()
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            if exchange and self.accelerator.num_processes > 1:
                # The others wait for this one's gradients and cannot be told; the launcher ends them.
                raise exhausted("a step that had memory before has none now") from error
            return None
        return total

    def _clip(self, most: float) -> None:
        """Bound the norm of all gradients together (Pascanu et al. 2013, algorithm 1)."""
        adamw = self.optimizer.optimizer
        if self.compute.device.type != "cpu" or not adamw.defaults.get("fused"):
            self.accelerator.clip_grad_norm_(self.model.parameters(), most)
            return
        gradients = [value.grad for value in self.model.parameters() if value.grad is not None]
        # The fused step divides by it in passing: going once more over all gradients costs as much as that step.
        adamw.grad_scale = (torch.nn.utils.get_total_norm(gradients) / most).clamp(min=1.0)

    def _take_step(self) -> None:
        try:
            if self.settings.clip_norm is not None:
                self._clip(self.settings.clip_norm)
            self.optimizer.step()
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            # Nothing of a batch is held any more: a lower budget would not help.
            raise exhausted("the optimiser's moments do not fit") from error
        self.optimizer.zero_grad(set_to_none=True)

    def _read_losses(self) -> None:
        """Fetch the losses of the steps since the last time, which waits for the device.

        Raises:
            TrainingError: one of them is not a number.
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

    def _close_epoch(self) -> EpochEvent:
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
            learning_rate=self.schedule.apply(max(0, progress.global_step - 1)),
            seconds=progress.seconds,
            rows_per_second=self.rows / max(progress.seconds, 1e-9),
            is_best=is_best,
            stop=progress.stopped,
        )
        progress.epoch += 1
        progress.step, progress.loss_sum, progress.weight_sum, progress.seconds = 0, 0.0, 0.0, 0.0
        self._mean_loss = math.nan
        return event

    def _parameter_names(self) -> dict[torch.nn.Parameter, str]:
        return {parameter: name for name, parameter in self.bare.named_parameters() if parameter.requires_grad}
