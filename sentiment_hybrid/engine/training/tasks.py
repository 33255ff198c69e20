"""Training tasks: micro-batches, loss and validation of one kind of training.

The trainer handles steps, memory and checkpoints; a task handles texts and their targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

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
from sentiment_hybrid.engine.training.distill import distillation_loss, state_loss
from sentiment_hybrid.errors import TrainingError
from sentiment_hybrid.models.classifier import HeadOutput, JointClassifier

if TYPE_CHECKING:
    from accelerate import Accelerator


class Task(Protocol):
    """A kind of training. Rows are indices of training texts; epochs count from 1."""

    @property
    def tokenized(self) -> TokenizedTexts:
        """The training texts."""

    def weight(self, rows: np.ndarray, epoch: int) -> float:
        """The divisor of the summed loss of these rows, above 0."""

    def micro_batch(self, rows: np.ndarray, epoch: int) -> Any:
        """The `MicroBatch` of these rows for `summed_loss`."""

    def summed_loss(self, model: torch.nn.Module, part: Any, device: torch.device, accelerator: Accelerator) -> Any:
        """The weighted sum of the losses of a micro-batch, a scalar."""

    def validate(
        self, model: torch.nn.Module, *, compute: Compute, token_budget: int, accelerator: Accelerator
    ) -> dict[str, float]:
        """Validation metrics, the same in all processes; empty without validation texts."""


@dataclass(frozen=True)
class LabelledBatch:
    """Texts with their labels (-1 for none) and the teacher's targets."""

    rows: np.ndarray
    batch: Batch
    targets: torch.Tensor  # (B,) int64
    weights: torch.Tensor  # (B,) float32
    compared: torch.Tensor | None = None  # (B, C) bool: the labels that each label was chosen among; None: all
    soft: torch.Tensor | None = None  # (B, C) float32, NaN for none
    pooled: torch.Tensor | None = None  # (B, H) float16

    def to(self, device: torch.device) -> LabelledBatch:
        """Everything but the texts on a device; `Batch.inputs` moves those."""
        if device.type == "cpu":
            return self
        tensors = ((name, value) for name, value in vars(self).items() if isinstance(value, torch.Tensor))
        moved: dict[str, Any] = {name: value.to(device, non_blocking=True) for name, value in tensors}
        return replace(self, **moved)


class Classification:
    """Classification of texts by one or several heads on an encoder; their losses are summed, their metrics averaged.

    The loss is cross-entropy, weighted by class. A label that was chosen among some labels only is compared with the
    probabilities of those labels, renormalised (partial labels, as in Cour et al. 2011).
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
        self.tokenized = train.tokenized
        self.distillation = distillation or Distill()
        self.class_weights = class_weights.astype(np.float32)
        self.label_smoothing = label_smoothing

    def weight(self, rows: np.ndarray, epoch: int) -> float:
        """The sum of the class weights of these rows."""
        return float(self._weights(self.train.labels[rows]).sum())

    def _weights(self, targets: np.ndarray) -> np.ndarray:
        """The class weight of each row; 1 for a row without a label."""
        return np.where(targets < 0, np.float32(1.0), self.class_weights[targets])

    def micro_batch(self, rows: np.ndarray, epoch: int) -> LabelledBatch:
        """Padded token ids or stored states, with labels and the teacher's targets."""
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
        """The weighted loss of all heads; that of the pooled states, which they share, counts once."""
        with accelerator.autocast():
            output = model(**part.batch.inputs(device))
        outputs = (output,) if isinstance(output, HeadOutput) else output
        part = part.to(device)
        losses = sum(self.row_losses(one.logits, part) for one in outputs) + self._state_losses(outputs[0].pooled, part)
        return (losses * part.weights).sum()

    def row_losses(self, logits: torch.Tensor, part: LabelledBatch) -> torch.Tensor:
        """Loss of each row, (B,), for logits (B, C): cross-entropy, combined with the teacher's if there is one."""
        if part.soft is None:
            return self._cross_entropy(logits, part.targets, part.compared)
        hard = self._cross_entropy(logits, part.targets.clamp(min=0), part.compared)
        return distillation_loss(hard, logits, part.targets, part.soft, self.distillation)

    def _state_losses(self, pooled: torch.Tensor | None, part: LabelledBatch) -> torch.Tensor | float:
        """Weighted distance of pooled states from the teacher's, (B,); 0 for rows without an answer."""
        if pooled is None or part.pooled is None or part.soft is None:
            return 0.0
        return self.distillation.states * torch.where(part.soft[:, 0].isnan(), 0.0, state_loss(pooled, part.pooled))

    def _cross_entropy(
        self, logits: torch.Tensor, targets: torch.Tensor, compared: torch.Tensor | None
    ) -> torch.Tensor:
        if compared is None:
            return F.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=self.label_smoothing)
        nll = -logits.float().masked_fill(~compared, -torch.inf).log_softmax(-1)
        uniform = nll.masked_fill(~compared, 0.0).sum(-1) / compared.sum(-1)
        return (1.0 - self.label_smoothing) * nll.gather(-1, targets[:, None])[:, 0] + self.label_smoothing * uniform

    def validate(
        self, model: torch.nn.Module, *, compute: Compute, token_budget: int, accelerator: Accelerator
    ) -> dict[str, float]:
        """Loss, accuracy and macro-F1, averaged over the heads; each process computes its part."""
        if self.valid is None:
            return {}
        heads = [model.classifier(name) for name in model.heads] if isinstance(model, JointClassifier) else [model]
        found = [self._validate(head, self.valid, compute, token_budget, accelerator) for head in heads]
        return {name: sum(one[name] for one in found) / len(found) for name in found[0]}

    def _validate(
        self, model: torch.nn.Module, valid: EncodedDataset, compute: Compute, token_budget: int,
        accelerator: Accelerator,
    ) -> dict[str, float]:  # fmt: skip
        own = predict_probabilities(
            model,
            valid.tokenized,
            compute=compute,
            token_budget=token_budget,
            states=valid.states,
            process=(accelerator.process_index, accelerator.num_processes),
        )
        if accelerator.num_processes == 1:
            return metrics.quick(valid.labels, own)
        whole = np.zeros((len(valid), len(self.class_weights)), dtype=np.float32)
        if len(own):
            whole[:] = own
        shared = accelerator.reduce(torch.from_numpy(whole).to(compute.device), "sum")
        # One process computes them: if machines differ in the last digit, some would stop and others continue.
        return distributed.from_main(lambda: metrics.quick(valid.labels, shared.cpu().numpy()))


def weights_of_classes(kind: str | Mapping[str, float], labels: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Weight of each class (C,): 1, inverse frequency with mean 1 over the rows, or the given ones.

    Raises:
        TrainingError: the given weights are not for exactly the labels of the data.
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
