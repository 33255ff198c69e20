"""Helpers prepare what would be prepared without them, in order, and are done without when they fail."""

from __future__ import annotations

import pytest

from sentiment_hybrid.data.clean import get_normalizer
from sentiment_hybrid.data.crew import Crew, prepare

BATCHES = [[f"@anna text {batch} {n} cafÃ© & more http://x.y" for n in range(50)] for batch in range(7)]


@pytest.mark.parametrize("helpers", [0, 1, 2])
@pytest.mark.parametrize("same", [True, False])
def test_helpers_give_what_one_process_gives_in_order(helpers: int, same: bool) -> None:
    normalizer = get_normalizer("tweet")
    raws = [None if same else [text.upper() for text in batch] for batch in BATCHES]
    with Crew(normalizer, 3, helpers=helpers, alone=100) as crew:
        waiting = [crew.submit(batch, raw) for batch, raw in zip(BATCHES, raws, strict=True)]
        assert crew.depth == 2 * helpers
        results = [result() for result in waiting]
    assert results == [prepare(normalizer, 3, batch, raw) for batch, raw in zip(BATCHES, raws, strict=True)]


def test_a_helper_that_dies_is_done_without() -> None:
    normalizer = get_normalizer("tweet")
    with Crew(normalizer, 0, helpers=1, alone=0) as crew:
        first = crew.submit(BATCHES[0], None)()
        for process in crew._processes:
            process.kill()
            process.wait()
        second = crew.submit(BATCHES[1], None)()
    assert [first, second] == [prepare(normalizer, 0, batch, None) for batch in BATCHES[:2]]


def test_helpers_end_with_the_crew() -> None:
    with Crew(get_normalizer("tweet"), 0, helpers=1, alone=0) as crew:
        crew.submit(BATCHES[0], None)
        (process,) = crew._processes
    assert process.returncode is not None


def test_a_text_with_half_a_character_travels_too() -> None:
    texts = ["odd \ud800 half"] * 3
    with Crew(get_normalizer("none"), 0, helpers=1, alone=0) as crew:
        assert crew.submit(texts, None)() == prepare(get_normalizer("none"), 0, texts, None)
