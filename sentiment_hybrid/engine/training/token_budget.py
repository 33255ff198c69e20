"""The token budget of a training: halved where a step finds no memory, on all processes alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from sentiment_hybrid import distributed
from sentiment_hybrid.engine.batches import pack
from sentiment_hybrid.engine.memory import exhausted, padded_size, release, smaller
from sentiment_hybrid.engine.training.tasks import MicroBatch


class TokenBudget:
    """The most tokens of a micro-batch, padding included, and what has been learned about it.

    Args:
        tokens: to begin with.
        lengths: tokens of each text, (N,).
        device: where memory is released.
        processes: how many train together.
    """

    def __init__(self, tokens: int, lengths: np.ndarray, *, device: torch.device, processes: int) -> None:
        self.tokens, self.lengths = tokens, lengths
        self.device, self.processes = device, processes
        self._proven = 0  # the largest micro-batch for which several processes had memory

    def within(self, own: list[MicroBatch], make: Callable[[np.ndarray], MicroBatch]) -> list[MicroBatch]:
        """Micro-batches as they were made, or cut anew when the budget has been lowered since."""
        if all(len(part.rows) == 1 or padded_size(self.lengths, part.rows) <= self.tokens for part in own):
            return own
        rows = np.concatenate([part.rows for part in own])
        return [make(part) for part in pack(self.lengths, rows, self.tokens)]

    def suffices(self, rows: np.ndarray, rehearse: Callable[[], bool], *, first: bool) -> bool:
        """Whether every process of several has memory for these rows of a step, if they need more than any before.

        One that fails alone would leave the others waiting for its gradients. So such a step, of which there are few,
        is rehearsed without exchanging anything, and then they agree.
        """
        if self.processes == 1:
            return True
        largest = max(
            padded_size(self.lengths, part)
            for number in range(self.processes)
            for part in pack(self.lengths, rows[number :: self.processes], self.tokens)
        )
        if largest <= self._proven:
            return True
        failed = distributed.agree(not rehearse())
        # The optimiser's moments come with the first step, so what had room before it is no proof.
        self._proven = 0 if failed or first else largest
        return not failed

    def lower(self, own: Sequence[MicroBatch]) -> tuple[int, int]:
        """Make room and halve the budget, on all processes alike; returns it before and after.

        Raises:
            TrainingError: nothing is left to cut.
        """
        release(self.device)
        before = self.tokens
        wanted = distributed.gather(smaller(before, [part.rows for part in own], self.lengths))
        if not any(wanted):
            raise exhausted("a single text does not fit")
        self.tokens = min(budget for budget in wanted if budget)
        return before, self.tokens


class RandomState:
    """The state of the generators that a step draws its dropout from."""

    def __init__(self, device: torch.device) -> None:
        self.device = device if device.type == "cuda" else None
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state(device) if self.device else None

    def restore(self) -> None:
        """Draw again what was drawn since."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and self.device is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)
