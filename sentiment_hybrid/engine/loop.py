"""The one training loop: a generator of facts per step and epoch that prints nothing and saves nothing.

Its consumer decides what to do at each fact: draw progress, write metrics, save ``Fit.state()``, or stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from sentiment_hybrid.config.schema import Train
from sentiment_hybrid.engine import metrics, processes
from sentiment_hybrid.engine.batches import collate, plan_epoch, steps_per_epoch
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.evaluate import Material, predict_probabilities
from sentiment_hybrid.engine.optim import Schedule, build_optimizer
from sentiment_hybrid.errors import TrainingError

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class StepFacts:
    """One optimiser step is done; ``loss`` is the epoch's mean so far."""

    epoch: int
    step: int
    steps: int
    rows: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class EpochFacts:
    """One epoch is done and, where there is a validation split, validated; without one, the newest is the best."""

    epoch: int
    train_loss: float
    valid_loss: float | None
    valid_accuracy: float | None
    valid_macro_f1: float | None
    learning_rate: float
    seconds: float
    rows_per_second: float
    is_best: bool
    stop: bool


@dataclass
class Progress:
    """Where a fit stands; JSON-able, and all that resuming needs besides tensors."""

    epoch: int = 1
    step: int = 0  # steps done in this epoch
    global_step: int = 0
    loss_sum: float = 0.0
    weight_sum: float = 0.0
    seconds: float = 0.0
    best_epoch: int = 0
    best_value: float | None = None
    epochs_without_best: int = 0
    stopped: bool = False


@dataclass(frozen=True)
class FitState:
    """A snapshot to save: tensors by name, and JSON-able facts."""

    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


class Fit:
    """Train a classifier on one split and validate on another after each epoch, unless ``valid`` is None.

    A step is exactly batch_size x accumulation rows over all processes; micro-batches under the token budget only
    subdivide it, and its loss is the sum over its rows divided by their total class weight.
    """

    def __init__(
        self,
        classifier: torch.nn.Module,
        train: Material,
        valid: Material | None,
        *,
        settings: Train,
        class_weights: np.ndarray,
        seed: int,
        compute: Compute,
        accelerator: Accelerator,
        layer_decay: float | None = None,
    ) -> None:
        self.train, self.valid = train, valid
        self.settings, self.seed = settings, seed
        self.compute, self.accelerator = compute, accelerator
        self.class_weights = class_weights.astype(np.float32)
        self.rows_per_step = settings.batch_size * settings.accumulation
        self.steps = steps_per_epoch(len(train), self.rows_per_step)
        self.progress = Progress()
        optimizer = build_optimizer(classifier, settings, layer_decay=layer_decay)
        self.schedule = Schedule(optimizer, settings, self.steps * settings.epochs)
        # The planner shards the rows and the schedule counts global steps, so neither goes through `prepare`.
        self.model, self.optimizer = accelerator.prepare(classifier, optimizer)
        self.classifier = accelerator.unwrap_model(self.model)

    def facts(self) -> Iterator[StepFacts | EpochFacts]:
        """Run to the end; a state saved at any fact and loaded again goes on as if nothing had happened.

        Raises:
            TrainingError: the loss is not a number, or another process of this training has ended.
        """
        with processes.watched():
            while self.progress.epoch <= self.settings.epochs and not self.progress.stopped:
                yield from self._epoch_steps()
                yield self._close_epoch()

    def state(self) -> FitState:
        """Weights that train, optimiser moments, random state, and where the fit stands."""
        tensors = {f"model.{name}": value for name, value in trainable_state(self.classifier).items()}
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
        return FitState({name: value.detach().cpu().clone() for name, value in tensors.items()}, facts)

    def load(self, state: FitState) -> None:
        """Go on from a snapshot. Raises TrainingError when it is of another model."""
        facts = dict(state.facts)
        scaler_state = facts.pop("scaler", None)
        load_trainable(
            self.classifier, {k[len("model.") :]: v for k, v in state.tensors.items() if k.startswith("model.")}
        )
        for parameter, name in self._parameter_names().items():
            prefix = f"optimizer.{name}."
            moments = {k[len(prefix) :]: v for k, v in state.tensors.items() if k.startswith(prefix)}
            if moments:
                self.optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device) for key, value in moments.items()
                }
        torch.set_rng_state(state.tensors["rng.cpu"])
        if "rng.cuda" in state.tensors and self.compute.device.type == "cuda":
            torch.cuda.set_rng_state(state.tensors["rng.cuda"], self.compute.device)
        if scaler_state is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler_state)
        self.progress = Progress(**facts)

    def _epoch_steps(self) -> Iterator[StepFacts]:
        progress = self.progress
        self.model.train()
        plan = plan_epoch(
            self.train.tokenized.lengths,
            rows_per_step=self.rows_per_step,
            token_budget=self.settings.token_budget,
            seed=self.seed,
            epoch=progress.epoch,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        for number, (rows, micro_batches) in enumerate(plan):
            if number < progress.step:
                continue  # done before this fit was resumed
            started = time.perf_counter()
            rate = self.schedule.apply(progress.global_step)
            weight = float(self.class_weights[self.train.labels[rows]].sum())
            self._seed_step()
            progress.loss_sum += self._step(micro_batches, weight)
            progress.weight_sum += weight
            progress.step += 1
            progress.global_step += 1
            progress.seconds += time.perf_counter() - started
            mean = progress.loss_sum / progress.weight_sum
            yield StepFacts(progress.epoch, progress.step, self.steps, len(rows), mean, rate)

    def _seed_step(self) -> None:
        """Of several processes each draws dropout of its own, which a snapshot of the main one need not hold."""
        if self.accelerator.num_processes > 1:
            place = [self.seed, self.progress.global_step, self.accelerator.process_index]
            torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def _step(self, micro_batches: list[np.ndarray], step_weight: float) -> float:
        """One optimiser step; returns the summed loss of the step's rows over all processes."""
        # A process without rows of its own still joins in the gradient exchange, with weight 0.
        batches = micro_batches or [np.zeros(1, dtype=np.int64)]
        own = 1.0 if micro_batches else 0.0
        total = torch.zeros((), device=self.compute.device)
        for number, rows in enumerate(batches):
            is_last = number == len(batches) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self.model):
                loss = self._summed_loss(rows) * own
                # Gradients are averaged over processes; the sum over the global rows needs the factor.
                self.accelerator.backward(loss * (self.accelerator.num_processes / step_weight))
            total += loss.detach()
        if self.settings.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return self._checked(float(self.accelerator.reduce(total, "sum")))

    def _summed_loss(self, rows: np.ndarray) -> torch.Tensor:
        batch = collate(self.train.tokenized, rows, self.train.states)
        targets = self.train.labels[rows]
        device = self.compute.device
        with self.accelerator.autocast():
            logits = self.model(**batch.inputs(device)).logits  # (B, C)
        per_row = F.cross_entropy(
            logits.float(),
            torch.from_numpy(targets).to(device),
            reduction="none",
            label_smoothing=self.settings.label_smoothing,
        )  # (B,)
        return (per_row * torch.from_numpy(self.class_weights[targets]).to(device)).sum()

    def _close_epoch(self) -> EpochFacts:
        progress, settings = self.progress, self.settings
        valid = {} if self.valid is None else self._validate(self.valid)
        value = goodness(valid, settings.metric) if valid else None
        is_best = value is None or progress.best_value is None or value > progress.best_value
        if is_best:
            progress.best_value, progress.best_epoch, progress.epochs_without_best = value, progress.epoch, 0
        else:
            progress.epochs_without_best += 1
        progress.stopped = settings.patience is not None and progress.epochs_without_best >= settings.patience
        facts = EpochFacts(
            epoch=progress.epoch,
            train_loss=progress.loss_sum / progress.weight_sum,
            valid_loss=valid.get("loss"),
            valid_accuracy=valid.get("accuracy"),
            valid_macro_f1=valid.get("macro_f1"),
            learning_rate=self.schedule.apply(max(0, progress.global_step - 1)),
            seconds=progress.seconds,
            rows_per_second=len(self.train) / max(progress.seconds, 1e-9),
            is_best=is_best,
            stop=progress.stopped,
        )
        progress.epoch += 1
        progress.step, progress.loss_sum, progress.weight_sum, progress.seconds = 0, 0.0, 0.0, 0.0
        return facts

    def _validate(self, valid: Material) -> dict[str, float]:
        """Figures of the validation rows, of which each process computes its share; the same on all of them."""
        accelerator = self.accelerator
        own = predict_probabilities(
            self.classifier,
            valid.tokenized,
            compute=self.compute,
            token_budget=self.settings.token_budget,
            states=valid.states,
            share=(accelerator.process_index, accelerator.num_processes),
        )
        if accelerator.num_processes == 1:
            return metrics.quick(valid.labels, own)
        whole = np.zeros((len(valid), len(self.class_weights)), dtype=np.float32)
        if len(own):
            whole[:] = own
        shared = accelerator.reduce(torch.from_numpy(whole).to(self.compute.device), "sum")
        # One process reckons: on machines that differ, a last digit could part those that stop from those that go on.
        return processes.from_main(lambda: metrics.quick(valid.labels, shared.cpu().numpy()))

    def _checked(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in epoch {self.progress.epoch}, step {self.progress.step + 1}",
                hint="Lower learning_rate or encoder_learning_rate, set clip_norm, or train with precision: fp32.",
            )
        return loss

    def _parameter_names(self) -> dict[torch.nn.Parameter, str]:
        return {parameter: name for name, parameter in self.classifier.named_parameters() if parameter.requires_grad}


def goodness(valid: Mapping[str, float], metric: str) -> float:
    """A validation figure such that more is better: the loss counts negative."""
    return -valid["loss"] if metric == "loss" else valid[metric]


def trainable_state(classifier: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters that training changes; a frozen encoder's are not among them."""
    return {name: value for name, value in classifier.named_parameters() if value.requires_grad}


def load_trainable(classifier: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put weights back that trainable_state gave. Raises TrainingError when names or shapes differ."""
    own = trainable_state(classifier)
    if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
        raise TrainingError("the checkpoint is of a model of another shape than the one that this run builds")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


def weights_of_classes(kind: str | Mapping[str, float], labels: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Weight of each class (C,): 1, inverse frequency with mean 1 over the rows, or the given ones.

    Raises:
        TrainingError: a map that does not name exactly the labels of the data.
    """
    if isinstance(kind, Mapping):
        if set(kind) != set(names):
            raise TrainingError(
                f"class_weights names {', '.join(sorted(kind))}, and the labels are {', '.join(names)}",
                hint="Give one weight for every label.",
            )
        return np.array([kind[name] for name in names], dtype=np.float32)
    if kind == "none":
        return np.ones(len(names), dtype=np.float32)
    counts = np.bincount(labels, minlength=len(names))
    weights: np.ndarray = (len(labels) / (len(names) * np.maximum(counts, 1))).astype(np.float32)
    return weights
