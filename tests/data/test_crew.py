"""Helpers prepare what would be prepared without them, in order, and are done without when they fail."""

from __future__ import annotations

import signal

import pytest

from sentiment_hybrid.data import split
from sentiment_hybrid.data.crew import Crew, Recipe, prepare

RECIPE = Recipe("tweet@2", 3, 2, (0.1, 0.2))
BATCHES = [[f"@anna text {batch} {n} cafÃ© & more http://x.y" for n in range(50)] for batch in range(7)]


@pytest.mark.parametrize("helpers", [0, 1, 2])
@pytest.mark.parametrize("same", [True, False])
def test_helpers_give_what_one_process_gives_in_order(helpers: int, same: bool) -> None:
    raws = [None if same else [text.upper() for text in batch] for batch in BATCHES]
    with Crew(helpers=helpers, alone=100) as crew:
        waiting = [crew.submit(RECIPE, batch, raw) for batch, raw in zip(BATCHES, raws, strict=True)]
        assert crew.depth == max(1, 2 * helpers)
        results = [result() for result in waiting]
    assert results == [prepare(RECIPE, batch, raw) for batch, raw in zip(BATCHES, raws, strict=True)]


def test_a_helper_that_dies_is_done_without() -> None:
    with Crew(helpers=1, alone=0) as crew:
        first = crew.submit(RECIPE, BATCHES[0], None)()
        for process in crew._processes:
            process.kill()
            process.wait()
        second = crew.submit(RECIPE, BATCHES[1], None)()
    assert [first, second] == [prepare(RECIPE, batch, None) for batch in BATCHES[:2]]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals")
def test_a_helper_that_dies_over_its_work_is_done_without() -> None:
    with Crew(helpers=1, alone=0) as crew:
        crew.submit(RECIPE, BATCHES[0], None)()
        (process,) = crew._processes
        process.send_signal(signal.SIGSTOP)  # so that it takes the batch and does not answer
        result = crew.submit(RECIPE, BATCHES[1], None)
        while crew._free.qsize():
            pass
        process.kill()
        assert result() == prepare(RECIPE, BATCHES[1], None)


def test_helpers_end_with_the_crew() -> None:
    with Crew(helpers=1, alone=0) as crew:
        crew.submit(RECIPE, BATCHES[0], None)
        (process,) = crew._processes
    assert process.returncode is not None


def test_a_text_with_half_a_character_travels_too() -> None:
    texts, recipe = ["odd \ud800 half"] * 3, Recipe("none@1", 0, 2, None, split.TEST)
    with Crew(helpers=1, alone=0) as crew:
        assert crew.submit(recipe, texts, None)() == prepare(recipe, texts, None)
