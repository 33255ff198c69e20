"""Prepares the next item in a thread while the current one is used."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def one_ahead(make: Callable[[T], R], items: Iterable[T | None]) -> Generator[R]:
    """The result of ``make`` for each item, in order; an item None announces that the next one may take a while.

    Items are read in the caller's thread, which receives Ctrl-C; ``make`` runs in another thread, which ends with the
    generator. Its exceptions are raised here, after the results before them.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="senthy-ahead") as thread:
        waiting: Future[R] | None = None
        for item in items:
            following = None if item is None else thread.submit(make, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
