"""Probabilities of a classifier for many texts, in input order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from sentiment_hybrid.engine.batches import TokenizedTexts, collate, make_batches
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.memory import in_batches

if TYPE_CHECKING:
    from sentiment_hybrid.engine.states.store import StoredStates
    from sentiment_hybrid.models.classifier import Classifier, HeadOutput


def predict_probabilities(
    classifier: torch.nn.Module,
    tokenized: TokenizedTexts,
    *,
    compute: Compute,
    token_budget: int,
    states: StoredStates | None = None,
    progress: Callable[[int], object] = lambda rows: None,
    process: tuple[int, int] = (0, 1),
    take: Callable[[HeadOutput], torch.Tensor] | None = None,
) -> np.ndarray:
    """Softmax probabilities (N, C) float32; computed in order of length, returned in input order.

    ``take`` selects another result of a batch's output, (B, K).

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

    def probabilities_of(batch_rows: np.ndarray) -> np.ndarray:
        batch = collate(tokenized, batch_rows, states)
        with compute.autocast():
            output = classifier(**batch.inputs(compute.device))
        taken = torch.softmax(output.logits.float(), dim=-1) if take is None else take(output)
        return np.asarray(taken.cpu().numpy())

    done: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    tokens = 0 if states is not None else tokenized.ids.size
    with torch.inference_mode(), compute.layout(getattr(classifier, "encoder", None), tokens=tokens):
        for batch_rows, part in in_batches(
            batches, lengths, probabilities_of, token_budget=token_budget, device=compute.device
        ):
            done.append(batch_rows)
            parts.append(part)
            progress(len(batch_rows))
    classifier.train(was_training)
    if not parts:
        return np.empty((0, 0), dtype=np.float32)
    probabilities = np.zeros((len(lengths), parts[0].shape[1]), dtype=np.float32)
    probabilities[np.concatenate(done)] = np.concatenate(parts)
    return probabilities


def mean_states(
    classifier: Classifier, tokenized: TokenizedTexts, *, compute: Compute, token_budget: int
) -> np.ndarray:
    """The mean token state of each text, all its windows together, (N, H) float32.

    Raises as `predict_probabilities`.
    """
    projection, classifier.projection = classifier.projection, torch.nn.Identity()
    try:
        return predict_probabilities(classifier, tokenized, compute=compute, token_budget=token_budget, take=_pooled)
    finally:
        classifier.projection = projection


def _pooled(output: HeadOutput) -> torch.Tensor:
    assert output.pooled is not None
    return output.pooled.float()
