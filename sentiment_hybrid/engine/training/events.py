"""What a trainer yields, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentiment_hybrid.config.sections import METRICS


@dataclass(frozen=True)
class StepEvent:
    """One optimiser step is done; ``loss`` is the epoch's mean when it was last read.

    It is read at every step of a CPU, and elsewhere, where reading would wait for the device, now and then.
    """

    epoch: int
    step: int
    steps: int
    rows: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class BudgetEvent:
    """A step found no memory, and is done again under a lower token budget, which holds from now on."""

    epoch: int
    step: int
    before: int
    token_budget: int


@dataclass(frozen=True)
class EpochEvent:
    """One epoch is done and, where there is a validation split, validated; without one, the newest is the best."""

    epoch: int
    train_loss: float
    valid: Mapping[str, float]
    learning_rate: float
    seconds: float
    rows_per_second: float
    is_best: bool
    stop: bool

    def as_record(self) -> dict[str, Any]:
        """The line of metrics.jsonl: every metric has a key, which is null where it was not measured."""
        record = dict(vars(self))
        valid = record.pop("valid")
        return record | {f"valid_{name}": valid.get(name) for name in METRICS}


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


def selection_score(valid: Mapping[str, float], metric: str) -> float:
    """A validation metric, negated where lower is better."""
    return valid[metric] if METRICS[metric] else -valid[metric]
