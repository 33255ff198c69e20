"""The events that a trainer yields, and its progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentiment_hybrid.config.sections import METRICS


@dataclass(frozen=True)
class StepEvent:
    """An optimizer step is done; ``loss`` is the mean over the epoch when it was last read from the device.

    On a CPU that is every step; reading from a GPU would wait for it, and is done every few steps.
    """

    epoch: int
    step: int
    steps: int
    rows: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class BudgetEvent:
    """A step ran out of memory, and is repeated with a smaller token budget, which also applies from now on."""

    epoch: int
    step: int
    before: int
    token_budget: int


@dataclass(frozen=True)
class EpochEvent:
    """An epoch is done and, with a validation split, validated; without one, the newest is the best."""

    epoch: int
    train_loss: float
    valid: Mapping[str, float]
    learning_rate: float
    seconds: float
    rows_per_second: float
    is_best: bool
    stop: bool

    def as_record(self) -> dict[str, Any]:
        """A line of metrics.jsonl; metrics that were not measured are null."""
        record = dict(vars(self))
        valid = record.pop("valid")
        return record | {f"valid_{name}": valid.get(name) for name in METRICS}


@dataclass
class TrainerProgress:
    """The progress of a training as JSON values: what resuming needs besides tensors."""

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


def selection_score(valid: Mapping[str, float], metric: str) -> float:
    """A validation metric, negated if lower is better."""
    return valid[metric] if METRICS[metric] else -valid[metric]
