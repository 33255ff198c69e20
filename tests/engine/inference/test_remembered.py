"""No text of a stream is computed twice while it is remembered, and what comes out is always its own."""

from __future__ import annotations

import random

import numpy as np
import pytest

from sentiment_hybrid.engine.inference.remembered import Remembered


def value(text: str) -> list[float]:
    return [float(text), -float(text)]


def computed(texts: list[str]) -> np.ndarray:
    return np.array([value(text) for text in texts], dtype=np.float32).reshape(len(texts), 2)


def test_a_known_text_is_not_wanted_again() -> None:
    known = Remembered(2)
    first = known.want(["1", "2"])
    assert known.learn(first, computed(first.new)).tolist() == [value("1"), value("2")]
    second = known.want(["2", "3", "1"])
    assert second.new == ["3"]
    assert known.learn(second, computed(second.new)).tolist() == [value("2"), value("3"), value("1")]


def test_a_text_is_known_before_its_values_are_there() -> None:
    known = Remembered(2)
    first, second = known.want(["1", "2"]), known.want(["2", "1"])
    assert second.new == []
    known.learn(first, computed(first.new))
    assert known.learn(second, computed([])).tolist() == [value("2"), value("1")]


def test_the_least_recently_seen_text_gives_way() -> None:
    known = Remembered(2, capacity=2)
    for texts in (["1", "2"], ["1"], ["3"]):
        known.learn(wanted := known.want(texts), computed(wanted.new))
    assert known.want(["1"]).new == []
    assert known.want(["2"]).new == ["2"]


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("lead", [0, 1, 2])
def test_whatever_the_size_and_the_lead_each_text_gets_its_own_values(capacity: int, lead: int) -> None:
    source = random.Random(capacity * 10 + lead)
    known = Remembered(2, capacity=capacity)
    chunks = [list(dict.fromkeys(str(source.randrange(20)) for _ in range(source.randrange(1, 12)))) for _ in range(60)]
    waiting = []
    for texts in [*chunks, *([None] * lead)]:
        if texts is not None:
            waiting.append((texts, known.want(texts)))
        if len(waiting) > lead or texts is None:
            earlier, wanted = waiting.pop(0)
            assert known.learn(wanted, computed(wanted.new)).tolist() == [value(text) for text in earlier]


def test_memory_stays_bounded() -> None:
    known = Remembered(2, capacity=10)
    for start in range(0, 1000, 50):
        wanted = known.want([str(number) for number in range(start, start + 50)])
        known.learn(wanted, computed(wanted.new))
    assert len(known._slots) == 10
    assert known._values is not None
    assert len(known._values) == 10
