"""Probabilities of a classifier over many texts, in the order in which they were given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from sentiment_hybrid.engine.batches import TokenizedTexts, collate, pack
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.features import StoredStates
from sentiment_hybrid.engine.memory import in_batches

#: Tokens that take longer to compute than an encoder's weights take to be cast and packed.
_WORTH_A_LAYOUT = 4096


@dataclass(frozen=True)
class Material:
    """Texts ready for a classifier: tokenised, with labels (N,) int64 and, where they are kept, stored states."""

    tokenized: TokenizedTexts
    labels: np.ndarray
    states: StoredStates | None = None

    def __len__(self) -> int:
        return len(self.labels)


def laid_out(classifier: torch.nn.Module, compute: Compute, *, tokens: int) -> AbstractContextManager[None]:
    """Within, the encoder's weights lie ready for inference, where ``tokens`` are enough to pay for it, or for int8."""
    encoder = getattr(classifier, "encoder", None)
    few = tokens < _WORTH_A_LAYOUT and not (compute.precision == "int8" and tokens)
    if encoder is None or few or compute.precision == "fp16":
        return nullcontext()
    return cast(AbstractContextManager[None], encoder.prepared(compute.precision))


def predict_probabilities(
    classifier: torch.nn.Module,
    tokenized: TokenizedTexts,
    *,
    compute: Compute,
    token_budget: int,
    states: StoredStates | None = None,
    progress: Callable[[int], object] = lambda rows: None,
    share: tuple[int, int] = (0, 1),
) -> np.ndarray:
    """Softmax probabilities (N, C) float32; sorted by length inside, row order restored outside.

    The classifier is put into eval mode and given back in the mode it had. ``share`` is a process's number and how
    many there are: it computes its part of the batches, and the rows of the others are 0. The batches are the same
    however many share them; with more processes than batches, some get an empty (0, 0). A batch that finds no memory
    is done again in smaller ones.

    Raises:
        TrainingError: there is no memory for a single text.
    """
    was_training = classifier.training
    classifier.eval()
    rows = np.arange(len(tokenized))
    lengths = tokenized.lengths
    batches = pack(lengths, rows, token_budget)[share[0] :: share[1]]

    def probabilities_of(batch_rows: np.ndarray) -> np.ndarray:
        batch = collate(tokenized, batch_rows, states)
        with compute.autocast():
            logits = classifier(**batch.inputs(compute.device)).logits  # (B, C)
        return np.asarray(torch.softmax(logits.float(), dim=-1).cpu().numpy())

    done: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    with torch.inference_mode(), laid_out(classifier, compute, tokens=0 if states is not None else tokenized.ids.size):
        for batch_rows, part in in_batches(
            batches, lengths, probabilities_of, token_budget=token_budget, device=compute.device
        ):
            done.append(batch_rows)
            parts.append(part)
            progress(len(batch_rows))
    classifier.train(was_training)
    if not parts:
        return np.empty((0, 0), dtype=np.float32)
    probabilities = np.zeros((len(rows), parts[0].shape[1]), dtype=np.float32)
    probabilities[np.concatenate(done)] = np.concatenate(parts)
    return probabilities
