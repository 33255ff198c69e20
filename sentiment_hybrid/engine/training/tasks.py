"""What the loop trains for: the micro-batches, the loss and the validation of one kind of training.

The loop knows steps, memory, checkpoints; a task knows texts and what is asked of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F

from sentiment_hybrid import distributed
from sentiment_hybrid.engine.batches import Batch, TokenizedTexts, collate
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.inference.evaluate import predict_probabilities
from sentiment_hybrid.engine.inference.session import EncodedDataset
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
    """Texts, their labels, and among which labels each was chosen."""

    rows: np.ndarray
    batch: Batch
    targets: torch.Tensor  # (B,) int64
    weights: torch.Tensor  # (B,) float32
    compared: torch.Tensor | None = None  # (B, C) bool; None: among all

    def pinned(self) -> LabelledBatch:
        """The same in memory from which a GPU fetches by itself."""
        tensors = {
            name: value.pin_memory()
            for name in ("targets", "weights", "compared")
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
    ) -> None:
        self.train, self.valid = train, valid
        self.class_weights = class_weights.astype(np.float32)
        self.label_smoothing = label_smoothing

    @property
    def tokenized(self) -> TokenizedTexts:
        """The training texts."""
        return self.train.tokenized

    def weight(self, rows: np.ndarray, epoch: int) -> float:
        """The summed class weights of these rows."""
        return float(self.class_weights[self.train.labels[rows]].sum())

    def micro_batch(self, rows: np.ndarray, epoch: int) -> LabelledBatch:
        """Padded ids or stored states, and the labels."""
        targets, compared = self.train.labels[rows], self.train.compared
        return LabelledBatch(
            rows,
            collate(self.train.tokenized, rows, self.train.states),
            torch.from_numpy(targets),
            torch.from_numpy(self.class_weights[targets]),
            None if compared is None else torch.from_numpy(compared[rows]),
        )

    def summed_loss(
        self, model: torch.nn.Module, part: LabelledBatch, device: torch.device, accelerator: Accelerator
    ) -> torch.Tensor:
        """Weighted cross-entropy."""
        with accelerator.autocast():
            logits = model(**part.batch.inputs(device)).logits  # (B, C)
        return (self.per_row(logits, part, device) * part.weights.to(device, non_blocking=True)).sum()

    def per_row(self, logits: torch.Tensor, part: LabelledBatch, device: torch.device) -> torch.Tensor:
        """Cross-entropy of each row, (B,), of logits (B, C)."""
        targets = part.targets.to(device, non_blocking=True)
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
        """Weighted cross-entropy of all heads."""
        with accelerator.autocast():
            outputs = model(**part.batch.inputs(device))
        losses = torch.stack([self.per_row(output.logits, part, device) for output in outputs])  # (heads, B)
        return (losses.sum(0) * part.weights.to(device, non_blocking=True)).sum()

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
