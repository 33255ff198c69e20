"""What this machine can do at most: the rate of its matrix products and of copying, measured in this very process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F

#: (rows, inner width, columns) of a matrix product: rows x inner times inner x columns.
Shape = tuple[int, int, int]


def matmul_rate(
    shapes: Sequence[Shape], dtype: str = "float32", seconds: float = 2.0, *, device: str | torch.device = "cpu"
) -> float:
    """The best rate at these shapes, FLOP/s: each product's fastest run, all of them together once.

    A layer's products as ``torch.nn.functional.linear`` does them, without gradients, with the threads that torch has.
    Shapes that are there several times are measured once; each has its share of ``seconds``, and at least five runs.

    Args:
        shapes: of (m, k, n): m rows of k values, by a weight of (n, k).
        dtype: a name in torch: float32, bfloat16, float16.
        seconds: how long to measure in all.
        device: where.
    """
    kind = getattr(torch, dtype)
    distinct = list(dict.fromkeys(shapes))
    took: dict[Shape, float] = {}
    for shape in distinct:
        rows, inner, columns = shape
        left = torch.randn(rows, inner, device=device, dtype=kind)
        weight = torch.randn(columns, inner, device=device, dtype=kind)
        with torch.inference_mode():
            took[shape] = fastest(partial(F.linear, left, weight), seconds / len(distinct), device=device)
    total = sum(took[shape] for shape in shapes)
    return sum(2.0 * rows * inner * columns for rows, inner, columns in shapes) / total


def copy_rate(megabytes: int = 256, seconds: float = 1.0, *, device: str | torch.device = "cpu") -> float:
    """The best rate of copying memory, bytes/s: what is read, counted once; a block far larger than the caches."""
    source = torch.ones(megabytes * 2**18, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return megabytes * 2**20 / fastest(lambda: target.copy_(source), seconds, device=device)


def encoder_shapes(tokens: int, *, hidden: int, intermediate: int) -> list[Shape]:
    """The products of one transformer layer over this many tokens, without those of attention itself."""
    return [*[(tokens, hidden, hidden)] * 4, (tokens, hidden, intermediate), (tokens, intermediate, hidden)]


def encoder_flops(tokens: int, *, hidden: int, intermediate: int, layers: int) -> float:
    """FLOP of a forward pass over real tokens, from the products of `encoder_shapes` alone."""
    shapes = encoder_shapes(tokens, hidden=hidden, intermediate=intermediate)
    return layers * sum(2.0 * rows * inner * columns for rows, inner, columns in shapes)


def fastest(work: Callable[[], object], seconds: float, *, device: str | torch.device = "cpu") -> float:
    """Seconds of the fastest of at least five runs within the given time; two runs before are not counted."""
    finish = finisher(device)
    for _ in range(2):
        work()
    finish()
    best, end, runs = float("inf"), time.perf_counter() + seconds, 0
    while runs < 5 or time.perf_counter() < end:
        started = time.perf_counter()
        work()
        finish()
        best = min(best, time.perf_counter() - started)
        runs += 1
    return best


def finisher(device: str | torch.device) -> Callable[[], object]:
    """What waits for the work that a device was given; nothing on a CPU, which works at once."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.synchronize
    return torch.mps.synchronize if kind == "mps" else lambda: None
