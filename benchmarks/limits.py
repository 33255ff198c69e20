"""What this machine can do at most, measured in the process of the benchmark that it stands beside; tables and JSON.

from limits import as_json, copy_rate, encoder_shapes, machine, matmul_rate, side_by_side, table
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

#: (rows, inner width, columns) of a matrix product: rows x inner times inner x columns.
Shape = tuple[int, int, int]

_PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "onnxruntime", "numpy", "pandas")


def matmul_rate(shapes: Sequence[Shape], dtype: str = "float32", seconds: float = 2.0, *, device: str = "cpu") -> float:
    """The best rate at these shapes, FLOP/s: each product's fastest run, all of them together once.

    A layer's products as ``torch.nn.functional.linear`` does them, without gradients, with the threads that torch has.
    Each shape has its share of ``seconds``, and at least five runs.

    Args:
        shapes: of (m, k, n): m rows of k values, by a weight of (n, k).
        dtype: a name in torch: float32, bfloat16, float16.
        seconds: how long to measure in all.
        device: where.
    """
    import torch
    import torch.nn.functional as F

    kind = getattr(torch, dtype)
    total = 0.0
    for rows, inner, columns in shapes:
        left = torch.randn(rows, inner, device=device, dtype=kind)
        weight = torch.randn(columns, inner, device=device, dtype=kind)
        with torch.inference_mode():
            total += fastest(lambda x=left, w=weight: F.linear(x, w), seconds / len(shapes), device=device)
    return sum(2.0 * rows * inner * columns for rows, inner, columns in shapes) / total


def copy_rate(megabytes: int = 256, seconds: float = 1.0, *, device: str = "cpu") -> float:
    """The best rate of copying memory, bytes/s: what is read, counted once; a block far larger than the caches."""
    import torch

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


def fastest(work: Callable[[], object], seconds: float, *, device: str = "cpu") -> float:
    """Seconds of the fastest of at least five runs within the given time; two runs before are not counted."""
    finish = _finisher(device)
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


def side_by_side(
    contestants: Mapping[str, Callable[[], object]], *, repeats: int = 5, device: str = "cpu", warmup: bool = True
) -> dict[str, list[float]]:
    """Seconds of each contestant's runs; they take turns, so that a busy moment of the machine hits all of them."""
    finish = _finisher(device)
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + warmup):
        for name, work in contestants.items():
            finish()
            started = time.perf_counter()
            work()
            finish()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(rival: Sequence[float], ours: Sequence[float]) -> float:
    """How many times as long the rival takes: the median of the ratios turn by turn."""
    return statistics.median(theirs / own for theirs, own in zip(rival, ours, strict=True))


def machine() -> dict[str, Any]:
    """Processor, cores, what it has for half precision, the system, and the versions of what was measured."""
    import torch

    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": _memory_gb(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16": bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
    }


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - no path, a window into the kernel
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def table(rows: Sequence[Mapping[str, Any]], *, title: str = "") -> str:
    """Rows of the same keys as aligned text; numbers to the right, floats to three places at most."""
    if not rows:
        return title
    columns = list(rows[0])
    cells = [[_shown(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(name), *(len(line[at]) for line in cells)) for at, name in enumerate(columns)]
    numeric = [all(isinstance(row.get(name), (int, float, type(None))) for row in rows) for name in columns]

    def line(values: Sequence[str]) -> str:
        placed = (
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        )
        return "  ".join(placed).rstrip()

    head = [title] if title else []
    return "\n".join([*head, line(columns), line(["-" * width for width in widths]), *map(line, cells)])


def machine_lines(facts: Mapping[str, Any]) -> str:
    """What `machine` found, in two lines under a table."""
    gpu = f", {facts['gpu']}" if facts.get("gpu") else ""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return (
        f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads, {facts['capability']}"
        f"{' with bf16' if facts['bf16'] else ''}{gpu}; {facts['system']}\nPython {facts['python']}, {versions}"
    )


def as_json(report: Mapping[str, Any]) -> str:
    """A report as JSON; floats are rounded to six significant digits."""
    return json.dumps(_rounded(report), indent=2)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _rounded(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def _finisher(device: str) -> Callable[[], object]:
    """What waits for work that a device was given; nothing on a CPU."""
    if not device.startswith("cuda"):
        return lambda: None
    import torch

    return torch.cuda.synchronize


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
