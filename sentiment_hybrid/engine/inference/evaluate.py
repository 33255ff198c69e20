"""Probabilities of a classifier for many texts, in input order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from sentiment_hybrid.engine.batches import TokenizedTexts, collate, make_batches
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.memory import in_batches

if TYPE_CHECKING:
    from sentiment_hybrid.engine.states.store import StoredStates
    from sentiment_hybrid.models.classifier import Classifier, HeadOutput


def softmax(output: HeadOutput) -> torch.Tensor:
    """The probabilities (B, C) of a batch."""
    return torch.softmax(output.logits.float(), dim=-1)


def pooled(output: HeadOutput) -> torch.Tensor:
    """The mean token states (B, H) of a batch, within `pooling`."""
    assert output.pooled is not None
    return output.pooled.float()


def predict_probabilities(
    classifier: torch.nn.Module,
    tokenized: TokenizedTexts,
    *,
    compute: Compute,
    token_budget: int,
    states: StoredStates | None = None,
    progress: Callable[[int], object] = lambda rows: None,
    process: tuple[int, int] = (0, 1),
    take: Callable[[HeadOutput], torch.Tensor] = softmax,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Softmax probabilities (N, C) float32; computed in order of length, returned in input order.

    ``take`` selects another result of a batch's output, (B, K), and ``out`` (N, K) receives the results.

    The classifier runs in eval mode; its mode is restored. ``process`` is (rank, number of processes): each computes a
    part of the batches, and the rows of the others are 0. Batches do not depend on the number of processes; with more
    processes than batches, some return an empty (0, 0). A batch that runs out of memory is split.

    Raises:
        TrainingError: there is not enough memory for a single text.
    """
    was_training = classifier.training
    classifier.eval()
    lengths = tokenized.lengths
    batches = make_batches(lengths, np.arange(len(lengths)), token_budget)[process[0] :: process[1]]

    def taken(rows: np.ndarray) -> np.ndarray:
        batch = collate(tokenized, rows, states)
        with compute.autocast():
            output = classifier(**batch.inputs(compute.device))
        return np.asarray(take(output).cpu().numpy())

    tokens = 0 if states is not None else tokenized.ids.size
    with torch.inference_mode(), compute.layout(getattr(classifier, "encoder", None), tokens=tokens):
        for rows, part in in_batches(batches, lengths, taken, token_budget=token_budget, device=compute.device):
            if out is None:
                out = np.zeros((len(lengths), part.shape[1]), dtype=np.float32)
            out[rows] = part
            progress(len(rows))
    classifier.train(was_training)
    return np.empty((0, 0), dtype=np.float32) if out is None else out


@contextmanager
def pooling(classifier: Classifier) -> Iterator[None]:
    """Within, a classifier's output has the mean token state of each text, all its windows together."""
    before, classifier.projection = classifier.projection, torch.nn.Identity()
    try:
        yield
    finally:
        classifier.projection = before
