"""The next item is made in a thread while the current one is used."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def one_ahead(make: Callable[[T], R], items: Iterable[T | None]) -> Generator[R]:
    """What ``make`` makes of each item, in order; None in between means that the next one may take a while.

    Items are taken in the caller's thread, where Ctrl-C is heard; ``make`` runs in another one, which has ended when
    the generator has. What it raises is raised here, after the results before it.
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
