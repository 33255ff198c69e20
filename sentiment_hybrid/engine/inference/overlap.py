"""Stages that work at the same time: bounded, in order, ending together whatever happens in one of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _Channel(Generic[T]):
    """A queue of at most ``depth`` items between two threads that either may end."""

    def __init__(self, depth: int) -> None:
        self._items: deque[T] = deque()
        self._depth = depth
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._failure: BaseException | None = None

    def put(self, item: T) -> bool:
        """Wait for room; False when nobody takes any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._depth)
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
        return True

    def end(self, failure: BaseException | None = None) -> None:
        """Nothing more comes; a failure is raised where the items are taken, after those before it."""
        with self._changed:
            self._ended, self._failure = True, failure
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody takes any more; what waits is dropped."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._ended or len(self._items) > 0)
                if not self._items:
                    if self._failure is not None and not self._closed:
                        raise self._failure
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


@contextmanager
def ahead(items: Iterable[T], *, depth: int = 1) -> Iterator[Iterator[T]]:
    """The items, taken by a thread of its own while the block works on earlier ones; ``depth`` wait at most.

    What taking one raises is raised in the block when its turn comes. A generator is run and closed by that thread
    alone. The thread has ended when the block has: taking an item must not wait for ever.
    """
    channel: _Channel[T] = _Channel(depth)

    def take() -> None:
        try:
            for item in items:
                if not channel.put(item):
                    return
            channel.end()
        except BaseException as failure:  # noqa: BLE001 - raised again where the items are used
            channel.end(failure)
        finally:
            if (close := getattr(items, "close", None)) is not None:
                close()

    thread = threading.Thread(target=take, name="senthy-ahead", daemon=True)
    thread.start()
    try:
        yield iter(channel)
    finally:
        channel.close()
        thread.join()


@contextmanager
def behind(work: Callable[[T], object], *, depth: int = 1) -> Iterator[Callable[[T], None]]:
    """A function that has a thread of its own do ``work`` with each item, in order; ``depth`` wait at most.

    What one raises is raised by a later call or at the end of the block. When the block fails, what waits is dropped;
    the thread has ended when the block has.
    """
    channel: _Channel[T] = _Channel(depth)
    failures: list[BaseException] = []

    def do() -> None:
        try:
            for item in channel:
                work(item)
        except BaseException as failure:  # noqa: BLE001 - raised again where the items come from
            failures.append(failure)
            channel.close()

    def put(item: T) -> None:
        if not channel.put(item):
            raise failures[0]

    thread = threading.Thread(target=do, name="senthy-behind", daemon=True)
    thread.start()
    try:
        yield put
        channel.end()
        thread.join()
    finally:
        channel.close()
        thread.join()
    if failures:
        raise failures[0]


def mapped(function: Callable[[T], R], items: Iterable[T], *, depth: int = 1) -> Generator[tuple[T, R]]:
    """Each item with the function's result, in order; a thread of its own is ``depth`` items ahead at most."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="senthy-mapped")
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > depth:
                first, result = waiting.popleft()
                yield first, result.result()
        while waiting:
            first, result = waiting.popleft()
            yield first, result.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
