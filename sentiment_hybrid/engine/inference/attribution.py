"""What each token adds to a logit: integrated gradients over word embeddings, and the attention of the head.

Integrated gradients (Sundararajan, Taly and Yan 2017): the gradient of the logit, averaged on the straight way from a
baseline to the text, times the way. The weights of the tokens sum to logit(text) - logit(baseline) as far as the
average is exact, so that sum tells how many points on the way are enough: they are doubled until it fits, or until
they cost too much for a long text. Points are those of Clenshaw and Curtis (1960): all of them are used again when they
are doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from sentiment_hybrid.engine.batches import TokenizedTexts, collate, pack
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.memory import in_batches
from sentiment_hybrid.models.classifier import Classifier

T = TypeVar("T")

#: Intervals between the points on the way: at first, and at most.
_FIRST, _MOST = 8, 1024
#: Intervals times tokens of a text, at most, beyond the first intervals: a long text that does not converge would take
#: hours.
_MOST_TOKENS = 300_000
#: Points are enough where the sum of the weights differs from the difference of the logits by no more than this, or
#: this share of it; 0.01 and 1 % are promised for texts within the limits above.
_NEAR = _NEAR_SHARE = 0.009
#: Tokens computed together: each point keeps what its gradient needs.
_TOKEN_BUDGET = 4096


@dataclass(frozen=True)
class Attribution:
    """Tokens of one text, special ones included, with their weights for one label.

    weights (T,) float64 sum to ``logit - baseline``, but for ``error``; without gradients they are 0, and so is
    ``baseline``. attention (T,) sums to 1. logits (C,).
    """

    logits: np.ndarray
    attention: np.ndarray
    target: int
    weights: np.ndarray
    baseline: float = 0.0
    error: float = 0.0


def attribute(
    classifier: Classifier,
    tokenized: TokenizedTexts,
    targets: Callable[[np.ndarray], np.ndarray],
    *,
    compute: Compute,
    special: np.ndarray,
    baseline_id: int | None,
    gradients: bool = True,
    progress: Callable[[int], object] = lambda texts: None,
) -> list[Attribution]:
    """Explain each of N texts, in float32, whatever the precision of predictions is.

    Args:
        classifier: with an encoder, in eval mode and on the device of ``compute``.
        tokenized: the texts.
        targets: logits (N, C) -> the label (N,) to explain of each text.
        compute: the device.
        special: ids of tokens that are no text: they are the same in the baseline.
        baseline_id: the token that stands for all others in the baseline; None takes embeddings of zeros.
        gradients: False leaves the weights at 0 and costs no more than a prediction.
        progress: called with the number of texts that are done.

    Raises:
        TrainingError: there is no memory for a single text.
    """
    way = _Way(classifier, tokenized, compute, torch.from_numpy(special), baseline_id)
    logits, attention = way.ends()
    chosen = targets(logits)
    if not gradients:
        nothing = [np.zeros(len(weights)) for weights in attention]
        return [Attribution(*each) for each in zip(logits, attention, chosen.tolist(), nothing, strict=True)]
    averages: list[_Average | None] = [None] * len(tokenized)
    waiting, intervals = np.arange(len(tokenized)), _FIRST
    while len(waiting):
        steps = np.arange(intervals + 1) if intervals == _FIRST else np.arange(1, intervals, 2)
        places = (1.0 - np.cos(np.pi * steps / intervals)) / 2.0  # in [0, 1]
        rows = np.repeat(waiting, len(places))
        points = way.points(rows, np.tile(places, len(waiting)), chosen[rows])
        for at, row in enumerate(waiting):
            averages[row] = _Average.of(points[at * len(places) : (at + 1) * len(places)], averages[row])
        intervals *= 2
        affordable = (intervals <= _MOST) & (intervals * tokenized.lengths[waiting] <= _MOST_TOKENS)
        bad = affordable & [not cast(_Average, averages[row]).is_near for row in waiting]
        progress(len(waiting) - int(bad.sum()))
        waiting = waiting[bad]
    return [
        Attribution(logits[row], attention[row], int(chosen[row]), average.weights, average.logits[0], average.error)
        for row, average in enumerate(cast("list[_Average]", averages))
    ]


@dataclass(frozen=True)
class _Average:
    """Gradients times the way (K, T) and logits (K,) at K points from the baseline to the text."""

    gradients: np.ndarray
    logits: np.ndarray

    @classmethod
    def of(cls, points: Sequence[tuple[np.ndarray, float]], before: _Average | None) -> _Average:
        """From the first points, or from those between the ones before."""
        gradients, logits = np.stack([point[0] for point in points]), np.array([point[1] for point in points])
        if before is None:
            return cls(gradients, logits)
        return cls(_interleaved(before.gradients, gradients), _interleaved(before.logits, logits))

    @cached_property
    def weights(self) -> np.ndarray:
        """What each token adds, (T,)."""
        return np.asarray(_quadrature(len(self.logits) - 1) @ self.gradients)

    @property
    def error(self) -> float:
        """How much more they add than the logit changes."""
        return float(self.weights.sum() - (self.logits[-1] - self.logits[0]))

    @property
    def is_near(self) -> bool:
        """Whether that is little."""
        return abs(self.error) <= max(_NEAR, _NEAR_SHARE * abs(self.logits[-1] - self.logits[0]))


def _interleaved(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    both = np.empty((len(old) + len(new), *old.shape[1:]))
    both[::2], both[1::2] = old, new
    return both


@cache
def _quadrature(intervals: int) -> np.ndarray:
    """Weights (intervals + 1,) of the points on [0, 1], for an even number of intervals."""
    angles = np.pi * np.arange(intervals + 1) / intervals  # (K,)
    orders = np.arange(1, intervals // 2 + 1)  # (J,)
    factors = np.where(orders == intervals // 2, 1.0, 2.0) / (4.0 * orders**2 - 1.0)
    weights = (1.0 - np.cos(2.0 * np.outer(angles, orders)) @ factors) / intervals
    weights[[0, -1]] /= 2.0
    return np.asarray(weights)


@dataclass(frozen=True)
class _Way:
    """From the baseline (0) to each text (1)."""

    classifier: Classifier
    tokenized: TokenizedTexts
    compute: Compute
    special: Tensor
    baseline_id: int | None

    def ends(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Logits (N, C) and attention (T,) of the texts themselves."""
        rows = np.arange(len(self.tokenized))
        lengths = self.tokenized.lengths

        def work(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with torch.no_grad():
                output = self.classifier(**collate(self.tokenized, batch).inputs(self.compute.device))
            return output.logits.cpu().numpy(), output.attention.cpu().numpy()

        logits: dict[int, np.ndarray] = {}
        attention: dict[int, np.ndarray] = {}
        for batch, (some, weights) in self._in_batches(rows, lengths, work):
            for at, row in enumerate(batch.tolist()):
                logits[row], attention[row] = some[at], weights[at, : lengths[row]]
        shape = (len(rows), len(logits[0]) if logits else 0)
        order = range(len(rows))
        return np.array([logits[row] for row in order]).reshape(shape), [attention[row] for row in order]

    def points(self, rows: np.ndarray, places: np.ndarray, targets: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Of each point: gradient of the target's logit times the way (T,), and that logit.

        ``rows`` (P,) are the texts, ``places`` (P,) in [0, 1] where on the way, ``targets`` (P,) the labels.
        """
        lengths = self.tokenized.lengths[rows]

        def work(batch: np.ndarray) -> list[tuple[np.ndarray, float]]:
            gradients, logits = self._gradients(rows[batch], places[batch], targets[batch])
            return list(zip(np.split(gradients, np.cumsum(lengths[batch])[:-1]), logits, strict=True))

        found: dict[int, tuple[np.ndarray, float]] = {}
        for batch, parts in self._in_batches(np.arange(len(rows)), lengths, work):
            found.update(zip(batch.tolist(), parts, strict=True))
        return [found[at] for at in range(len(rows))]

    def _in_batches(
        self, rows: np.ndarray, lengths: np.ndarray, work: Callable[[np.ndarray], T]
    ) -> Iterator[tuple[np.ndarray, T]]:
        batches = pack(lengths, rows, _TOKEN_BUDGET)
        return in_batches(batches, lengths, work, token_budget=_TOKEN_BUDGET, device=self.compute.device)

    def _gradients(self, rows: np.ndarray, places: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, list[float]]:
        """The same of one batch: the tokens of all points in a row, and the logits."""
        device, encoder = self.compute.device, self.classifier.encoder
        assert encoder is not None
        inputs = collate(self.tokenized, rows).inputs(device)
        ids, mask = inputs.pop("input_ids"), inputs["attention_mask"]
        text = encoder.word_embeddings(ids)  # (W, T, E)
        baseline = torch.zeros_like(text)
        if self.baseline_id is not None:
            baseline[:] = encoder.word_embeddings(torch.tensor([self.baseline_id], device=device))
        baseline = torch.where(torch.isin(ids, self.special.to(device)).unsqueeze(-1), text, baseline)
        place = torch.from_numpy(places).to(device, text.dtype)[inputs["text_index"]]  # (W,)
        point = torch.lerp(baseline, text, place[:, None, None]).requires_grad_()
        # cuDNN has no gradient of a recurrence outside of training.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            states = encoder.of_embeddings(point, mask)
            logits = self.classifier(**{**inputs, "states": states}).logits
            logits = logits.gather(1, torch.from_numpy(targets).to(device).unsqueeze(1)).squeeze(1)  # (P,)
            (gradient,) = torch.autograd.grad(logits.sum(), point)
        each = ((text - baseline) * gradient).sum(-1)[mask]  # (tokens,)
        return each.double().cpu().numpy(), logits.detach().double().cpu().tolist()
