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

from peak import copy_rate, encoder_flops, encoder_shapes, fastest, finisher, matmul_rate

__all__ = [
    "CLOCKS",
    "Times",
    "as_json",
    "both",
    "copy_rate",
    "encoder_flops",
    "encoder_shapes",
    "fastest",
    "limited",
    "machine",
    "machine_lines",
    "matmul_rate",
    "ratio",
    "ratios",
    "side_by_side",
    "table",
    "timed",
    "turns",
]

#: What a run takes; processor time is that of all its threads.
CLOCKS = ("seconds", "processor_seconds")
Times = dict[str, float]

_PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "onnxruntime",
    "numpy",
    "pandas",
    "scikit-learn",
    "nltk",
)


def side_by_side(
    contestants: Mapping[str, Callable[[], object]], *, repeats: int = 5, device: str = "cpu", warmup: bool = True
) -> dict[str, list[float]]:
    """Seconds of each contestant's runs; they take turns, so that a busy moment of the machine hits all of them."""
    finish = finisher(device)
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


def timed(work: Callable[[], object]) -> Callable[[], Times]:
    """A run of some work in this process."""

    def run() -> Times:
        started, processor = time.perf_counter(), time.process_time()
        work()
        return {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - processor}

    return run


def turns(contestants: dict[str, Callable[[], Times]], repeats: int) -> dict[str, list[Times]]:
    """Runs of each, by turns, so that a busy moment of the machine hits all of them."""
    taken: dict[str, list[Times]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            taken[name].append(run())
    return taken


def ratios(taken: dict[str, list[Times]], first: str, second: str) -> Times:
    """Of the times of two contestants."""
    return {clock: ratio(*([once[clock] for once in taken[which]] for which in (first, second))) for clock in CLOCKS}


def both(ratios: Times) -> str:
    """The two ratios in words."""
    return f"{ratios['seconds']:.3f} by wall time, {ratios['processor_seconds']:.3f} by processor time"


def limited() -> dict[str, str]:
    """The variables that emulate a lesser processor, for torch alone."""
    return {name: os.environ[name] for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY") if name in os.environ}


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
