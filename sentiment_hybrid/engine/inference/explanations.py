"""Why a text got its label: its words, with what each adds to the label's logit, and the attention it gets."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, get_args

import numpy as np

from sentiment_hybrid.data.labels import finder
from sentiment_hybrid.engine.batches import TokenizedTexts
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.inference.attribution import Attribution, attribute
from sentiment_hybrid.engine.inference.model_directory import ModelInfo
from sentiment_hybrid.engine.inference.onnx_runtime import softmax
from sentiment_hybrid.engine.tokenization import tokenize
from sentiment_hybrid.errors import DataError, LabelError, ModelError, count
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.tokenizer import special_tokens

Method = Literal["gradients", "attention"]
METHODS: tuple[Method, ...] = get_args(Method)
#: What measures best by deletion and insertion of words: docs/explain.md.
DEFAULT_METHOD: Method = "gradients"

#: Texts that are explained together at most: each holds the gradients of its points.
_CHUNK = 256
#: Digits of a weight in files; further ones are rounding noise.
_DIGITS = 4
#: Handles, hashtags, words with what is inside of them, runs of punctuation, runs of emoji.
_WORD = re.compile(r"[@#]?\w+(?:['’.-]\w+)*|[!-/:-@\[-`{-~]+|[^\w\s!-~]+")


@dataclass(frozen=True)
class Word:
    """A word of ``Explanation.text``, which it is from ``start`` to ``end``.

    ``weight`` is what it adds to the logit of the label, negative if it speaks against it; with the method
    ``attention``, the attention. ``attention`` is its share of the attention of the head; what is missing to a sum of 1
    is on the marks of beginning and end.
    """

    text: str
    start: int
    end: int
    weight: float
    attention: float


@dataclass(frozen=True)
class Explanation:
    """Why a model gives a label to a text.

    Without any text, ``prediction``, ``label`` and ``score`` are None, and there are no words.

    Args:
        text: as the model reads it, cleaned.
        method: where ``Word.weight`` comes from.
        logit: of ``label``, after calibration.
        baseline: the same logit where each token of the text is masked. The weights sum to ``logit - baseline``.
        error: how much larger their sum is than that difference.
        unread: characters at the end of ``text`` that lie beyond the model's windows, and were not read.
    """

    text: str
    prediction: str | None = None
    label: str | None = None
    score: float | None = None
    method: Method = DEFAULT_METHOD
    words: tuple[Word, ...] = ()
    logit: float = 0.0
    baseline: float = 0.0
    error: float = 0.0
    unread: int = 0

    @property
    def is_inexact(self) -> bool:
        """Whether the weights sum to something else than promised, by more than 0.01 and 1 %: of some long texts."""
        return abs(self.error) > max(0.01, 0.01 * abs(self.logit - self.baseline))

    def strongest(self, most: int | None = None) -> list[Word]:
        """The words by size of weight, the largest first."""
        return sorted(self.words, key=lambda word: -abs(word.weight))[:most]

    def cells(self, *, places: bool = False) -> list[dict[str, Any]]:
        """The words as plain values: word, weight, attention, and with ``places`` start and end."""
        return [
            {"word": word.text, "weight": round(word.weight, _DIGITS), "attention": round(word.attention, _DIGITS)}
            | ({"start": word.start, "end": word.end} if places else {})
            for word in self.words
        ]

    def to_dict(self, *, places: bool = False) -> dict[str, Any]:
        """As plain values, for JSON; ``places`` as of `cells`."""
        facts = {name: getattr(self, name) for name in ("text", "prediction", "label", "score", "method")}
        figures: dict[str, float | None]
        figures = {name: round(getattr(self, name), _DIGITS) for name in ("logit", "baseline", "error")}
        if self.method == "attention":  # sums to 1, whatever the logit is
            figures |= {"baseline": None, "error": None}
        return {**facts, **figures, "unread": self.unread, "words": self.cells(places=places)}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> Explanation:
        """From what `to_dict` has written, with its rounding; raises KeyError and the like for something else."""
        words, end = [], 0
        for cell in values["words"]:
            start = values["text"].index(cell["word"], end)
            end = start + len(cell["word"])
            words.append(Word(cell["word"], start, end, cell["weight"], cell["attention"]))
        figures: dict[str, Any] = {name: values[name] or 0 for name in ("logit", "baseline", "error", "unread")}
        facts: dict[str, Any] = {name: values[name] for name in ("text", "prediction", "label", "score", "method")}
        return cls(**facts, words=tuple(words), **figures)


@dataclass(frozen=True)
class Explainer:
    """Explains what a classifier answers; `Predictor.explain` is its public face.

    Args:
        classifier: on the device of ``compute``, in eval mode.
        answers: places of the labels that are answered with.
        compute: the device; explanations are computed in float32.

    Raises:
        ModelError: the tokenizer does not say where in a text a token is.
    """

    classifier: Classifier
    tokenizer: Any
    info: ModelInfo
    answers: list[int]
    compute: Compute

    def __post_init__(self) -> None:
        if getattr(self.tokenizer, "backend_tokenizer", None) is None:
            raise ModelError(
                f"the tokenizer of {self.info.encoder_name} does not say where in a text a token is, so its words "
                "cannot be told apart",
                hint="Explanations need an encoder with a tokenizer.json.",
            )

    def explain(
        self,
        texts: Sequence[str],
        labels: Sequence[str | None],
        *,
        method: Method = DEFAULT_METHOD,
        progress: Callable[[int], object] = lambda texts: None,
    ) -> list[Explanation]:
        """Explain cleaned texts, each with its label or, where that is None, the predicted one.

        Raises:
            LabelError: the model does not answer with a label, or there are more or fewer labels than texts.
            DataError: there is no such method.
        """
        if method not in METHODS:
            raise DataError(f"there is no method {method!r}", hint=f"The methods are {' and '.join(METHODS)}.")
        if len(labels) != len(texts):
            raise LabelError(
                f"{count(len(labels), 'label')} for {count(len(texts), 'text')}",
                hint="Give one label for all texts, or one for each.",
            )
        targets = self._places(labels)
        done: dict[tuple[str, int], Explanation] = {}
        asked = list(dict.fromkeys((text, target) for text, target in zip(texts, targets, strict=True) if text))
        for start in range(0, len(asked), _CHUNK):
            part = asked[start : start + _CHUNK]
            done.update(zip(part, self._part(part, method, progress), strict=True))
        nothing = Explanation("", method=method)
        return [done.get(one, nothing) for one in zip(texts, targets, strict=True)]

    def _places(self, labels: Sequence[str | None]) -> list[int]:
        """Places of labels among the model's; -1 for None."""
        own = self.info.labels
        find = finder(own)
        known = {label: -1 if label is None else find(label) for label in set(labels)}
        strangers = sorted(repr(label) for label, place in known.items() if place not in (-1, *self.answers))
        if strangers:
            raise LabelError(
                f"the model does not answer with {', '.join(strangers)}",
                hint=f"It answers with {', '.join(own[place] for place in self.answers)}.",
            )
        return [known[label] for label in labels]  # type: ignore[misc]  # checked above

    def _part(
        self, part: list[tuple[str, int]], method: Method, progress: Callable[[int], object]
    ) -> list[Explanation]:
        wanted, (before, after) = np.array([target for _, target in part]), special_tokens(self.tokenizer)
        tokenized = tokenize(
            [text for text, _ in part],
            self.tokenizer,
            max_length=self.info.max_length,
            max_windows=self.info.max_windows,
        )
        attributions = attribute(
            self.classifier,
            tokenized,
            lambda logits: np.where(wanted < 0, self._predicted(logits), wanted),
            compute=self.compute,
            special=np.array([*before, *after], dtype=np.int64),
            baseline_id=self.tokenizer.mask_token_id,
            gradients=method == "gradients",
            progress=progress,
        )
        return [
            self._explanation(text, found, _read(tokenized, row, len(before), len(after)), method)
            for row, ((text, _), found) in enumerate(zip(part, attributions, strict=True))
        ]

    def _predicted(self, logits: np.ndarray) -> np.ndarray:
        return np.asarray(np.array(self.answers)[logits[:, self.answers].argmax(1)])

    def _explanation(self, text: str, found: Attribution, read: np.ndarray, method: Method) -> Explanation:
        every = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).offsets
        offsets = every[: len(read)]
        weights = found.weights if method == "gradients" else found.attention
        labels = self.info.labels
        shares = softmax(found.logits[self.answers])
        return Explanation(
            text,
            labels[int(self._predicted(found.logits[None])[0])],
            labels[found.target],
            float(shares[self.answers.index(found.target)]),
            method,
            words_of(text, offsets, weights[read], found.attention[read]),
            logit=float(found.logits[found.target]),
            baseline=found.baseline,
            error=found.error,
            unread=len(text) - offsets[-1][1] if len(every) > len(offsets) else 0,
        )


def _read(tokenized: TokenizedTexts, row: int, before: int, after: int) -> np.ndarray:
    """Which tokens of a text are not special, as places in its windows, one after the other."""
    windows, _ = tokenized.windows_of(np.array([row]))
    lengths = tokenized.lengths_of(windows).tolist()
    starts = accumulate(lengths[:-1], initial=0)
    return np.concatenate(
        [np.arange(start + before, start + length - after) for start, length in zip(starts, lengths, strict=True)]
    )


def words_of(
    text: str, offsets: Sequence[tuple[int, int]], weights: np.ndarray, attention: np.ndarray
) -> tuple[Word, ...]:
    """The words that tokens at these offsets are of; a word has the sum of its tokens.

    Each token counts in one word: words that share one, such as those of an emoticon in several parts, are one.
    """
    pieces = [match.span() for match in _WORD.finditer(text)]
    starts, ends = [start for start, _ in pieces], [end for _, end in pieces]
    found: list[list[Any]] = []  # first piece, last piece, tokens
    unplaced: list[int] = []  # nothing but a space, or a sign that the tokenizer added
    for token, (start, end) in enumerate(offsets):
        # The space that a tokenizer puts before a text is trimmed from its first token, which then begins too late.
        start = start if token else 0
        inside = len(text[start:end].lstrip())
        left, right = bisect_right(ends, end - inside), bisect_left(starts, end) - 1
        if not inside or left > right:
            (found[-1][2] if found else unplaced).append(token)
        elif found and left <= found[-1][1]:
            found[-1][1] = max(found[-1][1], right)
            found[-1][2].append(token)
        else:
            found.append([left, right, [*unplaced, token]])
            unplaced = []
    if not found:
        return (Word(text, 0, len(text), float(weights.sum()), float(attention.sum())),)
    return tuple(
        Word(
            text[starts[left] : ends[right]],
            starts[left],
            ends[right],
            float(weights[at].sum()),
            float(attention[at].sum()),
        )
        for left, right, at in found
    )
