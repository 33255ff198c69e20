"""What the loop trains for: the micro-batches, the loss and the validation of one kind of training.

The loop knows steps, memory, checkpoints; a task knows texts and what is asked of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F

from sentiment_hybrid import distributed
from sentiment_hybrid.config.schema import Distill
from sentiment_hybrid.data.labels import finder
from sentiment_hybrid.engine.batches import Batch, TokenizedTexts, collate
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.inference.evaluate import predict_probabilities
from sentiment_hybrid.engine.inference.session import EncodedDataset
from sentiment_hybrid.engine.training.distill import mixed, states_loss
from sentiment_hybrid.errors import TrainingError
from sentiment_hybrid.models.classifier import JointClassifier

if TYPE_CHECKING:
    from accelerate import Accelerator


class MicroBatch(Protocol):
    """Rows for one forward and backward pass, with all that their loss needs."""

    @property
    def rows(self) -> np.ndarray: ...  # noqa: D102

    def pinned(self) -> MicroBatch:
        """The same in memory from which a GPU fetches by itself."""


class Task(Protocol):
    """A kind of training. Rows are numbers of training texts; epochs count from 1."""

    @property
    def tokenized(self) -> TokenizedTexts:
        """The training texts."""

    def weight(self, rows: np.ndarray, epoch: int) -> float:
        """What the summed loss of these rows is divided by, above 0."""

    def micro_batch(self, rows: np.ndarray, epoch: int) -> Any:
        """What `summed_loss` takes, a `MicroBatch`."""

    def summed_loss(self, model: torch.nn.Module, part: Any, device: torch.device, accelerator: Accelerator) -> Any:
        """Loss of a micro-batch, summed with its weights: a scalar."""

    def validate(
        self, model: torch.nn.Module, *, compute: Compute, token_budget: int, accelerator: Accelerator
    ) -> dict[str, float]:
        """Figures of the validation texts, the same in all processes; nothing where there are none."""


@dataclass(frozen=True)
class LabelledBatch:
    """Texts, their labels and what a teacher has answered; -1 is no label."""

    rows: np.ndarray
    batch: Batch
    targets: torch.Tensor  # (B,) int64
    weights: torch.Tensor  # (B,) float32
    compared: torch.Tensor | None = None  # (B, C) bool: the labels that a label was chosen among; None: all
    soft: torch.Tensor | None = None  # (B, C) float32, NaN for none
    pooled: torch.Tensor | None = None  # (B, H) float16

    def pinned(self) -> LabelledBatch:
        """The same in memory from which a GPU fetches by itself."""
        tensors = {
            name: value.pin_memory()
            for name in ("targets", "weights", "compared", "soft", "pooled")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, batch=self.batch.pinned(), **tensors)


class Classification:
    """Labels of texts: cross-entropy, weighted by class; validated unless ``valid`` is None.

    A label that was chosen among some labels only says nothing about the others: the probabilities of those some are
    renormalised before they are compared with it (partial labels, as in Cour et al. 2011).
    """

    def __init__(
        self,
        train: EncodedDataset,
        valid: EncodedDataset | None,
        *,
        class_weights: np.ndarray,
        label_smoothing: float = 0.0,
        distillation: Distill | None = None,
    ) -> None:
        self.train, self.valid = train, valid
        self.distillation = distillation or Distill()
        self.class_weights = class_weights.astype(np.float32)
        self.label_smoothing = label_smoothing

    @property
    def tokenized(self) -> TokenizedTexts:
        """The training texts."""
        return self.train.tokenized

    def weight(self, rows: np.ndarray, epoch: int) -> float:
        """The summed class weights of these rows."""
        return float(self._weights(self.train.labels[rows]).sum())

    def _weights(self, targets: np.ndarray) -> np.ndarray:
        """Of each row: that of its class, 1 without a label."""
        return np.where(targets < 0, np.float32(1.0), self.class_weights[targets])

    def micro_batch(self, rows: np.ndarray, epoch: int) -> LabelledBatch:
        """Padded ids or stored states, and the labels."""
        train, targets = self.train, self.train.labels[rows]
        batch, weights = collate(train.tokenized, rows, train.states), torch.from_numpy(self._weights(targets))
        more = [
            None if array is None else torch.from_numpy(array[rows])
            for array in (train.compared, train.soft, train.pooled)
        ]
        return LabelledBatch(rows, batch, torch.from_numpy(targets), weights, *more)

    def summed_loss(
        self, model: torch.nn.Module, part: LabelledBatch, device: torch.device, accelerator: Accelerator
    ) -> torch.Tensor:
        """Weighted cross-entropy, and the distance from the teacher's answers."""
        with accelerator.autocast():
            output = model(**part.batch.inputs(device))
        losses = self.per_row(output.logits, part, device) + self.of_states(output.pooled, part, device)
        return (losses * part.weights.to(device, non_blocking=True)).sum()

    def of_states(self, pooled: torch.Tensor | None, part: LabelledBatch, device: torch.device) -> torch.Tensor | float:
        """Weighted distance from the teacher's pooled states of each row, (B,); 0 where it has none."""
        if pooled is None or part.pooled is None or part.soft is None:
            return 0.0
        answered = ~part.soft[:, 0].isnan().to(device)
        losses = states_loss(pooled, part.pooled.to(device, non_blocking=True))
        return self.distillation.states * torch.where(answered, losses, 0.0)

    def per_row(self, logits: torch.Tensor, part: LabelledBatch, device: torch.device) -> torch.Tensor:
        """Loss of each row, (B,), of logits (B, C): cross-entropy, mixed with the teacher's where it has answered."""
        targets = part.targets.to(device, non_blocking=True)
        if part.soft is None:
            return self._cross_entropy(logits, targets, part, device)
        hard = self._cross_entropy(logits, targets.clamp(min=0), part, device)
        compared = None if part.compared is None else part.compared.to(device, non_blocking=True)
        soft = part.soft.to(device, non_blocking=True)
        return mixed(hard, logits, targets, soft, self.distillation, compared=compared)

    def _cross_entropy(
        self, logits: torch.Tensor, targets: torch.Tensor, part: LabelledBatch, device: torch.device
    ) -> torch.Tensor:
        if part.compared is None:
            return F.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=self.label_smoothing)
        compared = part.compared.to(device, non_blocking=True)
        surprise = -logits.float().masked_fill(~compared, -torch.inf).log_softmax(-1)
        spread = surprise.masked_fill(~compared, 0.0).sum(-1) / compared.sum(-1)
        right = surprise.gather(-1, targets[:, None])[:, 0]
        return (1.0 - self.label_smoothing) * right + self.label_smoothing * spread

    def validate(
        self, model: torch.nn.Module, *, compute: Compute, token_budget: int, accelerator: Accelerator
    ) -> dict[str, float]:
        """Loss, accuracy and macro-F1, of which each process computes its share."""
        if self.valid is None:
            return {}
        own = predict_probabilities(
            model,
            self.valid.tokenized,
            compute=compute,
            token_budget=token_budget,
            states=self.valid.states,
            share=(accelerator.process_index, accelerator.num_processes),
        )
        if accelerator.num_processes == 1:
            return metrics.quick(self.valid.labels, own)
        valid_labels = self.valid.labels
        whole = np.zeros((len(valid_labels), len(self.class_weights)), dtype=np.float32)
        if len(own):
            whole[:] = own
        shared = accelerator.reduce(torch.from_numpy(whole).to(compute.device), "sum")
        # One process reckons: on machines that differ, a last digit could part those that stop from those that go on.
        return distributed.from_main(lambda: metrics.quick(valid_labels, shared.cpu().numpy()))


class JointClassification(Classification):
    """Labels by several heads on one encoder: the losses are summed, the figures are their mean."""

    def summed_loss(
        self, model: torch.nn.Module, part: LabelledBatch, device: torch.device, accelerator: Accelerator
    ) -> torch.Tensor:
        """The losses of all heads; the encoder's states count once."""
        with accelerator.autocast():
            outputs = model(**part.batch.inputs(device))
        losses = torch.stack([self.per_row(output.logits, part, device) for output in outputs]).sum(0)  # (B,)
        losses = losses + self.of_states(outputs[0].pooled, part, device)
        return (losses * part.weights.to(device, non_blocking=True)).sum()

    def validate(
        self, model: torch.nn.Module, *, compute: Compute, token_budget: int, accelerator: Accelerator
    ) -> dict[str, float]:
        """Mean over the heads of loss, accuracy and macro-F1."""
        joint = cast(JointClassifier, model)
        figures = [
            super(JointClassification, self).validate(
                joint.classifier(name), compute=compute, token_budget=token_budget, accelerator=accelerator
            )
            for name in joint.heads
        ]
        return {name: sum(one[name] for one in figures) / len(figures) for name in figures[0]}


def weights_of_classes(kind: str | Mapping[str, float], labels: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Weight of each class (C,): 1, inverse frequency with mean 1 over the rows, or the given ones.

    Raises:
        TrainingError: a map that does not name exactly the labels of the data.
    """
    if isinstance(kind, Mapping):
        find, given = finder(kind), list(kind.values())
        places = [place for name in names if (place := find(name)) is not None]
        if not len(set(places)) == len(names) == len(kind):
            raise TrainingError(
                f"class_weights names {', '.join(sorted(kind))}, and the labels are {', '.join(names)}",
                hint="Give one weight for every label.",
            )
        return np.array([given[place] for place in places], dtype=np.float32)
    if kind == "none":
        return np.ones(len(names), dtype=np.float32)
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    weights: np.ndarray = (counts.sum() / (len(names) * np.maximum(counts, 1))).astype(np.float32)
    return weights
