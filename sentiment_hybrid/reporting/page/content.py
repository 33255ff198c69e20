"""What the page of a report holds, gathered by `commands.report` and rendered by `render`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Word:
    """A piece of a text; ``weight`` is from -1 to 1, above 0 where it speaks for the predicted label."""

    text: str
    weight: float


@dataclass(frozen=True)
class Mistake:
    """A row that a model answers wrongly and confidently; ``words`` explain the answer, where that was possible."""

    row: int
    text: str
    label: str
    prediction: str
    confidence: float
    words: Sequence[Word] = ()


@dataclass
class ModelFigures:
    """A model's figures on the rows of a group; ``scores`` are `metrics.Scores`, ``slices`` `slices.Slice`.

    ``weights`` is the checksum of the weights that were tested; ``coverage`` are shares of the rows kept and their
    accuracy, ``coverage_at`` the largest share kept at each target accuracy.

    Of a baseline, there are scores alone; where the predictions are gone, coverage, slices and mistakes are missing.
    """

    name: str
    scores: Any
    id: str = ""
    created: str = ""
    model_dir: str = ""
    weights: str = ""
    seeds: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    coverage: Sequence[tuple[float, float]] = ()
    coverage_at: Mapping[float, float] = field(default_factory=dict)
    slices: Sequence[Any] = ()
    mistakes: Sequence[Mistake] = ()


@dataclass
class Group:
    """Models that were tested on the same rows; ``pairs`` are (comparison, first name, second name)."""

    title: str
    rows: int
    labels: Sequence[str]
    models: list[ModelFigures]
    baseline: ModelFigures | None = None
    pairs: Sequence[tuple[Any, str, str]] = ()

    @property
    def rivals(self) -> list[ModelFigures]:
        """The models, and the baseline if there is one."""
        return [*self.models, *([self.baseline] if self.baseline else [])]


@dataclass(frozen=True)
class Curve:
    """A training run: its epochs as metrics.jsonl has them, and what it was made with."""

    id: str
    name: str
    epochs: Sequence[Mapping[str, Any]]
    settings: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Search:
    """A search: the value of each finished trial by number, the best parameters, and importances."""

    name: str
    trials: Sequence[tuple[int, float]]
    pruned: int
    failed: int
    best: Mapping[str, Any]
    importances: Mapping[str, float]


@dataclass(frozen=True)
class DataCard:
    """The prepared data: rows by split and label, and how it was made."""

    source: str
    normalizer: str
    fingerprint: str
    labels: Sequence[str]
    counts: Mapping[str, Sequence[int]]
    report: Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """What `senthy check` found: flagged rows by reason, the first of them, and tokens that give a label away."""

    created: str
    rows: int
    counts: Mapping[str, int]
    flagged: Sequence[Mapping[str, Any]]
    tokens: Sequence[Mapping[str, Any]]


@dataclass
class Report:
    """Everything on the page; ``notes`` are what could not be read."""

    title: str
    created: str
    version: str
    groups: list[Group]
    curves: list[Curve]
    searches: list[Search]
    data: DataCard | None
    check: Check | None
    repeat: Sequence[str]
    notes: list[str]
