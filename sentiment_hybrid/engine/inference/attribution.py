"""What each token adds to a logit: integrated gradients over word embeddings, and the attention of the head.

Integrated gradients (Sundararajan, Taly and Yan 2017): the gradient of the logit, averaged on the straight way from a
baseline to the text, times the way. The weights of the tokens sum to logit(text) - logit(baseline) as far as the
average is exact, and so do those of each part of the way: the difference is the error of the part, which is known
exactly. Simpson's rule is applied to each part, and the parts with the largest errors are halved until all is near, or
costs too much for a long text. All points are used again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from sentiment_hybrid.engine.batches import TokenizedTexts, collate, make_batches
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.memory import in_batches
from sentiment_hybrid.models.classifier import Classifier, HeadOutput

T = TypeVar("T")

#: Parts of the way at first, and points on it at most.
_PARTS, _MOST = 4, 513
#: Width of a part that is not halved.
_NARROWEST = 2.0**-20
#: Points times tokens of a text, at most, beyond the first points: about ten seconds of one core with `mini`.
_MOST_TOKENS = 60_000
#: Points are enough where the sum of the weights differs from the difference of the logits by no more than this, or
#: this share of it; 0.01 and 1 % are promised for texts within the limits above.
_NEAR = _NEAR_SHARE = 0.009
#: And where the errors of the parts, whatever their signs, sum to no more than this many times that.
_CANCELLED = 3.0
#: Parts are halved whose error is at least this share of the largest one.
_LARGE = 0.3
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
    """Explain each of N > 0 texts, in float32, whatever the precision of predictions is.

    Args:
        classifier: with an encoder, in eval mode and on the device of ``compute``.
        targets: logits (N, C) -> the label (N,) to explain of each text.
        special: ids of tokens that are no text: they are the same in the baseline.
        baseline_id: the token that stands for all others in the baseline; None takes embeddings of zeros.
        gradients: False leaves the weights at 0 and costs no more than a prediction.

    Raises:
        TrainingError: there is no memory for a single text.
    """
    way = _Way(classifier, tokenized, compute, torch.from_numpy(special), baseline_id)
    logits, attention = zip(*way.ends(), strict=True)
    chosen = targets(np.array(logits))
    if not gradients:
        nothing = [np.zeros(len(weights)) for weights in attention]
        return [Attribution(*each) for each in zip(logits, attention, chosen.tolist(), nothing, strict=True)]
    averages = [_Average() for _ in chosen]
    waiting = list(range(len(tokenized)))
    while waiting:
        places = [averages[row].missing() for row in waiting]
        rows = np.repeat(waiting, [len(some) for some in places])
        points = iter(way.points(rows, np.concatenate(places), chosen[rows]))
        for row, some in zip(waiting, places, strict=True):
            averages[row].add(some, itertools.islice(points, len(some)))
        further = [row for row in waiting if averages[row].refine(int(tokenized.lengths[row]))]
        progress(len(waiting) - len(further))
        waiting = further
    return [
        Attribution(logits[row], attention[row], int(chosen[row]), average.weights, average.baseline, average.error)
        for row, average in enumerate(averages)
    ]


class _Average:
    """The gradient times the way (T,), averaged from the baseline (0) to the text (1), part by part."""

    def __init__(self) -> None:
        # Ends of parts and the points are fractions of a power of two, so they are exact.
        self._parts = [(place / _PARTS, (place + 1) / _PARTS) for place in range(_PARTS)]
        self._points: dict[float, tuple[np.ndarray, float]] = {}  # place -> gradient times the way (T,), logit

    def missing(self) -> list[float]:
        needed = {place for start, end in self._parts for place in (start, (start + end) / 2.0, end)}
        return sorted(needed - self._points.keys())

    def add(self, places: Sequence[float], points: Iterable[tuple[np.ndarray, float]]) -> None:
        self._points.update(zip(places, points, strict=True))

    def refine(self, tokens: int) -> bool:
        """Halve the parts with the largest errors, unless all is near or further points cost too much."""
        errors = [self._error(*part) for part in self._parts]
        near = max(_NEAR, _NEAR_SHARE * abs(self._points[1.0][1] - self._points[0.0][1]))
        if abs(sum(errors)) <= near and sum(map(abs, errors)) <= _CANCELLED * near:
            return False
        largest = max(map(abs, errors))
        worst = [part for part, error in zip(self._parts, errors, strict=True) if abs(error) >= _LARGE * largest]
        points = len(self._points) + 2 * len(worst)
        narrow = any(end - start < _NARROWEST for start, end in worst)  # a jump, which no points make smaller
        if narrow or points > _MOST or points * tokens > _MOST_TOKENS:
            return False
        middles = {part: sum(part) / 2.0 for part in worst}
        halved = {half for (start, end), at in middles.items() for half in ((start, at), (at, end))}
        self._parts = sorted({*self._parts} - {*worst} | halved)
        return True

    def _error(self, start: float, end: float) -> float:
        """How much more the weights of a part add than the logit changes in it."""
        return float(self._weights(start, end).sum()) - (self._points[end][1] - self._points[start][1])

    def _weights(self, start: float, end: float) -> np.ndarray:
        first, middle, last = (self._points[place][0] for place in (start, (start + end) / 2.0, end))
        return np.asarray((first + 4.0 * middle + last) * ((end - start) / 6.0))

    @property
    def weights(self) -> np.ndarray:
        return np.sum([self._weights(*part) for part in self._parts], axis=0)

    @property
    def error(self) -> float:
        return sum(self._error(*part) for part in self._parts)

    @property
    def baseline(self) -> float:
        return self._points[0.0][1]


@dataclass(frozen=True)
class _Way:
    """From the baseline (0) to each text (1)."""

    classifier: Classifier
    tokenized: TokenizedTexts
    compute: Compute
    special: Tensor
    baseline_id: int | None

    def ends(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Logits (C,) and attention (T,) of each text itself."""
        lengths = self.tokenized.lengths

        def work(batch: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
            inputs = collate(self.tokenized, batch).inputs(self.compute.device)
            with torch.no_grad():
                output = self._output(self.classifier.encoder.word_embeddings(inputs.pop("input_ids")), inputs)
            logits, attention = output.logits.cpu().numpy(), output.attention.cpu().numpy()
            return [(logits[at], attention[at, : lengths[row]]) for at, row in enumerate(batch)]

        return self._each(lengths, work)

    def points(self, rows: np.ndarray, places: np.ndarray, targets: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Of each point: gradient of the target's logit times the way (T,), and that logit.

        ``rows`` (P,) are the texts, ``places`` (P,) in [0, 1] where on the way, ``targets`` (P,) the labels.
        """
        lengths = self.tokenized.lengths[rows]

        def work(batch: np.ndarray) -> list[tuple[np.ndarray, float]]:
            gradients, logits = self._gradients(rows[batch], places[batch], targets[batch])
            return list(zip(np.split(gradients, np.cumsum(lengths[batch])[:-1]), logits, strict=True))

        return self._each(lengths, work)

    def _each(self, lengths: np.ndarray, work: Callable[[np.ndarray], list[T]]) -> list[T]:
        """What ``work`` gives for each of these lengths, in batches, in input order."""
        batches = make_batches(lengths, np.arange(len(lengths)), _TOKEN_BUDGET)
        found: dict[int, T] = {}
        for batch, parts in in_batches(batches, lengths, work, token_budget=_TOKEN_BUDGET, device=self.compute.device):
            found.update(zip(batch.tolist(), parts, strict=True))
        return [found[at] for at in range(len(lengths))]

    def _output(self, embedded: Tensor, inputs: dict[str, Any]) -> HeadOutput:
        """Of word embeddings, in float32 though predictions may have laid out the encoder in another precision."""
        states = self.classifier.encoder.of_embeddings(embedded, inputs["attention_mask"])
        return cast(HeadOutput, self.classifier(**{**inputs, "states": states}))

    def _gradients(self, rows: np.ndarray, places: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, list[float]]:
        """The same of one batch: the tokens of all points in a row, and the logits."""
        device, encoder = self.compute.device, self.classifier.encoder
        inputs = collate(self.tokenized, rows).inputs(device)
        ids, mask = inputs.pop("input_ids"), inputs["attention_mask"]
        text = encoder.word_embeddings(ids)  # (W, T, E)
        baseline = torch.zeros_like(text)
        if self.baseline_id is not None:
            baseline[:] = encoder.word_embeddings(torch.tensor([self.baseline_id], device=device))
        special = torch.isin(ids, self.special.to(device))
        # Each as a text of its own: in a static encoder, a special token ends a pair with the last word.
        alone = encoder.word_embeddings(ids.unsqueeze(-1)).squeeze(-2)
        baseline = torch.where(special.unsqueeze(-1), alone, baseline)
        place = torch.from_numpy(places).to(device, text.dtype)[inputs["text_index"]]  # (W,)
        point = torch.lerp(baseline, text, place[:, None, None]).requires_grad_()
        # cuDNN has no gradient of a recurrence outside of training.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            logits = self._output(point, inputs).logits
            logits = logits.gather(1, torch.from_numpy(targets).to(device).unsqueeze(1)).squeeze(1)  # (P,)
            (gradient,) = torch.autograd.grad(logits.sum(), point)
        each = ((text - baseline) * gradient).sum(-1)  # (W, T)
        # What a special token adds is its pair with the token before it, to which it counts.
        pairs = each.where(special, 0.0)
        each = (each - pairs + pairs.roll(-1, dims=1))[mask]  # (tokens,)
        return each.double().cpu().numpy(), logits.detach().double().cpu().tolist()
