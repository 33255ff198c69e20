"""One item ahead: in order, in another thread, and over when the loop is."""

from __future__ import annotations

import threading

import pytest

from sentiment_hybrid.engine.prefetch import one_ahead


def test_results_come_in_order_from_another_thread_and_items_are_taken_in_this_one():
    own, seen = threading.current_thread(), []

    def items():
        for number in range(5):
            assert threading.current_thread() is own
            seen.append(number)
            yield number

    results = one_ahead(lambda number: (number, threading.current_thread()), items())
    for at, (number, thread) in enumerate(results):
        assert number == at
        assert thread is not own
        assert len(seen) <= number + 2, "one ahead at most"


@pytest.mark.parametrize("count", [0, 1])
def test_few_items_are_enough(count):
    assert list(one_ahead(str, range(count))) == ["0"][:count]


def test_a_failure_comes_in_its_turn_and_the_thread_ends():
    before = set(threading.enumerate())
    results = one_ahead(lambda number: 1 // number, [2, 1, 0, 5])
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert set(threading.enumerate()) <= before


def test_a_loop_that_is_left_ends_the_thread():
    before = set(threading.enumerate())
    results = one_ahead(str, range(100))
    assert next(results) == "0"
    results.close()
    assert set(threading.enumerate()) <= before
