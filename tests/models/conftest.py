"""Small heads, and batches of texts as windows of random token states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sentiment_hybrid.config.schema import Config, Section
from sentiment_hybrid.heads import HEADS
from sentiment_hybrid.models import build_head
from sentiment_hybrid.models.classifier import Classifier, HeadOutput

SIZE = 12

#: Sizes small enough for a test; a head that is not named here runs with its defaults.
SMALL: dict[str, dict[str, Any]] = {
    "lstm": {"hidden": 8, "layers": 2, "attention_heads": 2},
    "han": {"hidden": 8, "layers": 2},
}


@dataclass(frozen=True)
class Windows:
    """A batch as a head reads it."""

    states: Tensor  # (W, T, H)
    mask: Tensor  # (W, T)
    text_index: Tensor  # (W,)
    num_texts: int

    def classify(self, classifier: Classifier) -> HeadOutput:
        return classifier(
            states=self.states, attention_mask=self.mask, text_index=self.text_index, num_texts=self.num_texts
        )

    def like(self, dtype: torch.dtype) -> Windows:
        return replace(self, states=self.states.to(dtype))


def make_windows(lengths: list[list[int]], *, extra: int = 0, junk: float = 50.0, seed: int = 0) -> Windows:
    """Texts given by the token counts of their windows; the n-th window's states depend on seed and n alone."""
    flat = [(text, length) for text, windows in enumerate(lengths) for length in windows]
    width = max(length for _, length in flat) + extra
    states = torch.full((len(flat), width, SIZE), junk)
    mask = torch.zeros(len(flat), width, dtype=torch.bool)
    for row, (_, length) in enumerate(flat):
        generator = torch.Generator().manual_seed(seed * 1000 + row)
        states[row, :length] = torch.randn(length, SIZE, generator=generator)
        mask[row, :length] = True
    return Windows(states, mask, torch.tensor([text for text, _ in flat]), len(lengths))


def small_config(name: str, **changes: Any) -> Section:
    section: Section = type(Config().model(name).head)(**{**SMALL.get(name, {}), **changes})
    return section


class NoEncoder(torch.nn.Module):
    """States stand for themselves, as those of a frozen encoder."""

    def above(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        return states


def make_classifier(name: str, *, num_classes: int = 3, **changes: Any) -> Classifier:
    torch.manual_seed(7)
    head = build_head(name, small_config(name, **changes), input_size=SIZE, num_classes=num_classes)
    return Classifier(NoEncoder(), head)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small are slower on many threads, and much slower on cores that others use too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=sorted(HEADS))
def head_name(request: pytest.FixtureRequest) -> str:
    """Every registered head, one after the other."""
    return str(request.param)


@pytest.fixture
def make():
    """make.windows and make.classifier: importing a conftest does not work with the importlib mode of pytest."""

    class Make:
        windows = staticmethod(make_windows)
        classifier = staticmethod(make_classifier)
        size = SIZE

    return Make
