"""Stages beside each other keep the order and a bound, tell what failed in its turn, and leave no thread behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from sentiment_hybrid.engine.inference import overlap


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class Source:
    """Counts what was taken; ``fails_at`` raises in the place of that item."""

    def __init__(self, count: int = 1000, *, fails_at: int | None = None) -> None:
        self.count, self.fails_at = count, fails_at
        self.taken = 0
        self.closed_in: threading.Thread | None = None

    def items(self) -> Iterator[int]:
        try:
            for number in range(self.count):
                if number == self.fails_at:
                    raise OSError(f"item {number}")
                self.taken = number + 1
                yield number
        finally:
            self.closed_in = threading.current_thread()


def test_items_come_in_order_from_another_thread() -> None:
    source = Source(50)
    with overlap.ahead(source.items()) as items:
        assert list(items) == list(range(50))
    assert source.closed_in is not threading.current_thread()


def test_no_more_items_are_taken_than_the_depth_allows() -> None:
    source = Source()
    with overlap.ahead(source.items(), depth=2) as items:
        for number in items:
            # The one in use, two that wait, one in the hand of the thread.
            assert source.taken <= number + 4
            if number == 100:
                break
    assert source.taken <= 104
    assert source.closed_in is not None


def test_what_reading_raises_comes_after_the_items_before_it() -> None:
    seen = []
    with pytest.raises(OSError, match="item 5"), overlap.ahead(Source(fails_at=5).items()) as items:
        for number in items:
            seen.append(number)
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError("x")])
def test_a_block_that_fails_ends_the_threads(failure: BaseException) -> None:
    source, done = Source(), []
    with (
        pytest.raises(type(failure)),
        overlap.ahead(source.items()) as items,
        overlap.behind(done.append) as put,
        closing(overlap.mapped(lambda number: -number, items)) as pairs,
    ):
        for number, _ in pairs:
            put(number)
            if number == 20:
                raise failure
    assert done == list(range(len(done)))
    assert source.closed_in is not None


def test_work_is_done_in_order_in_another_thread() -> None:
    done: list[tuple[int, threading.Thread]] = []
    with overlap.behind(lambda item: done.append((item, threading.current_thread()))) as put:
        for number in range(50):
            put(number)
    assert [number for number, _ in done] == list(range(50))
    assert {thread for _, thread in done}.isdisjoint({threading.current_thread()})


def test_work_that_waits_is_bounded() -> None:
    gate, put_so_far = threading.Event(), []

    def fill() -> None:
        with overlap.behind(lambda _: gate.wait(), depth=2) as put:
            for number in range(10):
                put(number)
                put_so_far.append(number)
                if number == 2:
                    reached.set()

    reached = threading.Event()
    thread = threading.Thread(target=fill)
    thread.start()
    assert reached.wait(10)
    # One is being worked on and two wait: the next must not get through.
    assert put_so_far == [0, 1, 2]
    gate.set()
    thread.join()
    assert put_so_far == list(range(10))


@pytest.mark.parametrize("at", [0, 3, 9])
def test_what_work_raises_is_raised_at_the_latest_when_the_block_ends(at: int) -> None:
    done = []

    def work(number: int) -> None:
        if number == at:
            raise OSError("disk")
        done.append(number)

    with pytest.raises(OSError, match="disk"), overlap.behind(work) as put:
        for number in range(10):
            put(number)
    assert done == list(range(at))


def test_results_come_with_their_items_in_order() -> None:
    source = Source(30)
    assert list(overlap.mapped(str, source.items(), depth=3)) == [(number, str(number)) for number in range(30)]


def test_what_a_function_raises_comes_in_its_turn() -> None:
    seen = []
    with pytest.raises(ZeroDivisionError):
        for number, result in overlap.mapped(lambda number: 1 / (number - 3), range(9)):
            seen.append((number, result))
    assert [number for number, _ in seen] == [0, 1, 2]
