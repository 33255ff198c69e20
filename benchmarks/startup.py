"""Wall time of `senthy --help` beside that of importing its four small libraries: at most three times as long.

Run it with `python benchmarks/startup.py [--runs N] [--json]` on a machine that has nothing else to do. The two
commands take turns, so that a busy moment hits both; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version

LIMIT = 3.0
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import typer, pydantic, yaml, rich": [sys.executable, "-c", "import typer, pydantic, yaml, rich"],
    "senthy --help": [sys.executable, "-m", "sentiment_hybrid", "--help"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="turns of each command")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    seconds = measure(options.runs)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = medians["senthy --help"] / medians["import typer, pydantic, yaml, rich"]
    facts = {
        "runs": options.runs,
        "median_seconds": {name: round(value, 4) for name, value in medians.items()},
        "slowest_seconds": {name: round(max(times), 4) for name, times in seconds.items()},
        "ratio": round(ratio, 3),
        "limit": LIMIT,
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("typer", "pydantic", "rich")}},
        "machine": {"system": platform.platform(), "processor": processor(), "cores": os.cpu_count()},
    }
    print(json.dumps(facts, indent=2) if options.json else table(facts))
    return int(ratio > LIMIT)


def measure(runs: int) -> dict[str, list[float]]:
    """Seconds of each run; one run of each beforehand fills the caches of files and bytecode."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(runs + 1):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - no path, a window into the kernel
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def table(facts: dict) -> str:
    lines = [f"{name:<36} {value:.3f} s" for name, value in facts["median_seconds"].items()]
    lines.append(f"{'senthy --help / imports':<36} {facts['ratio']:.2f} (limit {facts['limit']:g})")
    lines += [f"{name}: {value}" for part in ("versions", "machine") for name, value in facts[part].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
